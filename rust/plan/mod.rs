//! Plans: which teacher rows a text's student tokens need, and which of their entries make up each probability
//! (docs/mathematics.md, facts 17 and 18).
//!
//! Every canonical prefix that ends exactly at a student boundary is a *node*; nodes form a tree. A relative cover of
//! s_1..s_i is a node at an earlier boundary with one more token that reaches s_i or goes beyond it, so P(s_1..s_i) is a sum over
//! nodes of ranges of their rows, in the order of the tokens' spellings.

mod closing;
mod covers;
mod decided;
mod enumerate;
mod extension;
mod frontier;
mod general;
mod line;
mod next;
mod tree;

use std::sync::Arc;

pub use closing::{Beyond, Closing};
pub use covers::{Covers, enumerate_bytes};
pub use enumerate::enumerate;
pub use extension::Extension;
pub use next::Following;

use crate::canonical::masks::Masks;
use crate::canonical::{Canonical, State};
use crate::error::{Error, Result};
use crate::pair::{Pair, Regime};
use crate::parallel::{fill_rows, map_blocks};
use crate::spelling::Spelling;
use crate::tokenizer::Tokenizer;
use general::General;
use tree::{Tree, grow};

/// What a plan is for.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // independent flags, not states
pub struct Purpose {
    /// The text starts a document (dummy prefix).
    pub start: bool,
    /// Keep every node, not only those that the labels need: rows for whole distributions. In the regime "general" those at
    /// the end of the text.
    pub every_node: bool,
    /// In the regime "general": keep all nodes that end where a student token does.
    pub boundaries: bool,
    /// Whether nodes at the end of the text are needed: for end-of-text or the last distribution.
    pub end_rows: bool,
}

/// Plans of several texts, flat. Nodes and positions are numbered through; position `i` of a text is the prefix s_1..s_i.
#[derive(Debug)]
pub struct Plan {
    /// The teacher's.
    pub tokenizer: Arc<Tokenizer>,
    /// Student ids of all texts, without end-of-text, and where each text begins.
    pub student_ids: Vec<i64>,
    pub student_ptr: Vec<i64>,
    /// Where each text's nodes begin; the first of them is its root.
    pub node_ptr: Vec<i64>,
    /// Teacher token and parent of each node, −1 and −1 at roots; parents come first.
    pub node_token: Vec<i64>,
    /// See `node_token`.
    pub node_parent: Vec<i64>,
    /// How many student tokens end at the node or before it.
    pub node_depth: Vec<i64>,
    /// Whether the text may end at the node.
    pub node_complete: Vec<bool>,
    /// Ranges of the order: tokens `first..last` after `node` cover the prefix of `depth` student tokens, with a kind.
    pub range_node: Vec<i64>,
    pub range_first: Vec<i64>,
    pub range_last: Vec<i64>,
    pub range_depth: Vec<i64>,
    /// See `decide::kinds::Kind`; 0, "in", in the regimes "same" and "subset".
    pub range_kind: Vec<i8>,
    /// Rows that are looked at whole for the prefix of `depth` student tokens, and whether the text ended there starts with
    /// it; only in the regime "general".
    pub whole_node: Vec<i64>,
    pub whole_depth: Vec<i64>,
    pub whole_end: Vec<bool>,
    general: Option<General>,
    states: Vec<State>,
    canonical: Arc<Canonical>,
    /// Canonical next tokens, by id: what rows are masked with.
    masks: Arc<Masks>,
    /// The highest token that can stand in an encoding.
    top: u32,
}

impl Plan {
    /// Plans for texts that are given by their student ids (no end-of-text among them), with one purpose each.
    pub fn new(pair: &Pair, texts: &[Vec<u32>], purposes: &[Purpose], threads: usize) -> Result<Self> {
        if pair.regime() == Regime::General {
            return general::plan(pair, texts, purposes, threads);
        }
        let tables = pair.tables()?;
        let trees = map_blocks(texts.len(), 1, threads, |block| {
            block.map(|t| grow(&tables, &texts[t], purposes[t])).collect::<Vec<_>>()
        });
        let mut plan = Self::empty(pair, &tables.spelling)?;
        for (tree, ids) in trees.into_iter().flatten().zip(texts) {
            plan.append(tree, ids);
        }
        Ok(plan)
    }

    fn empty(pair: &Pair, order: &Spelling) -> Result<Self> {
        Ok(Self {
            tokenizer: Arc::clone(&pair.teacher.tokenizer),
            student_ids: Vec::new(),
            student_ptr: vec![0],
            node_ptr: vec![0],
            node_token: Vec::new(),
            node_parent: Vec::new(),
            node_depth: Vec::new(),
            node_complete: Vec::new(),
            range_node: Vec::new(),
            range_first: Vec::new(),
            range_last: Vec::new(),
            range_depth: Vec::new(),
            range_kind: Vec::new(),
            whole_node: Vec::new(),
            whole_depth: Vec::new(),
            whole_end: Vec::new(),
            general: None,
            states: Vec::new(),
            canonical: pair.teacher.canonical()?,
            masks: pair.teacher.masks()?,
            top: order.tokens().iter().copied().max().unwrap_or(0),
        })
    }

    fn append(&mut self, tree: Tree, ids: &[u32]) {
        let base = self.node_token.len() as i64;
        for node in tree.nodes {
            self.node_token.push(node.token.map_or(-1, i64::from));
            self.node_parent.push(node.parent.map_or(-1, |p| base + p as i64));
            self.node_depth.push(node.depth as i64);
            self.node_complete.push(self.canonical.complete(&node.state));
            self.states.push(node.state);
        }
        for range in tree.ranges {
            self.range_node.push(base + range.node as i64);
            self.range_first.push(range.places.first as i64);
            self.range_last.push(range.places.last as i64);
            self.range_depth.push(range.depth as i64);
            self.range_kind.push(0);
        }
        self.close(ids);
    }

    /// Ends a text.
    fn close(&mut self, ids: &[u32]) {
        self.student_ids.extend(ids.iter().map(|&id| i64::from(id)));
        self.student_ptr.push(self.student_ids.len() as i64);
        self.node_ptr.push(self.node_token.len() as i64);
    }

    /// Writes the canonical next tokens of `nodes`, by id, as rows of `width` flags, one byte each.
    pub fn masks(&self, nodes: &[i64], width: usize, rows: &mut [u8], threads: usize) -> Result<()> {
        if self.top as usize >= width {
            return Err(Error::Plan(format!("rows of {width} entries do not hold token {}", self.top)));
        }
        if let Some(bad) = nodes.iter().find(|&&n| n < 0 || n as usize >= self.states.len()) {
            return Err(Error::Invalid(format!("node {bad} is out of range ({} nodes)", self.states.len())));
        }
        if rows.len() != nodes.len() * width {
            return Err(Error::Invalid(format!("{} flags for {} rows of {width}", rows.len(), nodes.len())));
        }
        fill_rows(rows, width, threads, |at, row| self.masks.next(&self.states[nodes[at] as usize]).spread(row));
        Ok(())
    }
}
