//! The witness: a prefix is canonical only if something completes it (docs/mathematics.md, fact 8).
//!
//! Nearly every branch may end at once and is its own witness. For the rest the graph of branches is searched until one that
//! may end is found. What was learned is kept: which branches have a witness, and the continuations that served, since what
//! completes a token in one context mostly completes it in the next. A continuation is always tried before it is believed.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Canonical;
use super::branch::{Branch, Branches};
use super::shape::{Shapes, Use};
use crate::bpe::NONE;
use crate::pretoken::boundaries::Step;
use crate::pretoken::classes::Class;
use crate::sync::Cache;
use crate::tokenizer::Tokenizer;

/// More known branches than this are forgotten, all at once: a bound on memory, not on what can be decided.
const MAX_KNOWN: usize = 1 << 18;
/// Continuations remembered for a token.
const MAX_HINTS: usize = 4;

/// What was learned about branches, and the tokens to try.
#[derive(Debug)]
pub struct Witnesses {
    known: Cache<FxHashMap<Branch, bool>>,
    /// By last token: continuations that completed a branch.
    hints: Cache<FxHashMap<u32, Vec<Vec<u32>>>>,
    /// Tokens that start with a whole character, by its class, shortest first.
    by_class: Vec<Vec<u32>>,
    /// Tokens that are the beginning of one character.
    beginnings: Vec<u32>,
    /// Tokens that continue a character, shortest first.
    continuing: Vec<u32>,
    /// Added tokens that are matched.
    matched: Vec<u32>,
}

impl Witnesses {
    /// Nothing learned yet.
    pub fn new(tokenizer: &Tokenizer, shapes: &Shapes) -> Self {
        let mut usable: Vec<u32> = (0..tokenizer.vocab_size as u32).collect();
        usable.sort_by_key(|&id| tokenizer.bytes.get(id).len());
        let mut all = Self {
            known: Cache::default(),
            hints: Cache::default(),
            by_class: vec![Vec::new(); tokenizer.pretokenizer.classes().len()],
            beginnings: Vec::new(),
            continuing: Vec::new(),
            matched: Vec::new(),
        };
        for id in usable {
            let shape = shapes.shape[id as usize];
            if shape.matched {
                all.matched.push(id);
            }
            if shape.usable == Use::Never {
                continue;
            }
            match shapes.classes(shape.classes).first() {
                _ if shape.lead > 0 => all.continuing.push(id),
                Some(&class) => all.by_class[class as usize].push(id),
                None => all.beginnings.push(id),
            }
        }
        all
    }

    /// Tokens that begin with the rest of a character.
    pub fn continuing(&self) -> &[u32] {
        &self.continuing
    }

    fn known(&self, branch: &Branch) -> Option<bool> {
        self.known.with(|known| known.get(branch).copied()).flatten()
    }

    fn hints(&self, last: u32) -> Vec<Vec<u32>> {
        self.hints.with(|hints| hints.get(&last).cloned()).flatten().unwrap_or_default()
    }

    fn learn(&self, branches: impl IntoIterator<Item = Branch>, live: bool) {
        self.known.with(|known| {
            if known.len() > MAX_KNOWN {
                known.clear();
            }
            known.extend(branches.into_iter().map(|branch| (branch, live)));
        });
    }

    fn remember(&self, last: u32, continuation: Vec<u32>) {
        self.hints.with(|hints| {
            let served = hints.entry(last).or_default();
            served.truncate(MAX_HINTS - 1);
            served.insert(0, continuation);
        });
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
        if self.witnesses.hints(branch.last).iter().any(|hint| self.completes(branch, hint)) {
            return true;
        }
        self.search(branch)
    }

    fn completes(&self, branch: &Branch, continuation: &[u32]) -> bool {
        let mut at = Branches::from_iter([branch.clone()]);
        for &token in continuation {
            at = at.iter().flat_map(|b| self.push_branch(b, token)).collect();
        }
        at.iter().any(|b| self.branch_complete(b))
    }

    fn search(&self, branch: &Branch) -> bool {
        let mut seen = FxHashSet::from_iter([branch.clone()]);
        let mut open: Vec<(Branch, Vec<u32>)> = vec![(branch.clone(), Vec::new())];
        while let Some((at, path)) = open.pop() {
            for token in self.candidates(&at) {
                for next in self.push_branch(&at, token) {
                    let longer = || path.iter().copied().chain([token]).collect::<Vec<_>>();
                    if self.branch_complete(&next) {
                        self.witnesses.remember(branch.last, longer());
                        self.witnesses.learn([branch.clone(), at.clone()], true);
                        return true;
                    }
                    match self.witnesses.known(&next) {
                        Some(true) => {
                            self.witnesses.learn([branch.clone(), at.clone()], true);
                            return true;
                        }
                        None if !seen.contains(&next) => {
                            let path = longer();
                            seen.insert(next.clone());
                            open.push((next, path));
                        }
                        _ => {}
                    }
                }
            }
        }
        // Nothing that can be reached from here ends a text.
        self.witnesses.learn(seen, false);
        false
    }

    /// Tokens that may follow, as far as the pretokenizer can tell from their first character.
    fn candidates<'a>(&'a self, branch: &'a Branch) -> Box<dyn Iterator<Item = u32> + 'a> {
        if !branch.partial.is_empty() {
            return Box::new(self.witnesses.continuing.iter().copied());
        }
        let possible = |class: usize| {
            let reads = |step| self.boundaries.possible(branch.pretok, step).contains(class as Class);
            reads(Step::Join) || (branch.last != NONE && reads(Step::Cut))
        };
        let by_class = self.witnesses.by_class.iter().enumerate().filter(move |(class, _)| possible(*class));
        let rest = self.witnesses.beginnings.iter().chain(&self.witnesses.matched).copied();
        Box::new(by_class.flat_map(|(_, tokens)| tokens.iter().copied()).chain(rest))
    }
}
