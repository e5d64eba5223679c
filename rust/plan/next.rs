//! The next student token after a plan's text, in the general regime: what each row's tokens say about it.

use super::Plan;
use super::frontier::Grower;
use super::line::Line;
use crate::decide::context::{INSIDE, OUTSIDE, TRACK, Verdict};
use crate::decide::next::{NextRun, Outcome, Outcomes};
use crate::decide::{Decisions, Work};
use crate::error::{Error, Result};
use crate::trie::Trie;

/// The text ended at the node does not start with the student tokens, or is none.
const NO_END: i64 = -1;
/// It is the student tokens.
const AT_END: i64 = -2;

/// What rows say; all outcomes by number.
#[derive(Debug, Default)]
pub struct Following {
    /// Tokens `first..last` of the order after `node`, as far as they are canonical, have an outcome.
    pub run_node: Vec<i64>,
    pub run_first: Vec<i64>,
    pub run_last: Vec<i64>,
    pub run_outcome: Vec<i64>,
    /// Of each node asked for: all its texts start with the student tokens.
    pub inside: Vec<bool>,
    /// Of each node asked for: perhaps they do, the search was given up.
    pub given_up: Vec<bool>,
    /// Of each node asked for, the next student token of the text ended there; −1 none, −2 end-of-text.
    pub end: Vec<i64>,
    /// Of each outcome: its next tokens (offsets into `label`), and places of the student's byte order from which others come.
    pub label_ptr: Vec<i64>,
    pub label: Vec<i64>,
    pub longer_first: Vec<i64>,
    pub longer_last: Vec<i64>,
    /// Of each outcome: some texts do not start with the student tokens; some text is known; the next token of the text
    /// ended there, −1 none; of those asked for exactly, whether a row may take their place.
    pub outside: Vec<bool>,
    pub sure: Vec<bool>,
    pub closing: Vec<i64>,
    pub splits: Vec<bool>,
}

/// Where what comes next begins: bytes of the text, dummy prefix included, and the context behind them.
struct Begin {
    bytes: Vec<u8>,
    context: u32,
    /// There are no student tokens: all texts start with them, and tokens that end behind the dummy prefix are not nodes.
    empty: bool,
}

impl Plan {
    /// What the rows of `nodes` (of one text) say about the student token after it. Fails (plan) in other regimes and
    /// (invalid) for nodes that are not the text's.
    pub fn following(&self, text: usize, nodes: &[i64]) -> Result<Following> {
        let shared = &self.general()?.shared;
        self.with_text(text, |grower, begin| {
            let mut outcomes = Outcomes::default();
            let mut following = Following::default();
            for &node in nodes {
                let bytes = self.bytes_of(text, node)?;
                let work = &mut *grower.work;
                let state = work.states.number(&shared.teacher, self.states[node as usize].clone());
                following.end.push(ended(work, grower.line, &grower.contexts, (begin, &bytes), shared));
                let (runs, verdict) = look(work, shared, state, begin, &bytes, &mut outcomes);
                following.inside.push(verdict == Verdict::In);
                following.given_up.push(verdict == Verdict::GivenUp);
                following.add_runs(node, &runs);
            }
            following.add_outcomes(&outcomes.all);
            Ok(following)
        })
    }

    /// What the prefixes (node, token) of one text say about the student token after it, exactly; an outcome each. They must
    /// reach beyond the student tokens. Fails as `following` does.
    pub fn following_exact(&self, text: usize, nodes: &[i64], tokens: &[i64]) -> Result<Following> {
        let shared = &self.general()?.shared;
        self.with_text(text, |grower, begin| {
            let mut all = Vec::with_capacity(nodes.len());
            for (&node, &token) in nodes.iter().zip(tokens) {
                let mut bytes = self.bytes_of(text, node)?;
                let work = &mut *grower.work;
                let before = work.states.number(&shared.teacher, self.states[node as usize].clone());
                let state = u32::try_from(token).ok().and_then(|t| work.states.push(&shared.teacher, before, t));
                let not = || Error::Invalid(format!("token {token} is not canonical after node {node}"));
                let state = state.ok_or_else(not)?;
                bytes.extend_from_slice(shared.teacher.bytes(token as u32));
                let rest = bytes.get(begin.bytes.len()..);
                let rest = rest.ok_or_else(|| Error::Invalid(format!("node {node}, token {token}: too short")))?;
                let context = work.contexts.feed_all(&shared.student, begin.context, rest);
                all.push(work.next_exact(shared, state, context));
            }
            let mut following = Following::default();
            following.add_outcomes(&all);
            Ok(following)
        })
    }

    /// The student's tokens in the order that `Following` refers to.
    pub fn student_order(&self) -> Result<&[u32]> {
        Ok(self.general()?.shared.student.tables.spelling.tokens())
    }

    fn with_text<R>(&self, text: usize, call: impl FnOnce(&mut Grower<'_>, &Begin) -> Result<R>) -> Result<R> {
        let general = self.general()?;
        let line = general.lines.get(text).ok_or_else(|| Error::Invalid(format!("text {text} is not in the plan")))?;
        general.shared.with(|work| {
            let mut grower = Grower::new(&general.shared, work, line);
            let begin = begin(&mut grower);
            call(&mut grower, &begin)
        })
    }

    /// The bytes of a node of a text.
    fn bytes_of(&self, text: usize, node: i64) -> Result<Vec<u8>> {
        let mut at = usize::try_from(node).ok().filter(|&n| n < self.states.len());
        at = at.filter(|&n| self.text_of(n) == text);
        let mut at = at.ok_or_else(|| Error::Invalid(format!("node {node} is not one of text {text}")))?;
        let mut path = Vec::new();
        while let Some((parent, token)) = self.step_to(at) {
            path.push(token);
            at = parent;
        }
        Ok(path.iter().rev().flat_map(|&token| self.tokenizer.bytes.get(token)).copied().collect())
    }

    fn text_of(&self, mut node: usize) -> usize {
        while let Some((parent, _)) = self.step_to(node) {
            node = parent;
        }
        self.node_ptr.partition_point(|&first| first <= node as i64) - 1
    }
}

/// Behind the last student token; before the first one, behind the dummy prefixes: one tokenizer may have one alone.
fn begin(grower: &mut Grower<'_>) -> Begin {
    let (shared, line) = (grower.shared, grower.line);
    let last = grower.contexts[line.ids.len()];
    let mut context = grower.work.contexts.track(last);
    if !line.ids.is_empty() {
        return Begin { bytes: line.bytes.clone(), context, empty: false };
    }
    let dummy = |side: &crate::decide::side::Side| line.start && side.tables.canonical.tokenizer.dummy.is_some();
    if dummy(&shared.student) {
        context = grower.work.contexts.feed(&shared.student, context, b' ');
    }
    let bytes = if dummy(&shared.teacher) { vec![b' '] } else { Vec::new() };
    Begin { bytes, context, empty: true }
}

/// The runs of a row, and whether all texts of its node start with the student tokens; `Open` of one that is before their end.
fn look(
    work: &mut Work,
    shared: &Decisions,
    state: u32,
    begin: &Begin,
    bytes: &[u8],
    outcomes: &mut Outcomes,
) -> (Vec<NextRun>, Verdict) {
    if let Some(rest) = begin.bytes.get(bytes.len()..).filter(|rest| !rest.is_empty()) {
        let at = rest.iter().try_fold(Trie::ROOT, |at, &byte| shared.teacher.trie.child(at, byte));
        let runs = at.map(|at| work.next_runs(shared, (state, begin.context, at, begin.empty), outcomes));
        return (runs.unwrap_or_default(), if begin.empty { Verdict::In } else { Verdict::Open });
    }
    let mut context = work.contexts.feed_all(&shared.student, begin.context, &bytes[begin.bytes.len()..]);
    let verdict = if begin.empty { Verdict::In } else { work.decide(shared, state, context) };
    if verdict == Verdict::In {
        context = work.contexts.inside(context);
    }
    (work.next_runs(shared, (state, context, Trie::ROOT, true), outcomes), verdict)
}

/// See `Following::end`.
fn ended(work: &mut Work, line: &Line, contexts: &[u32], at: (&Begin, &[u8]), shared: &Decisions) -> i64 {
    let (begin, bytes) = at;
    // The text without tokens has no dummy prefix either.
    if bytes.len() == line.ends[line.ids.len()] {
        return match work.contexts.closing(contexts[line.ids.len()]) {
            Some(INSIDE) => AT_END,
            _ => NO_END,
        };
    }
    let Some(rest) = bytes.get(begin.bytes.len()..) else { return NO_END };
    let context = work.contexts.feed_all(&shared.student, begin.context, rest);
    match work.contexts.closing(context) {
        None | Some(OUTSIDE | TRACK) => NO_END,
        Some(label) => i64::from(label),
    }
}

impl Following {
    fn add_runs(&mut self, node: i64, runs: &[NextRun]) {
        for run in runs {
            self.run_node.push(node);
            self.run_first.push(i64::from(run.first));
            self.run_last.push(i64::from(run.last));
            self.run_outcome.push(i64::from(run.outcome));
        }
    }

    fn add_outcomes(&mut self, all: &[Outcome]) {
        self.label_ptr.push(0);
        for outcome in all {
            self.label.extend(outcome.labels.iter().map(|&label| i64::from(label)));
            self.label_ptr.push(self.label.len() as i64);
            self.longer_first.push(i64::from(outcome.longer.0));
            self.longer_last.push(i64::from(outcome.longer.1));
            self.outside.push(outcome.outside);
            self.sure.push(outcome.sure);
            self.closing.push(outcome.closing.map_or(-1, i64::from));
            self.splits.push(outcome.splits);
        }
    }
}
