//! Added tokens in a text whose end is not known: the leftmost-longest search made incremental.
//!
//! A token sequence *claims* where matches are: at its added tokens and nowhere else. The search itself is deterministic, but it
//! reports a match only when no longer one can come. What it has not reported yet is the pending text, a path in the trie of
//! contents; claims inside it wait to be confirmed. Special tokens are found and consume their text, but claim nothing.

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::added::Stage;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Longer contents are refused: the search below goes as deep as they are long.
const MAX_CONTENT: usize = 1024;

/// A match that the token sequence asserts: bytes `start..end` of the pending text are the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Claim {
    start: u32,
    end: u32,
    pattern: u32,
}

/// The pending text (as a node of the trie) and the claims about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Pending {
    node: u32,
    claims: SmallVec<[Claim; 1]>,
}

/// Both searches: on the text, and on the pieces between matches of the first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AddedState {
    raw: Pending,
    normalized: Pending,
}

impl AddedState {
    /// Nothing is pending: text to come is searched as if it were the start of a text.
    pub fn is_clear(&self) -> bool {
        self.raw.node == 0
            && self.normalized.node == 0
            && self.raw.claims.is_empty()
            && self.normalized.claims.is_empty()
    }
}

/// The two searches of a tokenizer, over text whose end is open.
#[derive(Debug)]
pub struct AddedAutomaton {
    raw: Matcher,
    normalized: Matcher,
}

impl AddedAutomaton {
    /// `None` where no text is ever changed by matching.
    pub fn new(tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let added = &tokenizer.added;
        if !added.has_effect() {
            return Ok(None);
        }
        let patterns = added.raw.patterns.iter().chain(&added.normalized.patterns);
        if let Some(long) = patterns.map(|p| p.content.len()).find(|&length| length > MAX_CONTENT) {
            let reason = format!("a content of {long} bytes (at most {MAX_CONTENT})");
            return Err(Error::unsupported("added_tokens", reason));
        }
        Ok(Some(Self { raw: Matcher::new(&added.raw), normalized: Matcher::new(&added.normalized) }))
    }

    /// Reads bytes of ordinary tokens; `false` if an added token is certain to be matched where none is claimed.
    pub fn read(&self, state: &mut AddedState, bytes: &[u8]) -> bool {
        bytes.iter().all(|&b| self.raw.feed(&mut state.raw, b) && self.normalized.feed(&mut state.normalized, b))
    }

    /// Claims that the added token `id` is matched here.
    pub fn claim(&self, state: &mut AddedState, id: u32) -> bool {
        if let Some(&pattern) = self.raw.of_token.get(&id) {
            // The second search sees only what the first leaves between its matches.
            return self.normalized.finish(&state.normalized)
                && {
                    state.normalized = Pending::default();
                    true
                }
                && self.raw.claim(&mut state.raw, pattern);
        }
        let Some(&pattern) = self.normalized.of_token.get(&id) else { return false };
        let bytes = &self.normalized.contents[pattern as usize];
        self.normalized.claim(&mut state.normalized, pattern) && bytes.iter().all(|&b| self.raw.feed(&mut state.raw, b))
    }

    /// Whether all claims come true, and no more, if the text ends here.
    pub fn complete(&self, state: &AddedState) -> bool {
        self.raw.finish(&state.raw) && self.normalized.finish(&state.normalized)
    }

    /// What could follow the pending text and complete a match that begins inside it. A token that starts with one of these
    /// must be looked at; all others fare as if nothing were pending, if the text could end here.
    pub fn dangers(&self, state: &AddedState) -> Vec<Vec<u8>> {
        let mut out = self.raw.dangers(&state.raw);
        out.extend(self.normalized.dangers(&state.normalized));
        out.sort_unstable();
        out.dedup();
        out
    }
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, u32)>,
    pattern: Option<u32>,
    /// The longest pattern that ends here or above.
    found: Option<u32>,
    /// A special pattern ends here or below.
    special: bool,
    depth: u32,
}

/// One search.
#[derive(Debug)]
struct Matcher {
    nodes: Vec<Node>,
    /// Bytes of the path to each node's end, by pattern: any pattern through the node.
    through: Vec<u32>,
    contents: Vec<Vec<u8>>,
    special: Vec<bool>,
    of_token: FxHashMap<u32, u32>,
}

impl Matcher {
    fn new(stage: &Stage) -> Self {
        let mut all = Self {
            nodes: vec![Node::default()],
            through: vec![0],
            contents: stage.patterns.iter().map(|p| p.content.clone()).collect(),
            special: stage.patterns.iter().map(|p| p.special).collect(),
            of_token: FxHashMap::default(),
        };
        for (i, pattern) in stage.patterns.iter().enumerate() {
            if !pattern.special {
                all.of_token.insert(pattern.id, i as u32);
            }
            let mut node = 0;
            for &byte in &pattern.content {
                node = all.child_or_new(node, byte, i as u32);
            }
            all.nodes[node as usize].pattern = Some(i as u32);
            all.nodes[node as usize].special = pattern.special;
        }
        all.look_along_paths();
        all
    }

    /// Fills in what nodes know of those above and below. Children come after their parents.
    fn look_along_paths(&mut self) {
        for at in 0..self.nodes.len() {
            let found = self.nodes[at].pattern.or(self.nodes[at].found);
            self.nodes[at].found = found;
            for i in 0..self.nodes[at].children.len() {
                let child = self.nodes[at].children[i].1 as usize;
                self.nodes[child].found = found;
            }
        }
        for at in (0..self.nodes.len()).rev() {
            self.nodes[at].special |=
                self.nodes[at].children.iter().any(|(_, child)| self.nodes[*child as usize].special);
        }
    }

    fn child_or_new(&mut self, node: u32, byte: u8, pattern: u32) -> u32 {
        if let Some(child) = self.child(node, byte) {
            return child;
        }
        let fresh = self.nodes.len() as u32;
        let depth = self.nodes[node as usize].depth + 1;
        self.nodes.push(Node { depth, ..Node::default() });
        self.through.push(pattern);
        self.nodes[node as usize].children.push((byte, fresh));
        fresh
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        self.nodes[node as usize].children.iter().find(|(b, _)| *b == byte).map(|(_, child)| *child)
    }

    /// The pending bytes.
    fn text(&self, node: u32) -> &[u8] {
        let depth = self.nodes[node as usize].depth as usize;
        if depth == 0 { &[] } else { &self.contents[self.through[node as usize] as usize][..depth] }
    }

    /// Reads one byte. `false`: a claim is refuted, or a match is found that nothing claims.
    fn feed(&self, pending: &mut Pending, byte: u8) -> bool {
        if let Some(child) = self.child(pending.node, byte) {
            pending.node = child;
            return !self.refuted(pending);
        }
        if pending.node == 0 {
            // The byte is passed: no claim may begin with it.
            return shift(&mut pending.claims, 1);
        }
        let Some(rest) = self.settle(pending) else { return false };
        pending.node = 0;
        rest.iter().all(|&b| self.feed(pending, b)) && self.feed(pending, byte)
    }

    /// Whether a match that is certain contradicts the claims, however long it becomes. (Told early: there may be many ways to
    /// go on, as with Gemma 3's runs of newlines, and all of them in vain.)
    fn refuted(&self, pending: &Pending) -> bool {
        let node = &self.nodes[pending.node as usize];
        let Some(found) = node.found else { return false };
        let length = self.contents[found as usize].len() as u32;
        let inside = |c: &Claim| c.start < length && (c.start > 0 || c.end < length);
        let at_front = pending.claims.iter().any(|c| c.start == 0);
        pending.claims.iter().any(inside) || !(at_front || self.special[found as usize] || node.special)
    }

    /// Settles what begins at the front of the pending text, knowing that it does not go on; gives the bytes behind it.
    fn settle(&self, pending: &mut Pending) -> Option<Vec<u8>> {
        let text = self.text(pending.node);
        let (length, found) = self.longest(text);
        if let Some(pattern) = found.filter(|&p| !self.special[p as usize]) {
            let claim = Claim { start: 0, end: length, pattern };
            let at = pending.claims.iter().position(|c| *c == claim)?;
            pending.claims.remove(at);
        }
        shift(&mut pending.claims, length).then(|| text[length as usize..].to_vec())
    }

    /// The longest pattern at the front of `text`, or one byte of no pattern.
    fn longest(&self, text: &[u8]) -> (u32, Option<u32>) {
        let (mut node, mut best) = (0, (1, None));
        for &byte in text {
            let Some(child) = self.child(node, byte) else { break };
            node = child;
            if let Some(pattern) = self.nodes[node as usize].pattern {
                best = (self.nodes[node as usize].depth, Some(pattern));
            }
        }
        best
    }

    fn claim(&self, pending: &mut Pending, pattern: u32) -> bool {
        let content = &self.contents[pattern as usize];
        let start = self.nodes[pending.node as usize].depth;
        pending.claims.push(Claim { start, end: start + content.len() as u32, pattern });
        content.iter().all(|&b| self.feed(pending, b))
    }

    fn finish(&self, pending: &Pending) -> bool {
        let mut pending = pending.clone();
        while pending.node != 0 {
            let Some(rest) = self.settle(&mut pending) else { return false };
            pending.node = 0;
            if !rest.iter().all(|&b| self.feed(&mut pending, b)) {
                return false;
            }
        }
        pending.claims.is_empty()
    }

    fn dangers(&self, pending: &Pending) -> Vec<Vec<u8>> {
        let text = self.text(pending.node);
        let mut out = Vec::new();
        for from in 0..text.len() {
            let mut node = Some(0);
            for &byte in &text[from..] {
                node = node.and_then(|n| self.child(n, byte));
            }
            if let Some(node) = node {
                self.endings(node, &mut out);
            }
        }
        out
    }

    /// All ways from `node` down to a pattern's end.
    fn endings(&self, node: u32, out: &mut Vec<Vec<u8>>) {
        let mut open = vec![(node, Vec::new())];
        while let Some((node, path)) = open.pop() {
            for &(byte, child) in &self.nodes[node as usize].children {
                let path: Vec<u8> = path.iter().copied().chain([byte]).collect();
                if self.nodes[child as usize].pattern.is_some() {
                    out.push(path.clone());
                }
                open.push((child, path));
            }
        }
    }
}

/// Drops `by` bytes from the front of the pending text. `false` if a claim begins in them: it has not come true.
fn shift(claims: &mut SmallVec<[Claim; 1]>, by: u32) -> bool {
    if claims.iter().any(|c| c.start < by) {
        return false;
    }
    for claim in claims.iter_mut() {
        claim.start -= by;
        claim.end -= by;
    }
    true
}
