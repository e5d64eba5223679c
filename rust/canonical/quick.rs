//! What can be said of the next tokens in a moment, without making a mask: answers that lean to one side.

use std::sync::Arc;

use super::State;
use super::branch::{Branch, Join, Phase};
use super::masks::{Masks, Outcome};
use super::whole::WholeState;
use crate::bits::Bits;
use crate::bpe::NONE;
use crate::pretoken::boundaries::State as PretokenState;

/// Pairs that are tested one by one before any of them is taken to be possible.
const TESTS: usize = 20_000;

/// Tokens likewise, where more than a pair has to be tested.
const FEW: usize = 32;
/// Sets kept of the rarer kind.
const RARER: usize = 1 << 10;

impl Masks {
    /// Whether any of the tokens at places `from..to` may follow; `true` also where that would take long to find out.
    pub fn perhaps_any(&self, state: &State, from: usize, to: usize) -> bool {
        state.iter().any(|branch| self.perhaps_after(branch, from, to))
    }

    fn perhaps_after(&self, branch: &Branch, from: usize, to: usize) -> bool {
        let open = branch.partial.is_empty() && branch.phase == Phase::Open && branch.added.is_clear();
        if !open {
            let canonical = &self.canonical;
            let mut after = (from..to.min(from + FEW)).map(|place| canonical.push_branch(branch, self.tokens[place]));
            return to - from > FEW || after.any(|after| after.iter().any(|branch| canonical.live(branch)));
        }
        if branch.last == NONE {
            return (!branch.tail.is_empty() && self.touching_places().any(from, to))
                || self.matched().any(from, to)
                || self.base(branch.pretok, Join::Fresh).any(from, to);
        }
        (!branch.tail.is_empty() && self.touching_places().any(from, to))
            || self.matched().any(from, to)
            || self.base(branch.pretok, Join::Boundary).any(from, to)
            || (branch.whole != WholeState::CLOSED && self.perhaps_inside(branch, from, to))
    }

    fn perhaps_inside(&self, branch: &Branch, from: usize, to: usize) -> bool {
        // With an improper token on the left each test would run BPE. Such tokens are few, and so are their masks.
        if self.canonical.tokenizer.bpe.proper[branch.last as usize] {
            self.any_inside(TESTS, branch, from, to).unwrap_or(true)
        } else {
            self.of_branch(branch).any(from, to)
        }
    }

    /// Tokens that may interact with the characters before them under NFC.
    fn touching_places(&self) -> &Bits {
        self.doubtful.touching.get_or_make(|| {
            let mut bits = Bits::new(self.len());
            self.touching.iter().filter_map(|&token| self.place_of(token)).for_each(|place| bits.set(place, true));
            bits
        })
    }

    /// The tokens of whole characters that may follow, but after which the text perhaps cannot end; others are among them.
    /// `None`: all tokens.
    pub fn perhaps_open(&self, state: &State) -> Option<Arc<Bits>> {
        let mut all: Option<Arc<Bits>> = None;
        for branch in state {
            let more = self.open_after(branch)?;
            all = Some(all.map_or(Arc::clone(&more), |all| {
                let mut both = Bits::clone(&all);
                both.union(&more);
                Arc::new(both)
            }));
        }
        all
    }

    fn open_after(&self, branch: &Branch) -> Option<Arc<Bits>> {
        let canonical = &self.canonical;
        let added = canonical.added.as_ref().filter(|_| !branch.added.is_clear());
        let ends = added.is_none_or(|added| added.complete(&branch.added));
        if !branch.partial.is_empty() || branch.phase != Phase::Open || !ends {
            return None;
        }
        let plain = self.open(branch.pretok);
        if Self::is_settled(branch) {
            return Some(plain);
        }
        let key = (branch.pretok, branch.added.clone(), branch.whole);
        if let Some(bits) = self.doubtful.rarer.with(|rarer| rarer.get(&key).cloned()).flatten() {
            return Some(bits);
        }
        let mut bits = Bits::clone(&plain);
        let dangers = added.map(|added| added.dangers(&branch.added)).unwrap_or_default();
        for danger in dangers {
            let on_the_way = (1..danger.len()).flat_map(|end| self.spelled(&danger[..end]));
            self.starting_with(&danger)
                .chain(on_the_way)
                .filter_map(|t| self.place_of(t))
                .for_each(|p| bits.set(p, true));
        }
        canonical.whole.dangers(branch.whole).filter_map(|t| self.place_of(t)).for_each(|p| bits.set(p, true));
        let bits = Arc::new(bits);
        self.doubtful.rarer.with(|rarer| {
            if rarer.len() >= RARER {
                rarer.clear();
            }
            rarer.insert(key, Arc::clone(&bits));
        });
        Some(bits)
    }

    /// `perhaps_open` for a branch in which only the pretokenizer's state matters.
    fn open(&self, pretok: PretokenState) -> Arc<Bits> {
        if let Some(bits) = self.doubtful.by_state.with(|open| open.get(&pretok).cloned()).flatten() {
            return bits;
        }
        let mut bits = Bits::new(self.len());
        let outcomes: Vec<_> = [Join::Inside, Join::Boundary].map(|join| self.outcomes(pretok, join)).into();
        for (place, &token) in self.tokens.iter().enumerate() {
            let shape = self.canonical.shapes.shape[token as usize];
            let may_be = |by_class: &Vec<Outcome>| by_class[shape.classes as usize] == Outcome::Open;
            let whole = shape.tail == 0 && shape.lead == 0;
            bits.set(place, whole && (!self.plain[token as usize] || outcomes.iter().any(may_be)));
        }
        let bits = Arc::new(bits);
        self.doubtful.by_state.with(|open| open.insert(pretok, Arc::clone(&bits)));
        bits
    }
}
