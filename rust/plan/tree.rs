//! The tree of canonical prefixes along one text.

use crate::canonical::State;
use crate::spelling::{Range, Tables};

use super::Purpose;

/// A canonical prefix that ends at a student boundary.
#[derive(Debug)]
pub struct Node {
    /// Its last token, and the node without it; none at the root.
    pub token: Option<u32>,
    pub parent: Option<usize>,
    /// Student tokens spelled.
    pub depth: usize,
    pub state: State,
}

/// Tokens that, after `node`, cover the first `depth` student tokens.
#[derive(Debug)]
pub struct Crossing {
    pub node: usize,
    pub places: Range,
    pub depth: usize,
}

/// The nodes of one text, parents first, and what crosses from them, by node, then depth.
#[derive(Debug, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    pub ranges: Vec<Crossing>,
}

/// Grows the tree along `ids`, by student position: a child spells more than its parent, so parents come first.
pub fn grow(tables: &Tables, ids: &[u32], purpose: Purpose) -> Tree {
    let mut tree = Tree::default();
    let mut waiting: Vec<Vec<Node>> = (0..=ids.len()).map(|_| Vec::new()).collect();
    let root = tables.canonical.start(purpose.start);
    waiting[0].push(Node { token: None, parent: None, depth: 0, state: root });
    for depth in 0..=ids.len() {
        for node in std::mem::take(&mut waiting[depth]) {
            let rest = &ids[depth..];
            let needed = purpose.every_node || depth == 0 || is_needed(tables, &node, rest);
            if needed && (!rest.is_empty() || purpose.end_rows || depth == 0) {
                expand(tables, node, rest, &mut tree, &mut waiting);
            }
        }
    }
    tree
}

/// Whether some canonical token after the node reaches at least the next student token.
fn is_needed(tables: &Tables, node: &Node, rest: &[u32]) -> bool {
    let Some(&next) = rest.first() else { return tables.canonical.complete(&node.state) };
    let places = tables.spelling.narrow(tables.spelling.all(), 0, next);
    tables.masks.any(&node.state, places.first, places.last)
}

/// Adds the node, the ranges that cross from it, and its children.
fn expand(tables: &Tables, node: Node, rest: &[u32], tree: &mut Tree, waiting: &mut [Vec<Node>]) {
    let (at, depth) = (tree.nodes.len(), node.depth);
    let mut places = tables.spelling.all();
    for (step, &id) in rest.iter().enumerate() {
        places = tables.spelling.narrow(places, step, id);
        if places.is_empty() {
            break;
        }
        let reached = depth + step + 1;
        tree.ranges.push(Crossing { node: at, places, depth: reached });
        for place in tables.spelling.exact(places, step + 1) {
            let token = tables.spelling.tokens()[place];
            if let Some(state) = tables.canonical.push(&node.state, token) {
                waiting[reached].push(Node { token: Some(token), parent: Some(at), depth: reached, state });
            }
        }
    }
    tree.nodes.push(node);
}
