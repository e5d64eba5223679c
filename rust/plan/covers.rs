//! Explicit covers: for people, tests, and whoever wants index tensors instead of a plan.

use super::Purpose;
use super::tree::grow;
use crate::error::{Error, Result};
use crate::spelling::Tables;

/// Relative covers of every prefix of several student sequences, flat.
#[derive(Debug, Default)]
pub struct Covers {
    /// Token and parent of each node, numbered through all texts; −1 and −1 at a text's root, its first.
    pub node_token: Vec<i64>,
    /// See `node_token`.
    pub node_parent: Vec<i64>,
    /// A cover is a node, or (token not −1) a node with one more token.
    pub cover_node: Vec<i64>,
    /// See `cover_node`; end-of-text ends a complete text.
    pub cover_token: Vec<i64>,
    /// Where each position's covers begin; positions 0..=n of every text.
    pub position_ptr: Vec<i64>,
    /// Where each text's positions begin.
    pub text_ptr: Vec<i64>,
    /// 1 in, 0 undecided.
    pub status: Vec<i8>,
}

/// A node, the token that crosses from it (−1: none), and 1 or 0.
pub(super) type Cover = (i64, i64, i8);

const PURPOSE: Purpose = Purpose { start: false, every_node: false, boundaries: false, end_rows: false };

/// Every byte cover of `prefix`, as id sequences.
pub fn enumerate_bytes(tables: &Tables, prefix: &[u8]) -> Result<Vec<Vec<i64>>> {
    let ids: Vec<u32> = prefix.iter().map(|&b| u32::from(b)).collect();
    let covers = list(tables, &ids, None, None)?;
    let last = covers.position_ptr.len() - 2;
    let (from, to) = (covers.position_ptr[last] as usize, covers.position_ptr[last + 1] as usize);
    Ok((from..to).map(|at| covers.path(at)).collect())
}

pub(super) fn too_many(max: Option<usize>) -> Error {
    Error::Plan(format!("more than max_covers = {} covers", max.unwrap_or(usize::MAX)))
}

pub(super) fn list(tables: &Tables, ids: &[u32], end: Option<u32>, max: Option<usize>) -> Result<Covers> {
    let tree = grow(tables, ids, Purpose { end_rows: end.is_some(), ..PURPOSE });
    let positions = ids.len() + 1 + usize::from(end.is_some());
    let mut at_position: Vec<Vec<Cover>> = vec![Vec::new(); positions];
    at_position[0].push((0, -1, 1));
    let mut count = 1;
    for range in &tree.ranges {
        let mask = tables.masks.next(&tree.nodes[range.node].state);
        for place in mask.ones(range.places.first, range.places.last) {
            at_position[range.depth].push((range.node as i64, i64::from(tables.spelling.tokens()[place]), 1));
            count += 1;
        }
        if max.is_some_and(|max| count > max) {
            return Err(too_many(max));
        }
    }
    if let Some(eos) = end {
        let complete = |node: &super::tree::Node| node.depth == ids.len() && tables.canonical.complete(&node.state);
        let ends = tree.nodes.iter().enumerate().filter(|(_, node)| complete(node));
        at_position[ids.len() + 1].extend(ends.map(|(at, _)| (at as i64, i64::from(eos), 1)));
    }
    let nodes = tree.nodes.iter().map(|n| (n.token, n.parent));
    Ok(Covers::of_text(nodes, at_position))
}

impl Covers {
    /// From the nodes (token, parent) and covers of one text.
    pub(super) fn of_text(
        nodes: impl Iterator<Item = (Option<u32>, Option<usize>)>,
        at_position: Vec<Vec<Cover>>,
    ) -> Self {
        let mut covers = Self { position_ptr: vec![0], text_ptr: vec![0, at_position.len() as i64], ..Self::default() };
        for (token, parent) in nodes {
            covers.node_token.push(token.map_or(-1, i64::from));
            covers.node_parent.push(parent.map_or(-1, |p| p as i64));
        }
        for (node, token, status) in at_position.into_iter().flat_map(|here| {
            covers.position_ptr.push(covers.position_ptr[covers.position_ptr.len() - 1] + here.len() as i64);
            here
        }) {
            covers.cover_node.push(node);
            covers.cover_token.push(token);
            covers.status.push(status);
        }
        covers
    }

    pub(super) fn append(&mut self, other: Self) {
        let (nodes, covers) = (self.node_token.len() as i64, self.cover_node.len() as i64);
        let positions = self.position_ptr.len() as i64 - 1;
        self.node_token.extend(other.node_token);
        self.node_parent.extend(other.node_parent.iter().map(|&p| if p < 0 { -1 } else { p + nodes }));
        self.cover_node.extend(other.cover_node.iter().map(|n| n + nodes));
        self.cover_token.extend(other.cover_token);
        self.status.extend(other.status);
        self.position_ptr.extend(other.position_ptr[1..].iter().map(|p| p + covers));
        self.text_ptr.extend(other.text_ptr[1..].iter().map(|p| p + positions));
    }

    /// The ids of a cover.
    fn path(&self, cover: usize) -> Vec<i64> {
        let mut path: Vec<i64> = Some(self.cover_token[cover]).filter(|&t| t >= 0).into_iter().collect();
        let mut node = self.cover_node[cover];
        while self.node_parent[node as usize] >= 0 {
            path.push(self.node_token[node as usize]);
            node = self.node_parent[node as usize];
        }
        path.reverse();
        path
    }
}
