//! Tokens as paths of bytes: what can be asked of a vocabulary byte by byte.

use std::ops::Range;

use crate::spelling::Spelling;

/// A byte trie over the places of a byte order ([`Spelling::in_bytes`]). Children of a node stand side by side.
#[derive(Debug)]
pub struct Trie {
    nodes: Vec<Node>,
    bytes: Vec<u8>,
}

/// Places `first..last` begin with the node's bytes; `first..exact` are no longer than that.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub first: u32,
    pub exact: u32,
    pub last: u32,
    children: u32,
    count: u16,
    /// Bytes from the root.
    pub depth: u16,
}

impl Trie {
    /// The empty path.
    pub const ROOT: u32 = 0;

    /// The trie of a vocabulary in byte order.
    pub fn new(spelling: &Spelling) -> Self {
        let root = Node { first: 0, exact: 0, last: spelling.tokens().len() as u32, children: 0, count: 0, depth: 0 };
        let mut trie = Self { nodes: vec![root], bytes: vec![0] };
        let mut at = 0;
        while at < trie.nodes.len() {
            trie.branch(spelling, at);
            at += 1;
        }
        trie
    }

    /// Adds the children of a node.
    fn branch(&mut self, spelling: &Spelling, at: usize) {
        let Node { first, last, depth, .. } = self.nodes[at];
        let deep = usize::from(depth);
        let byte = |place: u32| spelling.get(place as usize).get(deep).copied();
        let exact = (first..last).find(|&place| byte(place).is_some()).unwrap_or(last);
        let children = self.nodes.len() as u32;
        let mut from = exact;
        while from < last {
            let here = byte(from);
            let to = from + partition(last - from, |step| byte(from + step) == here);
            let child = Node { first: from, exact: from, last: to, children: 0, count: 0, depth: depth + 1 };
            self.nodes.push(child);
            self.bytes.push(here.unwrap_or(0) as u8);
            from = to;
        }
        let count = (self.nodes.len() as u32 - children) as u16;
        self.nodes[at] = Node { exact, children, count, ..self.nodes[at] };
    }

    /// The node of one more byte.
    #[inline]
    pub fn child(&self, at: u32, byte: u8) -> Option<u32> {
        let node = &self.nodes[at as usize];
        let bytes = &self.bytes[node.children as usize..node.children as usize + usize::from(node.count)];
        bytes.binary_search(&byte).ok().map(|i| node.children + i as u32)
    }

    /// What is known of a node.
    #[inline]
    pub fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    /// Children and the bytes that lead to them.
    pub fn children(&self, at: u32) -> impl Iterator<Item = (u8, u32)> + '_ {
        let node = self.nodes[at as usize];
        let range: Range<u32> = node.children..node.children + u32::from(node.count);
        range.map(|child| (self.bytes[child as usize], child))
    }

    /// Number of nodes; children come after their parents.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// How many of `0..len` come before the first for which `holds` is false; it must not become true again.
fn partition(len: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = u32::midpoint(low, high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
