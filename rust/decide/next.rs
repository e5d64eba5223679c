//! Which student token comes next, for all tokens after a teacher prefix at once, and exactly for one prefix.
//!
//! The contexts are those of [`Contexts::track`]: what starts with the student prefix has the next token for a label, and the
//! reading of the student prefix itself stands at a node of the student's trie, below which all tokens may still come.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::context::{Contexts, OUTSIDE, TRACK};
use super::joint::Sides;
use super::side::{Item, Items, Side, States};
use super::texts::Texts;
use super::{Decisions, Work};
use crate::bits::Bits;
use crate::trie::Trie;

/// What may come next in the texts of a teacher prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Next tokens that some reading has, rising.
    pub labels: Vec<u32>,
    /// Places of the student's byte order that may come as well: longer tokens than what was read.
    pub longer: (u32, u32),
    /// Some reading does not start with the student prefix.
    pub outside: bool,
    /// The next token if the text ended here.
    pub closing: Option<u32>,
    /// A text is known that both tokenizers read.
    pub sure: bool,
    /// Texts are known of which no two start with the same next token, or that show that it is not there yet, or that do not
    /// start with the student prefix; where only the last are missing, all do. So nothing is decided, and a row may take
    /// the place of what has this outcome. Only of what was asked exactly.
    pub splits: bool,
}

/// Outcomes by number.
#[derive(Debug, Default)]
pub struct Outcomes {
    pub all: Vec<Outcome>,
    number: FxHashMap<Outcome, u32>,
    of: FxHashMap<(u32, bool), u32>,
}

/// Canonical tokens at places `first..last` of the teacher's byte order have one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextRun {
    pub first: u32,
    pub last: u32,
    pub outcome: u32,
}

impl Outcome {
    /// What readings say. `side`, the student's, tells which tokens are longer.
    fn of(items: &[Item], closing: Option<u32>, side: &Side, sure: bool) -> Self {
        let token = |label: u32| (label != OUTSIDE && label != TRACK).then_some(label);
        let mut labels: Vec<u32> = items.iter().filter_map(|item| token(item.label)).collect();
        labels.sort_unstable();
        labels.dedup();
        let trunk = items.iter().find(|item| item.label == TRACK).map(|item| side.trie.node(item.at));
        let ends = || items.iter().filter(|item| item.at == Trie::ROOT).filter_map(|item| token(item.label)).min();
        Self {
            labels,
            longer: trunk.map_or((0, 0), |node| (node.exact, node.last)),
            outside: items.iter().any(|item| item.label == OUTSIDE),
            // Inside a character the text cannot end; then one of the tokens that end here.
            closing: closing.map_or_else(ends, token),
            sure,
            splits: false,
        }
    }

    /// Whether nothing but one token, or that the student prefix is not there, or that there is no text, can come out.
    pub fn settled(&self) -> bool {
        self.longer.0 >= self.longer.1 && self.labels.len() + usize::from(self.outside) <= 1
    }
}

impl Outcomes {
    /// The number of an outcome.
    pub fn keep(&mut self, outcome: Outcome) -> u32 {
        if let Some(&known) = self.number.get(&outcome) {
            return known;
        }
        let fresh = self.all.len() as u32;
        self.all.push(outcome.clone());
        self.number.insert(outcome, fresh);
        fresh
    }
}

impl Contexts {
    /// Only the readings that start with the student prefix: where it is known that all texts do.
    pub fn inside(&mut self, context: u32) -> u32 {
        let items: Items = self.items(context).iter().filter(|item| item.label != OUTSIDE).copied().collect();
        self.keep(items)
    }
}

impl Work {
    /// The outcomes of the canonical tokens after a teacher prefix, below a node of the trie, for the context at the end of its
    /// path; those that end there only with `exact`.
    pub fn next_runs(
        &mut self,
        shared: &Decisions,
        (state, context, at, exact): (u32, u32, u32, bool),
        outcomes: &mut Outcomes,
    ) -> Vec<NextRun> {
        let node = shared.teacher.trie.node(at);
        let masks = &shared.teacher.tables.masks;
        let mask = masks.next(self.states.get(state));
        let open = (!shared.texts.all).then(|| {
            let everything = || Arc::new(Bits::full(masks.len()));
            masks.perhaps_open(self.states.get(state)).unwrap_or_else(everything)
        });
        let (student, teacher, texts) = (&shared.student, &shared.teacher, &shared.texts);
        let (contexts, states) = (&mut self.contexts, &mut self.states);
        let runs = Vec::new();
        let until = node.first;
        let mut walk = Walk { contexts, states, student, teacher, texts, state, mask, open, outcomes, runs, until };
        if exact {
            walk.below(context, at);
        } else {
            walk.children(context, at);
        }
        walk.runs
    }

    /// Whether both tokenizers have a text that goes on from a teacher prefix and from a reading of its bytes.
    fn feasible(&mut self, shared: &Decisions, state: u32, item: Item) -> Option<bool> {
        let mut sides = Sides {
            teacher: (&shared.teacher, &mut self.states),
            student: (&shared.student, &mut self.contexts.states),
            budget: shared.budget,
        };
        self.joint.feasible(&mut sides, Item { state, at: Trie::ROOT, label: 0 }, item)
    }

    /// The outcome of all teacher prefixes with a context, by the student's readings alone.
    pub fn next_by_readings(&self, shared: &Decisions, context: u32) -> Outcome {
        Outcome::of(self.contexts.items(context), self.contexts.closing(context), &shared.student, false)
    }

    /// The outcome of a teacher prefix by what both tokenizers can go on with, exactly; without `sure` where that was not
    /// found out.
    pub fn next_exact(&mut self, shared: &Decisions, state: u32, context: u32) -> Outcome {
        let items = self.contexts.items(context).to_vec();
        let (mut kept, mut known) = (Items::new(), Vec::new());
        for item in items {
            match self.feasible(shared, state, item) {
                Some(false) => continue,
                Some(true) => known.push(item.label),
                None => {}
            }
            kept.push(item);
        }
        // Every canonical prefix has a text that the teacher reads.
        let sure = shared.texts.all || !known.is_empty() || kept.is_empty();
        let closing = self.contexts.closing(context).filter(|&label| kept.iter().any(|item| item.label == label));
        let outcome = Outcome::of(&kept, closing, &shared.student, sure);
        let splits = splits(known, outcome.outside);
        Outcome { splits, ..outcome }
    }
}

/// See `Outcome`. known: labels of readings that some text has; outside: perhaps some text does not start with the student
/// prefix.
fn splits(mut known: Vec<u32>, outside: bool) -> bool {
    known.sort_unstable();
    known.dedup();
    known.contains(&OUTSIDE) || (!outside && (known.contains(&TRACK) || known.len() > 1))
}

/// A walk over the tokens after one teacher prefix.
struct Walk<'a> {
    contexts: &'a mut Contexts,
    states: &'a mut States,
    student: &'a Side,
    teacher: &'a Side,
    texts: &'a Texts,
    state: u32,
    /// The canonical tokens.
    mask: Arc<Bits>,
    /// Those after which the teacher's text perhaps cannot end, where that matters.
    open: Option<Arc<Bits>>,
    outcomes: &'a mut Outcomes,
    runs: Vec<NextRun>,
    /// Between the end of the last run and this place nothing is canonical.
    until: u32,
}

impl Walk<'_> {
    fn below(&mut self, context: u32, at: u32) {
        let node = self.teacher.trie.node(at);
        if !self.mask.any(node.first as usize, node.last as usize) {
            if self.until == node.first {
                self.until = node.last;
            }
            return;
        }
        let outcome = self.outcome(context, true);
        let found = &self.outcomes.all[outcome as usize];
        if found.settled() && found.labels.is_empty() {
            return self.add(node.first, node.last, outcome);
        }
        if found.settled() && self.reads(context) && self.texts.plain_below(at) {
            return self.add_read(context, node.first, node.last);
        }
        self.add_exact(context, node.first, node.exact);
        self.children(context, at);
    }

    fn children(&mut self, context: u32, at: u32) {
        let teacher = self.teacher;
        for (byte, child) in teacher.trie.children(at) {
            let next = self.contexts.feed(self.student, context, byte);
            self.below(next, child);
        }
    }

    /// Tokens that end where the context does.
    fn add_exact(&mut self, context: u32, first: u32, last: u32) {
        if self.reads(context) {
            return self.add_read(context, first, last);
        }
        let outcome = self.outcome(context, false);
        self.add(first, last, outcome);
    }

    /// The student reads the text as it is: where the teacher's text may end, both have one.
    fn add_read(&mut self, context: u32, first: u32, last: u32) {
        let mut from = first;
        let open = self.open.clone();
        for place in open.iter().flat_map(|open| open.ones(first as usize, last as usize)) {
            let place = place as u32;
            let token = self.teacher.token(place);
            let after = self.states.push(self.teacher, self.state, token);
            if after.is_some_and(|after| !self.states.complete(after)) {
                let (sure, unsure) = (self.outcome(context, true), self.outcome(context, false));
                self.add(from, place, sure);
                self.add(place, place + 1, unsure);
                from = place + 1;
            }
        }
        let sure = self.outcome(context, true);
        self.add(from, last, sure);
    }

    /// Whether the student reads the text as it stands.
    fn reads(&self, context: u32) -> bool {
        self.texts.all || self.contexts.closing(context).is_some()
    }

    fn outcome(&mut self, context: u32, sure: bool) -> u32 {
        if let Some(&known) = self.outcomes.of.get(&(context, sure)) {
            return known;
        }
        let closing = self.contexts.closing(context);
        let mut found = Outcome::of(self.contexts.items(context), closing, self.student, sure);
        if found.settled() {
            found.closing = found.labels.first().copied();
            found.sure |= found.labels.is_empty();
        }
        let number = self.outcomes.keep(found);
        self.outcomes.of.insert((context, sure), number);
        number
    }

    fn add(&mut self, first: u32, last: u32, outcome: u32) {
        if first >= last {
            return;
        }
        match self.runs.last_mut() {
            Some(run) if self.until == first && run.outcome == outcome => run.last = last,
            _ => self.runs.push(NextRun { first, last, outcome }),
        }
        self.until = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_what_is_known_not_to_be_in() {
        for (known, outside, expected) in [
            // Nothing is known, or one token alone: it may be the only one.
            (vec![], false, false),
            (vec![7, 7], false, false),
            (vec![7, 8], false, true),
            (vec![TRACK], false, true),
            // Perhaps all texts start with the student prefix, and perhaps not.
            (vec![7, 8], true, false),
            (vec![TRACK], true, false),
            (vec![7, OUTSIDE], true, true),
        ] {
            assert_eq!(splits(known.clone(), outside), expected, "{known:?}, {outside}");
        }
    }
}
