//! The witness: a prefix is canonical only if something completes it (design.md, fact 1).
//!
//! Nearly every branch may end at once and is its own witness. For the rest the graph of branches is searched until one that
//! may end is found; what was learned is kept.

use std::sync::Mutex;

use rustc_hash::{FxHashMap, FxHashSet};

use super::branch::Branch;
use super::shape::{Shapes, Use};
use super::Canonical;
use crate::tokenizer::Tokenizer;

/// More known branches than this are forgotten, all at once: a bound on memory, not on what can be decided.
const MAX_KNOWN: usize = 1 << 18;

#[derive(Debug)]
pub struct Witnesses {
    known: Mutex<FxHashMap<Branch, bool>>,
    /// Tokens that start a character, shortest first.
    starting: Vec<u32>,
    /// Tokens that continue one, shortest first.
    continuing: Vec<u32>,
}

impl Witnesses {
    pub fn new(tokenizer: &Tokenizer, shapes: &Shapes) -> Self {
        let mut usable: Vec<u32> = (0..tokenizer.vocab_size as u32)
            .filter(|&id| shapes.shape[id as usize].usable != Use::Never || shapes.shape[id as usize].matched)
            .collect();
        usable.sort_by_key(|&id| tokenizer.bytes.get(id).len());
        let (continuing, starting) = usable.iter().partition(|&&id| shapes.shape[id as usize].lead > 0);
        Self { known: Mutex::default(), starting, continuing }
    }

    /// Tokens that begin with the rest of a character.
    pub fn continuing(&self) -> &[u32] {
        &self.continuing
    }

    fn known(&self, branch: &Branch) -> Option<bool> {
        self.lock().get(branch).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<Branch, bool>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn learn(&self, branches: impl IntoIterator<Item = Branch>, live: bool) {
        let mut known = self.lock();
        if known.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(branches.into_iter().map(|branch| (branch, live)));
    }
}

impl Canonical {
    /// Whether some continuation of the branch ends in a complete text.
    pub(super) fn live(&self, branch: &Branch) -> bool {
        if self.branch_complete(branch) {
            return true;
        }
        if let Some(live) = self.witnesses.known(branch) {
            return live;
        }
        let mut seen = FxHashSet::from_iter([branch.clone()]);
        let mut open = vec![branch.clone()];
        while let Some(at) = open.pop() {
            let candidates =
                if at.partial.is_empty() { &self.witnesses.starting } else { &self.witnesses.continuing };
            for &token in candidates {
                for next in self.push_branch(&at, token) {
                    if self.branch_complete(&next) || self.witnesses.known(&next) == Some(true) {
                        self.witnesses.learn([branch.clone(), at], true);
                        return true;
                    }
                    if !seen.contains(&next) && self.witnesses.known(&next) != Some(false) {
                        seen.insert(next.clone());
                        open.push(next);
                    }
                }
            }
        }
        // Nothing that can be reached from here ends a text.
        self.witnesses.learn(seen, false);
        false
    }
}
