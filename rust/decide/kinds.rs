//! Decisions for all tokens after a teacher prefix at once: which of them settle a student prefix, from the student's side.
//!
//! The teacher's trie is walked with the student's context fed byte by byte, whether or not a token is canonical (those that
//! are not have no mass). Where all readings agree, they agree on everything below, so whole subtrees are settled at once. A
//! subtree in which they contest is looked into while it is small, or one byte deep: of its tokens only those that carry mass
//! matter, and these are decided one by one, exactly, when their mass is known.

use std::sync::Arc;

use super::context::{Contexts, OUTSIDE, Verdict};
use super::side::Side;
use super::texts::Texts;
use crate::trie::Trie;

/// Subtrees of up to so many tokens are looked into.
const FEW: u32 = 8;

/// What a teacher token does to a student prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The text starts with it.
    In = 0,
    /// Undecided; if the text ended here, it would start with it.
    Likely = 1,
    /// Undecided; if the text ended here, it would not.
    Unlikely = 2,
    /// The text does not start with it.
    Out = 3,
}

/// Canonical tokens at places `first..last` of the teacher's byte order have one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first: u32,
    pub last: u32,
    pub kind: Kind,
}

/// A walk over the tokens after teacher prefixes whose bytes lead to one context.
pub struct Walk<'a> {
    pub contexts: &'a mut Contexts,
    pub student: &'a Side,
    pub teacher: &'a Side,
    pub texts: &'a Texts,
    /// The kind that is not listed.
    pub unlisted: Kind,
    pub runs: Vec<Run>,
}

impl Walk<'_> {
    /// The kinds of the tokens below a node of the teacher's trie, for a context at the end of its path.
    pub fn runs(mut self, context: u32, at: u32) -> Arc<[Run]> {
        let node = self.teacher.trie.node(at);
        match self.settled(context, at) {
            Some(kind) => self.add(node.first, node.last, kind),
            None => self.descend(context, at),
        }
        self.runs.into()
    }

    /// Tokens below `at`, all decided or none of them.
    fn settled(&self, context: u32, at: u32) -> Option<Kind> {
        match self.contexts.verdict(context) {
            Verdict::Out => Some(Kind::Out),
            Verdict::In if self.reads(context) && self.texts.plain_below(at) => Some(Kind::In),
            _ => None,
        }
    }

    fn descend(&mut self, context: u32, at: u32) {
        let node = self.teacher.trie.node(at);
        let exact = match self.contexts.verdict(context) {
            Verdict::Out => Kind::Out,
            Verdict::In if self.reads(context) => Kind::In,
            _ => self.guess(context),
        };
        self.add(node.first, node.exact, exact);
        let teacher = self.teacher;
        for (byte, child) in teacher.trie.children(at) {
            let below = teacher.trie.node(child);
            if self.all_in(context, at, byte, child) {
                self.add(below.first, below.last, Kind::In);
                continue;
            }
            let next = self.contexts.feed(self.student, context, byte);
            match self.settled(next, child) {
                Some(kind) => self.add(below.first, below.last, kind),
                None if below.last - below.first <= FEW => self.descend(next, child),
                None => self.add(below.first, below.last, self.guess(next)),
            }
        }
    }

    /// Whether one more byte leaves no reading that does not start with the student prefix, and the student reads all below:
    /// what is seen without feeding it.
    fn all_in(&self, context: u32, at: u32, byte: u8, child: u32) -> bool {
        let goes_on = |at: u32| at == Trie::ROOT || self.student.trie.child(at, byte).is_some();
        let outside = self.contexts.items(context).iter().filter(|item| item.label == OUTSIDE);
        self.contexts.verdict(context) != Verdict::Out
            && (self.texts.all || (self.reads(context) && self.texts.plain_behind(at, child)))
            && !outside.into_iter().any(|item| goes_on(item.at))
    }

    /// Whether the student reads the text as it stands; else that both have a text remains to be shown.
    fn reads(&self, context: u32) -> bool {
        self.texts.all || self.contexts.closing(context).is_some()
    }

    fn guess(&self, context: u32) -> Kind {
        if self.contexts.likely(context) { Kind::Likely } else { Kind::Unlikely }
    }

    fn add(&mut self, first: u32, last: u32, kind: Kind) {
        if kind != self.unlisted {
            push(&mut self.runs, Run { first, last, kind });
        }
    }
}

/// Runs in which tokens that were in, rising, are likely instead.
pub fn without(runs: &[Run], doubtful: impl Iterator<Item = u32>, whole: bool) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::with_capacity(runs.len() + 16);
    let mut rest = runs.iter().copied();
    let mut current = rest.next();
    for place in doubtful {
        while let Some(run) = current.filter(|run| run.last <= place) {
            push(&mut out, run);
            current = rest.next();
        }
        match &mut current {
            Some(run) if run.first <= place && run.kind == Kind::In => {
                push(&mut out, Run { last: place, ..*run });
                push(&mut out, Run { first: place, last: place + 1, kind: Kind::Likely });
                run.first = place + 1;
            }
            Some(run) if run.first <= place => {}
            // In a whole row what is not listed is in, else it is out.
            _ if whole => push(&mut out, Run { first: place, last: place + 1, kind: Kind::Likely }),
            _ => {}
        }
    }
    current.into_iter().chain(rest).for_each(|run| push(&mut out, run));
    out
}

/// Runs of a subtree's tokens, `first..last`, of which those that were in are all likely instead.
pub fn none_in(runs: &[Run], (first, last): (u32, u32), whole: bool) -> Vec<Run> {
    let mut out = Vec::with_capacity(runs.len() + 16);
    let mut until = first;
    for &run in runs {
        if whole {
            push(&mut out, Run { first: until, last: run.first, kind: Kind::Likely });
        }
        push(&mut out, Run { kind: if run.kind == Kind::In { Kind::Likely } else { run.kind }, ..run });
        until = run.last;
    }
    if whole {
        push(&mut out, Run { first: until, last, kind: Kind::Likely });
    }
    out
}

fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        _ if run.first >= run.last => {}
        Some(last) if last.last == run.first && last.kind == run.kind => last.last = run.last,
        _ => runs.push(run),
    }
}
