//! The canonical next tokens of a state, all at once.
//!
//! For most tokens only the pretokenizer's state and the pair matter. So there is a base set for each (pretokenizer state,
//! way to join), shared by all states, and a set of broken pairs for each last token; the other parts of the conjunction
//! concern few tokens, which are looked at one by one.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::added::AddedState;
use super::branch::{Branch, Branches, Join, Phase};
use super::shape::{Use, pretoken_run};
use super::whole::WholeState;
use super::{Canonical, State, nfc};
use crate::bits::Bits;
use crate::bpe::NONE;
use crate::pretoken::boundaries::{Boundaries, State as PretokenState, States, Step};
use crate::sync::{Cache, Lazy};
use crate::tokenizer::TokenKind;

/// Memory that the cache of finished masks may take.
const CACHE_BYTES: usize = 64 << 20;
/// Pairs that are tested one by one before making the whole mask is cheaper.
const PAIR_TESTS: usize = 32;
/// About what a cached mask takes beside its bits.
const BRANCH_BYTES: usize = 512;

/// Masks over the tokens of one vocabulary, numbered in an order of the caller's choice.
#[derive(Debug)]
pub struct Masks {
    pub(super) canonical: Arc<Canonical>,
    /// Place in the order → token.
    pub(super) tokens: Vec<u32>,
    /// Token → place in the order, [`NONE`] if it has none.
    place: Vec<u32>,
    /// Tokens sorted by bytes, to find those that start with given bytes.
    by_bytes: Vec<u32>,
    /// Tokens whose fate the pretokenizer and the pair settle, see [`Canonical::is_plain`].
    pub(super) plain: Vec<bool>,
    /// Tokens that may interact with the characters before them under NFC.
    pub(super) touching: Vec<u32>,
    touches: Vec<bool>,
    matched: Lazy<Bits>,
    base: Cache<FxHashMap<(PretokenState, Join), Arc<Bits>>>,
    finished: Cache<FxHashMap<Branch, Arc<Bits>>>,
    pub(super) doubtful: Doubtful,
}

impl Masks {
    /// Masks whose bit `i` stands for `tokens[i]`.
    pub fn new(canonical: Arc<Canonical>, tokens: Vec<u32>) -> Self {
        let tokenizer = &canonical.tokenizer;
        let mut place = vec![NONE; tokenizer.vocab_size];
        for (at, &token) in tokens.iter().enumerate() {
            place[token as usize] = at as u32;
        }
        let mut by_bytes: Vec<u32> = (0..tokenizer.vocab_size as u32).collect();
        by_bytes.sort_by(|&a, &b| tokenizer.bytes.get(a).cmp(tokenizer.bytes.get(b)));
        let plain = (0..tokenizer.vocab_size as u32).map(|id| canonical.is_plain(id)).collect();
        let touches = canonical.touching_left();
        let touching = (0..tokenizer.vocab_size as u32).filter(|&id| touches[id as usize]).collect();
        Self {
            tokens,
            place,
            by_bytes,
            plain,
            touching,
            touches,
            matched: Lazy::default(),
            base: Cache::default(),
            finished: Cache::default(),
            doubtful: Doubtful::default(),
            canonical,
        }
    }

    /// Number of bits in a mask.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens that may follow.
    pub fn next(&self, state: &State) -> Arc<Bits> {
        if let [branch] = state.as_slice() {
            return self.of_branch(branch);
        }
        let mut all = Bits::new(self.len());
        for branch in state {
            all.union(&self.of_branch(branch));
        }
        Arc::new(all)
    }

    /// Whether any of the tokens at places `from..to` may follow: like `next(state).any(from, to)`, without making the mask.
    pub fn any(&self, state: &State, from: usize, to: usize) -> bool {
        state.iter().any(|branch| self.any_of_branch(branch, from, to))
    }

    /// Whether the rarer parts of the conjunction have nothing to say.
    pub(super) fn is_settled(branch: &Branch) -> bool {
        branch.partial.is_empty()
            && branch.phase == Phase::Open
            && branch.added.is_clear()
            && (branch.whole == WholeState::OFF || branch.whole == WholeState::FRESH)
    }

    fn any_of_branch(&self, branch: &Branch, from: usize, to: usize) -> bool {
        self.any_up_to(PAIR_TESTS, branch, from, to).unwrap_or_else(|| self.of_branch(branch).any(from, to))
    }

    /// `None` after so many tests of pairs without an answer.
    fn any_up_to(&self, tests: usize, branch: &Branch, from: usize, to: usize) -> Option<bool> {
        if !Self::is_settled(branch) || branch.last == NONE {
            return Some(self.of_branch(branch).any(from, to));
        }
        let fine = |place: usize| branch.tail.is_empty() || !self.touches[self.tokens[place] as usize];
        let unsure = !branch.tail.is_empty() && (from..to).any(|place| !fine(place));
        if unsure {
            return Some(self.of_branch(branch).any(from, to));
        }
        let begins = (self.canonical.piece_may_end(branch) && self.matched().any(from, to))
            || self.base(branch.pretok, Join::Boundary).any(from, to);
        if begins { Some(true) } else { self.any_inside(tests, branch, from, to) }
    }

    /// Whether a token that goes on with the open pretoken is there, as far as pairs and the pretokenizer tell.
    pub(super) fn any_inside(&self, tests: usize, branch: &Branch, from: usize, to: usize) -> Option<bool> {
        let inside = self.base(branch.pretok, Join::Inside);
        let mut candidates = inside.ones(from, to);
        let valid = |place| self.canonical.tokenizer.bpe.pair_valid(branch.last, self.tokens[place]);
        if candidates.by_ref().take(tests).any(valid) {
            return Some(true);
        }
        candidates.next().is_none().then_some(false)
    }

    pub(super) fn of_branch(&self, branch: &Branch) -> Arc<Bits> {
        if let Some(bits) = self.finished.with(|finished| finished.get(branch).cloned()).flatten() {
            return bits;
        }
        let bits = Arc::new(self.compute(branch));
        self.finished.with(|finished| {
            if (finished.len() + 1) * (self.len() / 8 + BRANCH_BYTES) > CACHE_BYTES {
                finished.clear();
            }
            finished.insert(branch.clone(), Arc::clone(&bits));
        });
        bits
    }

    fn compute(&self, branch: &Branch) -> Bits {
        let mut bits = Bits::new(self.len());
        if !branch.partial.is_empty() {
            self.look_at(branch, self.canonical.witnesses.continuing().iter().copied(), &mut bits);
            return bits;
        }
        if branch.phase != Phase::Open {
            self.look_at(branch, self.tokens.iter().copied(), &mut bits);
            return bits;
        }
        self.unite_bases(branch, &mut bits);
        self.look_at_exceptions(branch, &mut bits);
        bits
    }

    /// What the pretokenizer and the pairs allow.
    fn unite_bases(&self, branch: &Branch, bits: &mut Bits) {
        let canonical = &self.canonical;
        if branch.last == NONE {
            bits.union(&self.base(branch.pretok, Join::Fresh));
        } else {
            if branch.whole != WholeState::CLOSED {
                bits.union(&self.base(branch.pretok, Join::Inside));
                canonical.pairs.for_each_invalid(&canonical.tokenizer.bpe, branch.last, |token| {
                    if let Some(place) = self.place_of(token) {
                        bits.clear(place);
                    }
                });
            }
            if canonical.whole.may_end(branch.whole) {
                bits.union(&self.base(branch.pretok, Join::Boundary));
            }
        }
        if canonical.piece_may_end(branch) {
            // Clear of everything else a matched token is fine wherever the piece may end.
            bits.union(self.matched());
        }
    }

    /// Tokens that the rarer parts of the conjunction may forbid, or allow, in this branch.
    fn look_at_exceptions(&self, branch: &Branch, bits: &mut Bits) {
        let canonical = &self.canonical;
        if let Some(added) = &canonical.added
            && !branch.added.is_clear()
        {
            if !added.complete(&branch.added) {
                // A match that nothing claims stands at the end: only what makes it another match may follow.
                self.look_at(branch, self.tokens.iter().copied(), bits);
            }
            for danger in added.dangers(&branch.added) {
                self.look_at(branch, self.starting_with(&danger), bits);
                // A token that goes part of the way may be left with no other way to go.
                for end in 1..danger.len() {
                    self.look_at(branch, self.spelled(&danger[..end]), bits);
                }
            }
        }
        if !branch.tail.is_empty() {
            self.look_at(branch, self.touching.iter().copied(), bits);
        }
        self.look_at(branch, canonical.whole.dangers(branch.whole), bits);
    }

    fn look_at(&self, branch: &Branch, tokens: impl Iterator<Item = u32>, bits: &mut Bits) {
        for token in tokens {
            let Some(place) = self.place_of(token) else { continue };
            let after: Branches = self.canonical.push_branch(branch, token);
            bits.set(place, after.iter().any(|after| self.canonical.live(after)));
        }
    }

    pub(super) fn starting_with(&self, start: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let tokenizer = &self.canonical.tokenizer;
        let from = self.by_bytes.partition_point(|&t| tokenizer.bytes.get(t) < start);
        let count = self.by_bytes[from..].partition_point(|&t| tokenizer.bytes.get(t).starts_with(start));
        self.by_bytes[from..from + count].iter().copied()
    }

    pub(super) fn spelled<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        self.starting_with(bytes).take_while(move |&t| self.canonical.tokenizer.bytes.get(t) == bytes)
    }

    pub(super) fn place_of(&self, token: u32) -> Option<usize> {
        let place = self.place[token as usize];
        (place != NONE).then_some(place as usize)
    }

    /// The base set of a pretokenizer state.
    pub(super) fn base(&self, pretok: PretokenState, join: Join) -> Arc<Bits> {
        if let Some(bits) = self.base.with(|base| base.get(&(pretok, join)).cloned()).flatten() {
            return bits;
        }
        let bits = Arc::new(self.pretoken_base(pretok, join));
        self.base.with(|base| base.insert((pretok, join), Arc::clone(&bits)));
        bits
    }

    /// The added tokens that are matched where nothing is pending.
    pub(super) fn matched(&self) -> &Bits {
        self.matched.get_or_make(|| {
            let shapes = &self.canonical.shapes.shape;
            let start = Canonical::neutral(Boundaries::START);
            let mut bits = Bits::new(self.len());
            self.look_at(&start, (0..shapes.len() as u32).filter(|&t| shapes[t as usize].matched), &mut bits);
            bits
        })
    }

    fn pretoken_base(&self, pretok: PretokenState, join: Join) -> Bits {
        let canonical = &self.canonical;
        let outcomes = self.outcomes(pretok, join);
        let mut bits = Bits::new(self.len());
        let neutral = Canonical::neutral(pretok);
        for (place, &token) in self.tokens.iter().enumerate() {
            let shape = canonical.shapes.shape[token as usize];
            let wrong_use = shape.usable == Use::Never || (shape.usable == Use::Whole && join == Join::Inside);
            if wrong_use || shape.lead > 0 {
                continue;
            }
            let allowed = match (outcomes[shape.classes as usize], self.plain[token as usize]) {
                (Outcome::Dead, _) => false,
                (Outcome::Complete | Outcome::Mixed, true) => true,
                _ => {
                    let mut after = Branches::new();
                    canonical.read_token(&neutral, token, join, &mut after);
                    if join == Join::Inside {
                        // Inside a pretoken no forbidden sequence is followed unless the branch says so.
                        after.iter_mut().for_each(|b| b.whole = WholeState::OFF);
                    }
                    after.iter().any(|after| canonical.live(after))
                }
            };
            bits.set(place, allowed);
        }
        bits
    }

    /// What each class string does to a pretokenizer state.
    pub(super) fn outcomes(&self, pretok: PretokenState, join: Join) -> Vec<Outcome> {
        let canonical = &self.canonical;
        let step = if join == Join::Boundary { Step::Cut } else { Step::Join };
        let mut states = States::new();
        (0..canonical.shapes.distinct() as u32)
            .map(|index| {
                pretoken_run(&canonical.boundaries, pretok, step, canonical.shapes.classes(index), &mut states);
                let complete = states.iter().filter(|&&s| canonical.boundaries.complete(s)).count();
                if complete > 0 && complete == states.len() {
                    Outcome::Complete
                } else if complete > 0 {
                    Outcome::Mixed
                } else if states.is_empty() {
                    Outcome::Dead
                } else {
                    Outcome::Open
                }
            })
            .collect()
    }
}

/// What `quick` has found out: tokens after which the text perhaps cannot end.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    pub by_state: Cache<FxHashMap<PretokenState, Arc<Bits>>>,
    /// For branches in which more matters.
    pub rarer: Cache<FxHashMap<(PretokenState, AddedState, WholeState), Arc<Bits>>>,
    pub touching: Lazy<Bits>,
}

/// What the pretokenizer says about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Dead,
    /// Possible, but the text cannot end there.
    Open,
    /// Possible, and the text may end there in some of the ways.
    Mixed,
    /// Possible, and the text may end there.
    Complete,
}

impl Canonical {
    /// Whether a token's fate is settled by the pretokenizer's states, clear of its own context: whole characters, nothing
    /// pending for added tokens, stable under NFC, and free to end a pretoken.
    fn is_plain(&self, token: u32) -> bool {
        let shape = self.shapes.shape[token as usize];
        if shape.usable == Use::Never || shape.lead > 0 || shape.tail > 0 {
            return false;
        }
        let fallback = self.tokenizer.kind[token as usize] == TokenKind::Fallback;
        let whole_fine = shape.usable == Use::Whole || self.whole.may_end(self.whole.step(WholeState::FRESH, token));
        let added_fine = self.added.as_ref().is_none_or(|added| {
            let mut state = super::added::AddedState::default();
            added.read(&mut state, self.tokenizer.bytes.get(token)) && added.complete(&state)
        });
        let mut tail = nfc::Tail::new();
        let text_fine = self.shapes.run(&self.tokenizer, token, |c| {
            (!self.tokenizer.normalizer.nfc || nfc::feed(&mut tail, c))
                && !(self.tokenizer.normalizer.strip_right && c.is_whitespace())
        });
        !fallback && whole_fine && added_fine && text_fine
    }

    /// Whether NFC may make a difference between a token and what is before it, for every token.
    fn touching_left(&self) -> Vec<bool> {
        let ids = 0..self.tokenizer.vocab_size as u32;
        if !self.tokenizer.normalizer.nfc {
            return vec![false; ids.len()];
        }
        let doubtful = nfc::doubtful_beginnings();
        ids.map(|id| {
            let mut first = None;
            self.shapes.run(&self.tokenizer, id, |c| {
                first = Some(c);
                false
            });
            first.map_or_else(|| doubtful.contains(self.tokenizer.bytes.get(id)), |c| !nfc::starts_afresh(c))
        })
        .collect()
    }
}
