//! What the student may still make of a text that has been read up to some byte (docs/mathematics.md, section 10).
//!
//! A *context* is the set of all student readings of a byte string: canonical student prefixes that end there, or from which a
//! canonical token crosses its end. Each is labelled as starting with the student prefix in question or not. Contexts are
//! states of an automaton over bytes, and what was worked out is kept: words come back.

use rustc_hash::FxHashMap;

use super::side::{Item, Items, Side, States};
use crate::trie::Trie;

/// Does not start with the student prefix.
pub const OUTSIDE: u32 = u32::MAX;
/// Starts with it.
pub const INSIDE: u32 = u32::MAX - 1;
/// Is it; what starts with it gets the next token for a label.
pub const TRACK: u32 = u32::MAX - 2;
/// The student prefix itself while it is being read.
const TRUNK: u32 = u32::MAX - 3;

/// What a context says about its student prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All readings start with it.
    In,
    /// None does (or there is no reading).
    Out,
    /// Some do.
    Open,
    /// Perhaps all do: the search for texts that tell was given up. Never of a context alone.
    GivenUp,
}

/// Contexts by number, and the ways between them.
#[derive(Debug, Default)]
pub struct Contexts {
    pub states: States,
    all: Vec<Box<[Item]>>,
    /// Readings in all of them.
    held: usize,
    number: FxHashMap<Box<[Item]>, u32>,
    fed: FxHashMap<(u32, u8), u32>,
    advanced: FxHashMap<(u32, u32), u32>,
    /// Before the dummy prefix, which only texts that go on have.
    before_dummy: Option<u32>,
}

impl Contexts {
    /// Before any byte, dummy prefix included; the student prefix is empty.
    pub fn start(&mut self, side: &Side, start: bool) -> u32 {
        let state = self.states.number(side, side.tables.canonical.start(start));
        let context = self.keep(Items::from_slice(&[Item { state, at: Trie::ROOT, label: INSIDE }]));
        if start && side.tables.canonical.tokenizer.dummy.is_some() {
            self.before_dummy = Some(context);
        }
        context
    }

    /// The readings.
    pub fn items(&self, context: u32) -> &[Item] {
        &self.all[context as usize]
    }

    /// After one more byte; labels stay.
    pub fn feed(&mut self, side: &Side, context: u32, byte: u8) -> u32 {
        if let Some(&next) = self.fed.get(&(context, byte)) {
            return next;
        }
        let mut next = Items::new();
        for at in 0..self.all[context as usize].len() {
            let item = self.all[context as usize][at];
            self.states.feed(side, item, byte, &mut next, |label, token| if label == TRACK { token } else { label });
        }
        let next = self.keep(next);
        self.fed.insert((context, byte), next);
        next
    }

    /// After several bytes.
    pub fn feed_all(&mut self, side: &Side, context: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(context, |at, &byte| self.feed(side, at, byte))
    }

    /// From the context at the end of s_1..s_i, in question s_1..s_i, to that at the end of s_1..s_{i+1}, in question
    /// s_1..s_{i+1}; `token` is s_{i+1}.
    pub fn advance(&mut self, side: &Side, context: u32, token: u32) -> u32 {
        if let Some(&next) = self.advanced.get(&(context, token)) {
            return next;
        }
        let trunk = |item: &Item| item.label == INSIDE && item.at == Trie::ROOT;
        let label = |item: &Item| if trunk(item) { TRUNK } else { OUTSIDE };
        let mut items: Items = self.items(context).iter().map(|item| Item { label: label(item), ..*item }).collect();
        for &byte in side.bytes(token) {
            let mut next = Items::new();
            for item in items {
                self.states.feed(side, item, byte, &mut next, |label, by| match label {
                    TRUNK if by == token => INSIDE,
                    _ => OUTSIDE,
                });
            }
            items = next;
        }
        items.iter_mut().filter(|item| item.label == TRUNK).for_each(|item| item.label = OUTSIDE);
        if self.before_dummy == Some(context) && side.bytes(token) == b" " {
            // The empty text, which has no dummy prefix: a reading that nothing can follow.
            items.push(Item { state: self.states.ended(), at: Trie::ROOT, label: OUTSIDE });
        }
        let next = self.keep(items);
        self.advanced.insert((context, token), next);
        next
    }

    /// The same readings; what starts with the student prefix is followed by its next token.
    pub fn track(&mut self, context: u32) -> u32 {
        let label = |item: &Item| if item.label == INSIDE { TRACK } else { item.label };
        let items = self.items(context).iter().map(|item| Item { label: label(item), ..*item }).collect();
        self.keep(items)
    }

    /// What the context says about its student prefix.
    pub fn verdict(&self, context: u32) -> Verdict {
        let outside = |item: &Item| item.label == OUTSIDE;
        let items = self.items(context);
        if items.iter().all(outside) {
            Verdict::Out
        } else if items.iter().any(outside) {
            Verdict::Open
        } else {
            Verdict::In
        }
    }

    /// The label of the reading that the text would have if it ended here; none inside a character and for texts that are
    /// not admissible.
    pub fn closing(&self, context: u32) -> Option<u32> {
        let ends = |item: &&Item| item.at == Trie::ROOT && self.states.complete(item.state);
        self.items(context).iter().find(ends).map(|item| item.label)
    }

    /// Whether the estimate counts the context as one that starts with the student prefix: by its closing, or, inside a
    /// character, by whether some reading that ends here does.
    pub fn likely(&self, context: u32) -> bool {
        let inside = |item: &Item| item.at == Trie::ROOT && item.label != OUTSIDE;
        self.closing(context).map_or_else(|| self.items(context).iter().any(inside), |label| label != OUTSIDE)
    }

    /// About how many bytes all this takes.
    pub fn size(&self) -> usize {
        let maps = (self.fed.len() + self.advanced.len()) * 24;
        self.states.size() + maps + self.all.len() * 64 + self.held * 24
    }

    pub(super) fn keep(&mut self, mut items: Items) -> u32 {
        items.sort_unstable();
        items.dedup();
        if let Some(&known) = self.number.get(items.as_slice()) {
            return known;
        }
        let fresh = self.all.len() as u32;
        self.held += items.len();
        self.all.push(items.as_slice().into());
        self.number.insert(items.as_slice().into(), fresh);
        fresh
    }
}
