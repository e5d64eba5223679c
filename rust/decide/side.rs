//! One tokenizer as the decisions see it: canonical prefixes with numbers, and what was found out about them.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::canonical::State;
use crate::error::Result;
use crate::shared::SharedTokenizer;
use crate::spelling::Tables;
use crate::trie::Trie;

const NONE: u32 = u32::MAX;

/// The tables of one tokenizer, in byte order.
#[derive(Debug)]
pub struct Side {
    pub tables: Arc<Tables>,
    pub trie: Arc<Trie>,
}

/// Where one reading of a byte string stands: a canonical prefix, by number, and the bytes behind it, as a node of the trie.
/// Some canonical token is longer than these bytes; at the root the prefix ends where the bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    pub state: u32,
    pub at: u32,
    /// What it is to whoever asks; see `context`.
    pub label: u32,
}

/// All readings of a byte string.
pub type Items = SmallVec<[Item; 4]>;

/// States of one tokenizer, numbered, with what was found out about them.
#[derive(Debug, Default)]
pub struct States {
    all: Vec<State>,
    complete: Vec<bool>,
    number: FxHashMap<State, u32>,
    pushed: FxHashMap<(u32, u32), u32>,
    longer: FxHashMap<(u32, u32), bool>,
}

impl Side {
    /// Fails where the tokenizer's canonicality cannot be decided.
    pub fn new(tokenizer: &SharedTokenizer) -> Result<Self> {
        Ok(Self { tables: tokenizer.byte_tables()?, trie: tokenizer.byte_trie()? })
    }

    /// The token at a place of the byte order.
    #[inline]
    pub fn token(&self, place: u32) -> u32 {
        self.tables.spelling.tokens()[place as usize]
    }

    /// Bytes of a token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.tables.canonical.tokenizer.bytes.get(token)
    }
}

impl States {
    /// The number of a state.
    pub fn number(&mut self, side: &Side, state: State) -> u32 {
        if let Some(&known) = self.number.get(&state) {
            return known;
        }
        let fresh = self.all.len() as u32;
        self.complete.push(side.tables.canonical.complete(&state));
        self.all.push(state.clone());
        self.number.insert(state, fresh);
        fresh
    }

    /// The number of a state in which the text has ended.
    pub fn ended(&mut self) -> u32 {
        if let Some(&known) = self.number.get(&State::new()) {
            return known;
        }
        let fresh = self.all.len() as u32;
        self.complete.push(true);
        self.all.push(State::new());
        self.number.insert(State::new(), fresh);
        fresh
    }

    /// The state with a number.
    pub fn get(&self, number: u32) -> &State {
        &self.all[number as usize]
    }

    /// Whether the text may end there.
    pub fn complete(&self, number: u32) -> bool {
        self.complete[number as usize]
    }

    /// The state after one more token, if that is canonical.
    pub fn push(&mut self, side: &Side, state: u32, token: u32) -> Option<u32> {
        if let Some(&next) = self.pushed.get(&(state, token)) {
            return (next != NONE).then_some(next);
        }
        let next = side.tables.canonical.push(&self.all[state as usize], token);
        let next = next.map(|next| self.number(side, next));
        self.pushed.insert((state, token), next.unwrap_or(NONE));
        next
    }

    /// Whether a canonical token after `state` is longer than the path to `at`; `true` also where that would take long to find
    /// out. A reading that only seems to go on ends a few bytes later, and until then leaves more undecided.
    pub fn goes_on(&mut self, side: &Side, state: u32, at: u32) -> bool {
        let node = side.trie.node(at);
        if node.exact >= node.last {
            return false;
        }
        let any = || side.tables.masks.perhaps_any(&self.all[state as usize], node.exact as usize, node.last as usize);
        *self.longer.entry((state, at)).or_insert_with(any)
    }

    /// The readings after one more byte.
    pub fn feed(&mut self, side: &Side, item: Item, byte: u8, out: &mut Items, relabel: impl Fn(u32, u32) -> u32) {
        let Some(at) = side.trie.child(item.at, byte) else { return };
        let node = side.trie.node(at);
        for place in node.first..node.exact {
            let token = side.token(place);
            if let Some(state) = self.push(side, item.state, token) {
                add(out, Item { state, at: Trie::ROOT, label: relabel(item.label, token) });
            }
        }
        if self.goes_on(side, item.state, at) {
            add(out, Item { at, ..item });
        }
    }

    /// About how many bytes all this takes.
    pub fn size(&self) -> usize {
        self.all.len() * 400 + (self.pushed.len() + self.longer.len()) * 24
    }
}

fn add(items: &mut Items, item: Item) {
    if !items.contains(&item) {
        items.push(item);
    }
}
