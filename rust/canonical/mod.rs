//! Which token sequences can stand at the start of the encoding of some text (docs/mathematics.md, section 4).
//!
//! Canonicality is a conjunction, and each part keeps a small state of its own in a [`Branch`]: pairs inside a pretoken
//! (`bpe::pairs`), pretoken boundaries (`pretoken::boundaries`), whole-pretoken look-up ([`whole`]), added tokens
//! ([`added`]), UTF-8 and byte fallback ([`partial`]), the normalizer ([`nfc`]) and the dummy prefix. Guesses about text to
//! come make several branches; a [`State`] holds those that some continuation completes ([`witness`]). [`masks`] gives the
//! canonical next tokens of a state, all at once.

pub mod added;
pub mod branch;
pub mod masks;
pub mod nfc;
pub mod partial;
mod quick;
pub mod shape;
pub mod whole;
mod witness;

use std::sync::Arc;

pub use branch::{Branch, Branches};

use crate::bpe::pairs::PairIndex;
use crate::error::{Error, Result};
use crate::pretoken::boundaries::Boundaries;
use crate::tokenizer::Tokenizer;
use added::AddedAutomaton;
use partial::Completions;
use shape::Shapes;
use whole::WholePretokens;
use witness::Witnesses;

/// Everything that decides canonicality for one tokenizer. Built once, then shared.
#[derive(Debug)]
pub struct Canonical {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) boundaries: Boundaries,
    pub(crate) pairs: PairIndex,
    pub(crate) shapes: Shapes,
    whole: WholePretokens,
    completions: Completions,
    added: Option<AddedAutomaton>,
    witnesses: Witnesses,
}

/// What a canonical prefix leaves open: its branches that some continuation completes. Never empty.
pub type State = Branches;

impl Canonical {
    /// Fails (unsupported) where a pattern leaves too much undecided, or an added token is too long.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let boundaries =
            tokenizer.pretokenizer.boundaries().map_err(|reason| Error::unsupported("pre_tokenizer", reason))?;
        let pairs = PairIndex::new(&tokenizer.bpe);
        let shapes = Shapes::new(&tokenizer);
        let whole = WholePretokens::new(&tokenizer);
        let completions = Completions::new(|c| shape::class_of(&tokenizer, c));
        let added = AddedAutomaton::new(&tokenizer)?;
        let witnesses = Witnesses::new(&tokenizer, &shapes);
        Ok(Self { tokenizer, boundaries, pairs, shapes, whole, completions, added, witnesses })
    }

    /// The state before any token: the empty text completes it.
    pub fn start(&self, start: bool) -> State {
        State::from_iter([self.first_branch(start)])
    }

    /// The state after one more token, or `None` if the longer sequence is not a canonical prefix.
    pub fn push(&self, state: &State, token: u32) -> Option<State> {
        let mut next = State::new();
        for branch in state {
            for after in self.push_branch(branch, token) {
                if !next.contains(&after) && self.live(&after) {
                    next.push(after);
                }
            }
        }
        (!next.is_empty()).then_some(next)
    }

    /// Whether the sequence is canonical as a complete one.
    pub fn complete(&self, state: &State) -> bool {
        state.iter().any(|branch| self.branch_complete(branch))
    }

    /// The state after a sequence. The error (not canonical) tells the length of the shortest prefix that is not.
    pub fn state_after(&self, ids: &[u32], start: bool) -> Result<State> {
        let mut state = self.start(start);
        for (at, &id) in ids.iter().enumerate() {
            state = self.push(&state, id).ok_or_else(|| {
                Error::NotCanonical(format!("no text has an encoding that starts with the first {} tokens", at + 1))
            })?;
        }
        Ok(state)
    }
}
