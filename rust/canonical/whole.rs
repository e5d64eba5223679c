//! Whole-pretoken look-up (`ignore_merges`): a pretoken that is in the vocabulary is that one token, whatever merges say.
//!
//! So the sequence that merging would give for such a pretoken must not stand there as a whole pretoken. Only tokens that
//! merging does not reach matter (588 in Llama 3); their sequences form a small trie.

use crate::tokenizer::Tokenizer;
use rustc_hash::FxHashMap;

/// Where the open pretoken stands in the trie of forbidden sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WholeState(u32);

impl WholeState {
    /// Before the first token of a pretoken.
    pub const FRESH: Self = Self(0);
    /// No forbidden sequence starts like this one.
    pub const OFF: Self = Self(u32::MAX);
    /// The pretoken is a token that merging does not reach: it ends here.
    pub const CLOSED: Self = Self(u32::MAX - 1);
}

/// The trie of sequences that must not be whole pretokens; empty without `ignore_merges`.
#[derive(Debug, Default)]
pub struct WholePretokens {
    next: FxHashMap<(u32, u32), u32>,
    /// Nodes at which a pretoken must not end.
    forbidden: Vec<bool>,
}

impl WholePretokens {
    /// What merging makes of every token that it does not reach.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let mut all = Self { next: FxHashMap::default(), forbidden: vec![false] };
        if !tokenizer.ignore_merges {
            return all;
        }
        for (bytes, &id) in &tokenizer.whole {
            let mut symbols = tokenizer.symbols_of(id);
            if symbols.is_empty() {
                continue;
            }
            debug_assert!(!bytes.is_empty());
            tokenizer.bpe.merge(&mut symbols);
            if symbols != [id] {
                all.forbid(&symbols);
            }
        }
        all
    }

    /// The state after one more token of the same pretoken.
    pub fn step(&self, state: WholeState, token: u32) -> WholeState {
        self.next.get(&(state.0, token)).map_or(WholeState::OFF, |&node| WholeState(node))
    }

    /// Whether the pretoken may end here.
    pub fn may_end(&self, state: WholeState) -> bool {
        !self.forbidden.get(state.0 as usize).copied().unwrap_or(false)
    }

    /// Tokens with which the pretoken, open in `state`, stays the start of a forbidden sequence.
    pub fn dangers(&self, state: WholeState) -> impl Iterator<Item = u32> + '_ {
        let from = if state == WholeState::OFF || state == WholeState::CLOSED { None } else { Some(state.0) };
        self.next.iter().filter(move |((node, _), _)| Some(*node) == from).map(|((_, token), _)| *token)
    }

    fn forbid(&mut self, sequence: &[u32]) {
        let mut node = 0;
        for &token in sequence {
            let fresh = self.forbidden.len() as u32;
            node = *self.next.entry((node, token)).or_insert(fresh);
            if node == fresh {
                self.forbidden.push(false);
            }
        }
        self.forbidden[node as usize] = true;
    }
}
