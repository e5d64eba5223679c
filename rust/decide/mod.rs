//! Decisions in the general regime: what a teacher prefix says about a student prefix (docs/mathematics.md, section 10).
//!
//! [`side`] numbers the canonical prefixes of each tokenizer, [`context`] follows all student readings of a text, [`kinds`]
//! decides for a whole vocabulary at once from the student's side alone, and [`joint`] exactly, from both sides. [`texts`] knows
//! which texts the student cannot read.

pub mod context;
pub mod joint;
pub mod kinds;
pub mod next;
pub mod side;
mod texts;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::shared::SharedTokenizer;
use crate::sync::Cache;
use context::{Contexts, OUTSIDE, Verdict};
use joint::{BUDGET, Joint, Sides};
use kinds::{Kind, Run, Walk};
use side::{Item, Side, States};
use texts::Texts;

/// About the memory of all sets of caches that are kept for later calls; one that does not fit is forgotten.
const KEPT_BYTES: usize = 512 << 20;

/// A teacher and a student, and everything found out about them. All methods may be called from several threads.
#[derive(Debug)]
pub struct Decisions {
    pub teacher: Side,
    pub student: Side,
    texts: Texts,
    /// Steps that one search may take.
    budget: usize,
    free: Cache<Vec<Work>>,
}

/// Caches, lent to one call at a time, so that no lock is held while deciding. Numbers mean nothing to another one.
#[derive(Debug, Default)]
pub struct Work {
    /// Of the teacher.
    pub states: States,
    /// Of the student.
    pub contexts: Contexts,
    kinds: FxHashMap<(u32, u32, bool), Arc<[Run]>>,
    runs: usize,
    joint: Joint,
}

impl Decisions {
    /// Fails where one of the two cannot be decided about.
    pub fn new(teacher: &SharedTokenizer, student: &SharedTokenizer) -> Result<Self> {
        let (teacher, student) = (Side::new(teacher)?, Side::new(student)?);
        let texts = Texts::new(&teacher, &student.tables.canonical.tokenizer);
        Ok(Self { teacher, student, texts, budget: BUDGET, free: Cache::default() })
    }

    /// The same, with searches that give up after other numbers of steps.
    #[cfg(test)]
    #[must_use]
    pub fn with_budget(self, budget: usize) -> Self {
        Self { budget, ..self }
    }

    /// Whether the student reads every text that the teacher does.
    pub fn reads_all(&self) -> bool {
        self.texts.all
    }

    /// Runs `call` with caches that nobody else has.
    pub fn with<R>(&self, call: impl FnOnce(&mut Work) -> R) -> R {
        let mut work = self.free.with(Vec::pop).flatten().unwrap_or_default();
        let result = call(&mut work);
        self.free.with(|free| {
            if free.iter().map(Work::size).sum::<usize>() + work.size() < KEPT_BYTES {
                free.push(work);
            }
        });
        result
    }
}

impl Work {
    /// The kinds of the canonical tokens after a teacher prefix, below a node of the trie, for the context at the end of its
    /// path: in a `whole` row those that are not in, else those that are not out.
    pub fn kinds(&mut self, shared: &Decisions, state: u32, context: u32, at: u32, whole: bool) -> Arc<[Run]> {
        let key = (context, at, whole);
        let runs = if let Some(known) = self.kinds.get(&key) {
            Arc::clone(known)
        } else {
            let unlisted = if whole { Kind::In } else { Kind::Out };
            let (student, teacher, texts) = (&shared.student, &shared.teacher, &shared.texts);
            let contexts = &mut self.contexts;
            let runs = Walk { contexts, student, teacher, texts, unlisted, runs: Vec::new() }.runs(context, at);
            self.runs += runs.len();
            self.kinds.insert(key, Arc::clone(&runs));
            runs
        };
        if shared.texts.all { runs } else { self.without_open(shared, runs, state, at, whole) }
    }

    /// The same, where a token that is in may leave the teacher without an end of the text: whether both have a text remains
    /// to be shown.
    fn without_open(&mut self, shared: &Decisions, runs: Arc<[Run]>, state: u32, at: u32, whole: bool) -> Arc<[Run]> {
        let node = shared.teacher.trie.node(at);
        let Some(open) = shared.teacher.tables.masks.perhaps_open(self.states.get(state)) else {
            return kinds::none_in(&runs, (node.first, node.last), whole).into();
        };
        let mut doubtful = open.ones(node.first as usize, node.last as usize).map(|place| place as u32).peekable();
        if doubtful.peek().is_none() {
            return runs;
        }
        kinds::without(&runs, doubtful, whole).into()
    }

    /// What a teacher prefix says about the student prefix of a context at its end, exactly. What is `Open` is not in for
    /// certain (it may be out, where a search was given up); what may be in is `GivenUp`.
    pub fn decide(&mut self, shared: &Decisions, state: u32, context: u32) -> Verdict {
        let verdict = self.contexts.verdict(context);
        if verdict == Verdict::Out || (verdict == Verdict::In && shared.texts.all) {
            return verdict;
        }
        match self.some_text(shared, state, context, false) {
            Some(false) => Verdict::Out,
            found => match self.some_text(shared, state, context, true) {
                Some(false) if found.is_some() || shared.texts.all => Verdict::In,
                Some(true) => Verdict::Open,
                _ => Verdict::GivenUp,
            },
        }
    }

    /// The same from the student's side alone, without a search: `Open` more often.
    pub fn decide_quickly(&self, shared: &Decisions, state: u32, context: u32) -> Verdict {
        let both_end = || self.contexts.closing(context).is_some() && self.states.complete(state);
        match self.contexts.verdict(context) {
            Verdict::In if !shared.texts.all && !both_end() => Verdict::Open,
            verdict => verdict,
        }
    }

    /// Whether the teacher prefix has a text whose student reading is one of those `outside` the student prefix, or not.
    fn some_text(&mut self, shared: &Decisions, state: u32, context: u32, outside: bool) -> Option<bool> {
        let here = Item { state, at: crate::trie::Trie::ROOT, label: 0 };
        let items: Vec<Item> =
            self.contexts.items(context).iter().filter(|item| (item.label == OUTSIDE) == outside).copied().collect();
        let mut sides = Sides {
            teacher: (&shared.teacher, &mut self.states),
            student: (&shared.student, &mut self.contexts.states),
            budget: shared.budget,
        };
        let mut all = Some(false);
        for item in items {
            match self.joint.feasible(&mut sides, here, item) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => all = None,
            }
        }
        all
    }

    fn size(&self) -> usize {
        self.states.size() + self.contexts.size() + self.joint.size() + self.kinds.len() * 48 + self.runs * 12
    }
}
