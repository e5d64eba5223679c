//! Explicit covers in the general regime: byte covers, each with its decision.

use super::Purpose;
use super::covers::{Cover, Covers, too_many};
use super::frontier::{Frontier, Grower};
use super::line::Line;
use crate::decide::Decisions;
use crate::decide::context::{INSIDE, Verdict};
use crate::error::Result;
use crate::pair::Pair;

/// The byte covers of every prefix s_1..s_i that are in or undecided; with `end`, the complete texts behind them.
pub(super) fn list(
    pair: &Pair,
    shared: &Decisions,
    ids: &[u32],
    end: Option<u32>,
    max: Option<usize>,
) -> Result<Covers> {
    let line = Line::new(&pair.teacher.tokenizer, &pair.student.tokenizer, ids, false);
    shared.with(|work| {
        let mut grower = Grower::new(shared, work, &line);
        let purpose = Purpose { start: false, every_node: false, boundaries: false, end_rows: end.is_some() };
        let frontier = grower.grow(purpose);
        let mut at_position: Vec<Vec<Cover>> = vec![Vec::new(); line.ends.len() + usize::from(end.is_some())];
        at_position[0].push((0, -1, 1));
        let mut count = 1;
        for node in 0..frontier.nodes.len() {
            count += crossing(&mut grower, &frontier, node, &mut at_position);
            if max.is_some_and(|max| count > max) {
                return Err(too_many(max));
            }
        }
        if let Some(eos) = end {
            let last = grower.contexts[grower.contexts.len() - 1];
            if grower.work.contexts.closing(last) == Some(INSIDE) {
                let states = &grower.work.states;
                let ends = |node: &super::frontier::Node| node.end == line.bytes.len() && states.complete(node.state);
                let ends = frontier.nodes.iter().enumerate().filter(|(_, node)| ends(node));
                at_position[line.ends.len()].extend(ends.map(|(at, _)| (at as i64, i64::from(eos), 1)));
            }
        }
        let nodes = frontier.nodes.iter().map(|n| (n.place.map(|place| shared.teacher.token(place)), n.parent));
        Ok(Covers::of_text(nodes, at_position))
    })
}

/// Decides about every token that crosses from a node; how many are not out.
fn crossing(grower: &mut Grower<'_>, frontier: &Frontier, at: usize, at_position: &mut [Vec<Cover>]) -> usize {
    let (shared, line) = (grower.shared, grower.line);
    let (node, side) = (&frontier.nodes[at], &shared.teacher);
    let mut count = 0;
    for (depth, trie) in node.crossing.clone() {
        let range = side.trie.node(trie);
        let mask = side.tables.masks.next(grower.work.states.get(node.state));
        for place in mask.ones(range.first as usize, range.last as usize) {
            let token = side.token(place as u32);
            let Some(state) = grower.work.states.push(side, node.state, token) else { continue };
            let rest = &side.bytes(token)[line.ends[depth] - node.end..];
            let context = grower.work.contexts.feed_all(&shared.student, grower.contexts[depth], rest);
            let status = match grower.work.decide(shared, state, context) {
                Verdict::In => 1,
                Verdict::Open | Verdict::GivenUp => 0,
                Verdict::Out => continue,
            };
            at_position[depth].push((at as i64, i64::from(token), status));
            count += 1;
        }
    }
    count
}
