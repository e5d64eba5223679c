//! Longer teacher prefixes for a plan: what is undecided is split by one more row each.

use super::Plan;
use super::frontier::{Grower, Part, Settled, Target, Whole};
use super::line::Line;
use crate::decide::Work;
use crate::decide::context::{OUTSIDE, Verdict};
use crate::error::{Error, Result};
use crate::parallel::map_blocks;
use crate::trie::Trie;

/// Nodes that were added to a plan, all of whose rows are whole; see [`Plan`] for the arrays.
#[derive(Debug, Default)]
pub struct Extension {
    /// The number of the first.
    pub first: usize,
    pub node_token: Vec<i64>,
    pub node_parent: Vec<i64>,
    pub node_text: Vec<i64>,
    pub node_depth: Vec<i64>,
    pub node_complete: Vec<bool>,
    pub range_node: Vec<i64>,
    pub range_first: Vec<i64>,
    pub range_last: Vec<i64>,
    pub range_depth: Vec<i64>,
    pub range_kind: Vec<i8>,
    pub whole_node: Vec<i64>,
    pub whole_depth: Vec<i64>,
    pub whole_end: Vec<bool>,
}

/// A teacher prefix of a text: the bytes that it shares with the text, those behind them, and the node before its last token.
pub(super) struct Prefix {
    pub(super) text: usize,
    common: usize,
    rest: Vec<u8>,
    before: usize,
    token: u32,
}

/// Prefixes that a thread looks at, at least, at a time.
const TOGETHER: usize = 256;

/// What is found out about a new node.
#[derive(Clone)]
struct Found {
    state: crate::canonical::State,
    depth: usize,
    wholes: Vec<Whole>,
    parts: Vec<Part>,
}

impl Plan {
    /// Adds the prefixes (node, token). Fails (plan) in the regimes without undecided prefixes, and (invalid) for nodes that the
    /// plan does not have and tokens that are not canonical there.
    pub fn extend(&mut self, nodes: &[i64], tokens: &[i64], threads: usize) -> Result<Extension> {
        let first = self.states.len();
        let prefixes = self.prefixes(nodes, tokens)?;
        let found = self.of_each(&prefixes, threads, |grower, i| self.look_at(grower, &prefixes[i], first + i))?;
        let mut extension = Extension { first, ..Extension::default() };
        for (prefix, found) in prefixes.into_iter().zip(found) {
            extension.add(&prefix, &found, self.canonical.complete(&found.state));
            self.states.push(found.state);
            if let Some(general) = &mut self.general {
                general.added.push((prefix.before, prefix.token, prefix.text));
            }
        }
        Ok(extension)
    }

    /// What the prefixes (node, token) say about s_1..s_depth of their texts: 1 in, 0 undecided, −1 out; by both tokenizers,
    /// which may also give up (2, perhaps in), or (`quick`) by the student's readings alone. Fails as `extend` does.
    pub fn decide(
        &self,
        nodes: &[i64],
        tokens: &[i64],
        depths: &[i64],
        quick: bool,
        threads: usize,
    ) -> Result<Vec<i8>> {
        let prefixes = self.prefixes(nodes, tokens)?;
        self.check_depths(&prefixes, depths)?;
        self.of_each(&prefixes, threads, |grower, i| self.decide_one(grower, &prefixes[i], depths[i], quick))
    }

    /// What is found out about each of some prefixes; those of a text are looked at together, since its contexts are then
    /// followed once.
    pub(super) fn of_each<R: Send + Clone>(
        &self,
        prefixes: &[Prefix],
        threads: usize,
        call: impl Fn(&mut Grower<'_>, usize) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let general = self.general()?;
        let mut order: Vec<usize> = (0..prefixes.len()).collect();
        order.sort_by_key(|&i| prefixes[i].text);
        let parts = map_blocks(order.len(), TOGETHER.max(order.len() / 32), threads, |block| {
            general.shared.with(|work| {
                let mut out = Vec::with_capacity(block.len());
                for of_text in order[block].chunk_by(|&a, &b| prefixes[a].text == prefixes[b].text) {
                    let line = &general.lines[prefixes[of_text[0]].text];
                    let mut grower = Grower::new(&general.shared, work, line);
                    for &i in of_text {
                        out.push(call(&mut grower, i)?);
                    }
                }
                Ok(out)
            })
        });
        let found = parts.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let mut out: Vec<(usize, R)> = order.into_iter().zip(found).collect();
        out.sort_by_key(|&(i, _)| i);
        Ok(out.into_iter().map(|(_, found)| found).collect())
    }

    pub(super) fn check_depths(&self, prefixes: &[Prefix], depths: &[i64]) -> Result<()> {
        if depths.len() != prefixes.len() {
            return Err(Error::Invalid(format!("{} depths for {} prefixes", depths.len(), prefixes.len())));
        }
        for (prefix, &depth) in prefixes.iter().zip(depths) {
            let ids = self.general()?.lines[prefix.text].ids.len();
            if depth < 0 || depth as usize > ids {
                return Err(Error::Invalid(format!("depth {depth} of {ids} student tokens")));
            }
        }
        Ok(())
    }

    pub(super) fn prefixes(&self, nodes: &[i64], tokens: &[i64]) -> Result<Vec<Prefix>> {
        if nodes.len() != tokens.len() {
            return Err(Error::Invalid(format!("{} nodes for {} tokens", nodes.len(), tokens.len())));
        }
        nodes.iter().zip(tokens).map(|(&node, &token)| self.prefix(node, token)).collect()
    }

    fn prefix(&self, node: i64, token: i64) -> Result<Prefix> {
        let before = usize::try_from(node).ok().filter(|&n| n < self.states.len());
        let before = before.ok_or_else(|| Error::Invalid(format!("node {node} of {}", self.states.len())))?;
        let token = u32::try_from(token).map_err(|_| Error::Invalid(format!("token {token} is out of range")))?;
        let mut path = vec![token];
        let mut at = before;
        while at >= self.node_token.len() {
            let Some((parent, token)) = self.step_to(at) else { break };
            path.push(token);
            at = parent;
        }
        let text = self.node_ptr.partition_point(|&first| first <= at as i64) - 1;
        let rest = path.iter().rev().flat_map(|&token| self.tokenizer.bytes.get(token)).copied().collect();
        Ok(Prefix { text, common: self.general()?.ends[at], rest, before, token })
    }

    /// The parent of a node and the token between; none for a root.
    pub(super) fn step_to(&self, node: usize) -> Option<(usize, u32)> {
        let own = self.node_token.len();
        if node >= own {
            return self.general.as_ref().map(|general| (general.added[node - own].0, general.added[node - own].1));
        }
        let parent = usize::try_from(self.node_parent[node]).ok()?;
        Some((parent, self.node_token[node] as u32))
    }

    pub(super) fn general(&self) -> Result<&super::general::General> {
        self.general.as_ref().ok_or_else(|| Error::Plan("nothing is undecided in this regime".into()))
    }

    fn look_at(&self, grower: &mut Grower<'_>, prefix: &Prefix, number: usize) -> Result<Found> {
        let (line, shared) = (grower.line, grower.shared);
        let state = self.number(grower.work, prefix)?;
        let mut found = Found {
            state: grower.work.states.get(state).clone(),
            depth: prefix.reached(line),
            wholes: Vec::new(),
            parts: Vec::new(),
        };
        for depth in (1..=found.depth).rev() {
            let context = prefix.follow(grower, grower.contexts[depth], depth);
            match grower.work.decide(shared, state, context) {
                Verdict::In => break,
                // What may be in must not be replaced by its row.
                Verdict::Out | Verdict::GivenUp => {}
                Verdict::Open => {
                    let end = grower.work.contexts.closing(context).is_some_and(|label| label != OUTSIDE);
                    found.wholes.push(Whole { node: number, depth, end });
                    let target = Target { node: number, depth, state, whole: true };
                    grower.parts(&target, context, Trie::ROOT, &Settled::default(), &mut found.parts);
                }
            }
        }
        Ok(found)
    }

    fn decide_one(&self, grower: &mut Grower<'_>, prefix: &Prefix, depth: i64, quick: bool) -> Result<i8> {
        let (line, depth) = (grower.line, depth as usize);
        let state = self.number(grower.work, prefix)?;
        if depth > prefix.reached(line) {
            let along = line.bytes[prefix.common..].starts_with(&prefix.rest);
            return Ok(if along { 0 } else { -1 });
        }
        let context = prefix.follow(grower, grower.contexts[depth], depth);
        let (work, shared) = (&mut *grower.work, grower.shared);
        let verdict =
            if quick { work.decide_quickly(shared, state, context) } else { work.decide(shared, state, context) };
        Ok(match verdict {
            Verdict::In => 1,
            Verdict::Open => 0,
            Verdict::Out => -1,
            Verdict::GivenUp => 2,
        })
    }

    /// The number of a prefix's state.
    pub(super) fn number(&self, work: &mut Work, prefix: &Prefix) -> Result<u32> {
        let side = &self.general()?.shared.teacher;
        let before = work.states.number(side, self.states[prefix.before].clone());
        let not = || Error::Invalid(format!("token {} is not canonical after node {}", prefix.token, prefix.before));
        work.states.push(side, before, prefix.token).ok_or_else(not)
    }
}

impl Prefix {
    /// The largest i such that the bytes begin with those of s_1..s_i.
    pub(super) fn reached(&self, line: &Line) -> usize {
        let more = line.bytes[self.common..].iter().zip(&self.rest).take_while(|(a, b)| a == b).count();
        line.depth(self.common + more)
    }

    /// From a context at the end of s_1..s_depth to that at the end of the prefix.
    pub(super) fn follow(&self, grower: &mut Grower<'_>, context: u32, depth: usize) -> u32 {
        let (line, from) = (grower.line, grower.line.ends[depth]);
        let (student, contexts) = (&grower.shared.student, &mut grower.work.contexts);
        let context = contexts.feed_all(student, context, &line.bytes[from.min(self.common)..self.common]);
        contexts.feed_all(student, context, &self.rest[from.saturating_sub(self.common)..])
    }

    /// The bytes behind the dummy prefix, of a text without tokens.
    pub(super) fn behind_dummy(&self) -> &[u8] {
        self.rest.get(1..).unwrap_or_default()
    }

    /// How many bytes it has, dummy prefix included.
    pub(super) fn len(&self) -> usize {
        self.common + self.rest.len()
    }
}

impl Extension {
    fn add(&mut self, prefix: &Prefix, found: &Found, complete: bool) {
        self.node_token.push(i64::from(prefix.token));
        self.node_parent.push(prefix.before as i64);
        self.node_text.push(prefix.text as i64);
        self.node_depth.push(found.depth as i64);
        self.node_complete.push(complete);
        for part in &found.parts {
            self.range_node.push(part.node as i64);
            self.range_first.push(i64::from(part.first));
            self.range_last.push(i64::from(part.last));
            self.range_depth.push(part.depth as i64);
            self.range_kind.push(part.kind as i8);
        }
        for whole in &found.wholes {
            self.whole_node.push(whole.node as i64);
            self.whole_depth.push(whole.depth as i64);
            self.whole_end.push(whole.end);
        }
    }
}
