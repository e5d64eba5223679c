//! Plans in the general regime.

use std::sync::Arc;

use super::frontier::{Frontier, Grower};
use super::line::Line;
use super::{Plan, Purpose};
use crate::decide::Decisions;
use crate::error::Result;
use crate::pair::Pair;
use crate::parallel::map_blocks;

/// What a plan keeps to be extended.
#[derive(Debug)]
pub(super) struct General {
    pub shared: Arc<Decisions>,
    pub lines: Vec<Line>,
    /// Bytes of its text up to each of the plan's own nodes.
    pub ends: Vec<usize>,
    /// Nodes that were added, by number behind the plan's own: parent, token, text.
    pub added: Vec<(usize, u32, usize)>,
}

/// A text's frontier with what its numbers stand for.
struct Grown {
    line: Line,
    frontier: Frontier,
    states: Vec<crate::canonical::State>,
}

/// Plans for texts given by their student ids.
pub(super) fn plan(pair: &Pair, texts: &[Vec<u32>], purposes: &[Purpose], threads: usize) -> Result<Plan> {
    let shared = pair.decisions()?;
    let (teacher, student) = (&pair.teacher.tokenizer, &pair.student.tokenizer);
    let parts = map_blocks(texts.len(), 1, threads, |block| {
        block
            .map(|t| {
                let line = Line::new(teacher, student, &texts[t], purposes[t].start);
                shared.with(|work| {
                    let frontier = Grower::new(&shared, work, &line).grow(purposes[t]);
                    let states = frontier.nodes.iter().map(|node| work.states.get(node.state).clone()).collect();
                    Grown { line, frontier, states }
                })
            })
            .collect::<Vec<_>>()
    });
    let mut plan = Plan::empty(pair, &shared.teacher.tables.spelling)?;
    let mut lines = Vec::with_capacity(texts.len());
    let mut ends = Vec::new();
    for grown in parts.into_iter().flatten() {
        plan.append_general(&shared, &grown);
        plan.states.extend(grown.states);
        ends.extend(grown.frontier.nodes.iter().map(|node| node.end));
        lines.push(grown.line);
    }
    plan.general = Some(General { shared, lines, ends, added: Vec::new() });
    Ok(plan)
}

impl Plan {
    fn append_general(&mut self, shared: &Decisions, grown: &Grown) {
        let base = self.node_token.len() as i64;
        let (line, frontier) = (&grown.line, &grown.frontier);
        for (node, state) in frontier.nodes.iter().zip(&grown.states) {
            self.node_token.push(node.place.map_or(-1, |place| i64::from(shared.teacher.token(place))));
            self.node_parent.push(node.parent.map_or(-1, |p| base + p as i64));
            self.node_depth.push(line.depth(node.end) as i64);
            self.node_complete.push(self.canonical.complete(state));
        }
        for part in &frontier.parts {
            self.range_node.push(base + part.node as i64);
            self.range_first.push(i64::from(part.first));
            self.range_last.push(i64::from(part.last));
            self.range_depth.push(part.depth as i64);
            self.range_kind.push(part.kind as i8);
        }
        for whole in &frontier.wholes {
            self.whole_node.push(base + whole.node as i64);
            self.whole_depth.push(whole.depth as i64);
            self.whole_end.push(whole.end);
        }
        self.close(&line.ids);
    }
}
