//! Decisions for all tokens after a teacher prefix at once: which of them settle a student prefix, from the student's side.
//!
//! The teacher's trie is walked with the student's context fed byte by byte. Where all readings agree, they agree on everything
//! below, so whole subtrees are settled at once; and subtrees without a canonical token are passed by. What is left to look at
//! are the few tokens with which the student's own contest.

use std::sync::Arc;

use super::context::{Contexts, Verdict};
use super::side::{Side, States};
use super::texts::Texts;
use crate::bits::Bits;

/// Ranges up to this size are tested token by token; for others the whole mask is made.
pub const FEW: u32 = 48;

/// Bytes of a token that are looked at in a whole row: what is contested there is nearly always unlikely, and heavy tokens are
/// decided one by one when their mass is known.
const DEEP: u16 = 2;

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

/// A walk over the tokens after one teacher prefix.
pub struct Walk<'a> {
    pub contexts: &'a mut Contexts,
    pub states: &'a mut States,
    pub student: &'a Side,
    pub teacher: &'a Side,
    pub texts: &'a Texts,
    /// Number of the teacher prefix; none: all tokens count as canonical, and as ends of texts.
    pub state: Option<u32>,
    /// The kind that is not listed.
    pub unlisted: Kind,
}

/// What a walk has found.
struct Found {
    /// The canonical tokens, where they are many.
    mask: Option<Arc<Bits>>,
    /// Those after which the teacher's text perhaps cannot end, where that matters.
    open: Option<Arc<Bits>>,
    runs: Vec<Run>,
    /// Nodes from this depth on are not walked into.
    deepest: u16,
    /// Between the end of the last run and this place nothing is canonical.
    until: u32,
}

impl Walk<'_> {
    /// The kinds of the canonical tokens below a node of the teacher's trie, for a context at the end of its path.
    pub fn runs(&mut self, context: u32, at: u32) -> Arc<[Run]> {
        let node = self.teacher.trie.node(at);
        let masks = &self.teacher.tables.masks;
        let mask = self.state.filter(|_| node.last - node.first > FEW).map(|s| masks.next(self.states.get(s)));
        let open = self.state.filter(|_| !self.texts.all).map(|s| masks.perhaps_open(self.states.get(s)));
        let deepest = if self.unlisted == Kind::In { DEEP } else { u16::MAX };
        let mut found = Found { mask, open, runs: Vec::new(), deepest, until: node.first };
        self.below(context, at, &mut found);
        found.runs.into()
    }

    fn below(&mut self, context: u32, at: u32, found: &mut Found) {
        let node = self.teacher.trie.node(at);
        if !self.any(node.first, node.last, found) {
            if found.until == node.first {
                found.until = node.last;
            }
            return;
        }
        match self.contexts.verdict(context) {
            Verdict::Out => return self.add(node.first, node.last, Kind::Out, found),
            Verdict::In if self.reads(context) && self.texts.plain_below(at) => {
                return self.add_in(node.first, node.last, found);
            }
            _ if node.depth >= found.deepest => {
                let kind = self.guess(context);
                return self.add(node.first, node.last, kind, found);
            }
            _ => {}
        }
        self.add_exact(context, node.first, node.exact, found);
        let teacher = self.teacher;
        for (byte, child) in teacher.trie.children(at) {
            let next = self.contexts.feed(self.student, context, byte);
            self.below(next, child, found);
        }
    }

    /// Whether a token at places `first..last` is canonical.
    fn any(&mut self, first: u32, last: u32, found: &Found) -> bool {
        match &found.mask {
            Some(mask) => mask.any(first as usize, last as usize),
            None => self.state.is_none() || (first..last).any(|place| self.after(place).is_some()),
        }
    }

    /// The number of the prefix with one more token.
    fn after(&mut self, place: u32) -> Option<u32> {
        self.states.push(self.teacher, self.state?, self.teacher.token(place))
    }

    /// Tokens that end where the context does.
    fn add_exact(&mut self, context: u32, first: u32, last: u32, found: &mut Found) {
        match self.contexts.verdict(context) {
            Verdict::Out => self.add(first, last, Kind::Out, found),
            Verdict::In if self.reads(context) => self.add_in(first, last, found),
            _ => self.add(first, last, self.guess(context), found),
        }
    }

    /// Whether the student reads the text as it stands; else that both have a text remains to be shown.
    fn reads(&self, context: u32) -> bool {
        self.texts.all || self.contexts.closing(context).is_some()
    }

    fn guess(&self, context: u32) -> Kind {
        if self.contexts.likely(context) { Kind::Likely } else { Kind::Unlikely }
    }

    /// All readings agree, and the student reads the text as it is: where the teacher's text may end, both have one.
    fn add_in(&mut self, first: u32, last: u32, found: &mut Found) {
        let mut from = first;
        let open = found.open.clone();
        for place in open.iter().flat_map(|open| open.ones(first as usize, last as usize)) {
            let canonical = found.mask.as_ref().is_none_or(|mask| mask.get(place));
            let place = place as u32;
            if canonical && self.after(place).is_some_and(|after| !self.states.complete(after)) {
                self.add(from, place, Kind::In, found);
                self.add(place, place + 1, Kind::Likely, found);
                from = place + 1;
            }
        }
        self.add(from, last, Kind::In, found);
    }

    fn add(&mut self, first: u32, last: u32, kind: Kind, found: &mut Found) {
        if kind == self.unlisted || first >= last {
            return;
        }
        match found.runs.last_mut() {
            Some(run) if found.until == first && run.kind == kind => run.last = last,
            _ => found.runs.push(Run { first, last, kind }),
        }
        found.until = last;
    }
}
