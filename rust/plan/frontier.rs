//! The tree of canonical prefixes along one text in the general regime, and what each row says about each student prefix.
//!
//! Nodes end at any byte. From a node before the end of s_1..s_i the tokens that reach it *cross*; a node at or behind that end
//! that leaves s_1..s_i undecided is a *whole* row for i: all its tokens are looked at. So the rows along the text decide
//! what they can, and nothing is counted twice.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Purpose;
use super::line::Line;
use crate::decide::context::{OUTSIDE, Verdict};
use crate::decide::kinds::Kind;
use crate::decide::{Decisions, Work};
use crate::trie::Trie;

/// A canonical prefix along the text.
#[derive(Debug)]
pub struct Node {
    /// Its last token's place in the byte order, and the node without it; none at the root.
    pub place: Option<u32>,
    pub parent: Option<usize>,
    /// Bytes of the text.
    pub end: usize,
    /// Its number.
    pub state: u32,
    /// Student prefixes that tokens after it may reach, with the node of the trie that leads there.
    pub crossing: SmallVec<[(usize, u32); 2]>,
}

/// Tokens at places `first..last` after `node` have a kind for s_1..s_depth.
#[derive(Debug, Clone)]
pub struct Part {
    pub node: usize,
    pub first: u32,
    pub last: u32,
    pub depth: usize,
    pub kind: Kind,
}

/// A row that is looked at whole for s_1..s_depth; `end`: the text ended there starts with it.
#[derive(Debug, Clone)]
pub struct Whole {
    pub node: usize,
    pub depth: usize,
    pub end: bool,
}

/// Nodes, parents first; parts and wholes by node, then depth.
#[derive(Debug, Default)]
pub struct Frontier {
    pub nodes: Vec<Node>,
    pub parts: Vec<Part>,
    pub wholes: Vec<Whole>,
}

/// A text with what is known of it while it is planned.
pub struct Grower<'a> {
    pub shared: &'a Decisions,
    pub work: &'a mut Work,
    pub line: &'a Line,
    /// Contexts at the ends of s_1..s_i.
    pub contexts: Vec<u32>,
}

impl<'a> Grower<'a> {
    pub fn new(shared: &'a Decisions, work: &'a mut Work, line: &'a Line) -> Self {
        let mut contexts = vec![work.contexts.start(&shared.student, line.start)];
        for &id in &line.ids {
            let last = contexts[contexts.len() - 1];
            contexts.push(work.contexts.advance(&shared.student, last, id));
        }
        Self { shared, work, line, contexts }
    }

    /// The tree, without nodes that say nothing about any student prefix, or that the purpose has no use for.
    pub fn grow(&mut self, purpose: Purpose) -> Frontier {
        let all = self.all_nodes();
        let nodes = self.keep_needed(all, purpose);
        let open = self.undecided_nodes(&nodes);
        let mut frontier = Frontier { nodes, ..Frontier::default() };
        self.fill(&mut frontier, &open);
        frontier
    }

    /// Every canonical prefix along the text.
    fn all_nodes(&mut self) -> Vec<Node> {
        let (side, line) = (&self.shared.teacher, self.line);
        let root = side.tables.canonical.start(line.start);
        let state = self.work.states.number(side, root);
        let mut at_byte: Vec<Vec<Node>> = (0..=line.bytes.len()).map(|_| Vec::new()).collect();
        at_byte[0].push(Node { place: None, parent: None, end: 0, state, crossing: SmallVec::new() });
        let mut nodes: Vec<Node> = Vec::new();
        for byte in 0..=line.bytes.len() {
            for mut node in std::mem::take(&mut at_byte[byte]) {
                let mut at = Trie::ROOT;
                for (step, &next) in line.bytes[byte..].iter().enumerate() {
                    let Some(next) = side.trie.child(at, next) else { break };
                    let end = byte + step + 1;
                    at = next;
                    let here = side.trie.node(at);
                    for place in here.first..here.exact {
                        if let Some(state) = self.work.states.push(side, node.state, side.token(place)) {
                            let (place, parent) = (Some(place), Some(nodes.len()));
                            at_byte[end].push(Node { place, parent, end, state, crossing: SmallVec::new() });
                        }
                    }
                    node.crossing.extend(self.depths_at(end).map(|depth| (depth, at)));
                }
                nodes.push(node);
            }
        }
        nodes
    }

    /// The student prefixes that end at a byte, the empty one aside.
    fn depths_at(&self, byte: usize) -> std::ops::Range<usize> {
        let first = self.line.ends.partition_point(|&end| end < byte);
        first.max(1)..self.line.ends.partition_point(|&end| end <= byte).max(1)
    }

    /// Leaves out nodes that lead nowhere.
    fn keep_needed(&mut self, nodes: Vec<Node>, purpose: Purpose) -> Vec<Node> {
        let mut needed = vec![false; nodes.len()];
        for (at, node) in nodes.iter().enumerate().rev() {
            let at_end = node.end == self.line.bytes.len();
            let last = at_end && (purpose.every_node || purpose.end_rows && self.work.states.complete(node.state));
            let between = purpose.boundaries && self.line.ends.binary_search(&node.end).is_ok();
            needed[at] |= node.parent.is_none() || last || between || self.crosses(node);
            if let Some(parent) = node.parent.filter(|_| needed[at]) {
                needed[parent] = true;
            }
        }
        let mut number = vec![0; nodes.len()];
        let mut kept: Vec<Node> = Vec::with_capacity(nodes.len() / 2);
        for (at, node) in nodes.into_iter().enumerate().filter(|(at, _)| needed[*at]) {
            number[at] = kept.len();
            kept.push(Node { parent: node.parent.map(|parent| number[parent]), ..node });
        }
        kept
    }

    /// Whether some canonical token reaches the next student prefix without deciding against it.
    fn crosses(&mut self, node: &Node) -> bool {
        let Some(&(depth, at)) = node.crossing.first() else { return false };
        let runs = self.work.kinds(self.shared, node.state, self.contexts[depth], at, false);
        let (masks, state) = (&self.shared.teacher.tables.masks, self.work.states.get(node.state));
        runs.iter().any(|run| masks.any(state, run.first as usize, run.last as usize))
    }

    /// What nodes say about the student prefixes that they have reached and that the student's side alone leaves undecided,
    /// decided by both sides; behind a node that is not open nothing is asked, and of one that was given up nothing is said.
    fn undecided_nodes(&mut self, nodes: &[Node]) -> Vec<Vec<Reached>> {
        let mut reached: Vec<Vec<Reached>> = vec![Vec::new(); nodes.len()];
        let first_at = |byte: usize| nodes.partition_point(|node| node.end < byte);
        for depth in 1..self.contexts.len() {
            let mut context = self.contexts[depth];
            let begin = self.line.ends[depth];
            let mut byte = begin;
            let mut at = first_at(byte);
            while self.work.contexts.verdict(context) == Verdict::Open {
                while at < nodes.len() && nodes[at].end == byte {
                    let is_open = |before: &Reached| before.depth == depth && before.verdict == Verdict::Open;
                    let parent = nodes[at].parent.filter(|&parent| nodes[parent].end >= begin);
                    if parent.is_none_or(|parent| reached[parent].iter().any(is_open)) {
                        let verdict = self.work.decide(self.shared, nodes[at].state, context);
                        // What may be in must not be replaced by its row; it is listed as the student's side has it.
                        if verdict != Verdict::GivenUp {
                            reached[at].push(Reached { depth, context, verdict });
                        }
                    }
                    at += 1;
                }
                let Some(&next) = self.line.bytes.get(byte) else { break };
                context = self.work.contexts.feed(&self.shared.student, context, next);
                byte += 1;
            }
        }
        reached
    }

    /// Parts and wholes of all nodes.
    fn fill(&mut self, frontier: &mut Frontier, reached: &[Vec<Reached>]) {
        let nodes = &frontier.nodes;
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            if let Some(parent) = node.parent.filter(|_| !reached[at].is_empty()) {
                children[parent].push(at);
            }
        }
        for at in 0..nodes.len() {
            let settled = |depth: usize| -> Settled {
                let verdict = |child: usize| reached[child].iter().find(|r| r.depth == depth).map(|r| r.verdict);
                children[at].iter().filter_map(|&child| Some((nodes[child].place?, verdict(child)?))).collect()
            };
            for &Reached { depth, context, .. } in reached[at].iter().filter(|r| r.verdict == Verdict::Open) {
                let end = self.work.contexts.closing(context).is_some_and(|label| label != OUTSIDE);
                frontier.wholes.push(Whole { node: at, depth, end });
                let target = Target { node: at, depth, state: nodes[at].state, whole: true };
                self.parts(&target, context, Trie::ROOT, &settled(depth), &mut frontier.parts);
            }
            for &(depth, place) in &nodes[at].crossing {
                let target = Target { node: at, depth, state: nodes[at].state, whole: false };
                self.parts(&target, self.contexts[depth], place, &settled(depth), &mut frontier.parts);
            }
        }
    }

    /// The parts of one row for one student prefix, with what is known of some tokens: those left open have rows of their own.
    pub fn parts(&mut self, target: &Target, context: u32, at: u32, settled: &Settled, out: &mut Vec<Part>) {
        let (node, depth) = (target.node, target.depth);
        let unlisted = if target.whole { Kind::In } else { Kind::Out };
        for run in self.work.kinds(self.shared, target.state, context, at, target.whole).iter() {
            let mut inside: Vec<u32> = settled.keys().copied().filter(|p| (run.first..run.last).contains(p)).collect();
            inside.sort_unstable();
            let mut first = run.first;
            for place in inside {
                let kind = if settled[&place] == Verdict::In { Kind::In } else { Kind::Out };
                out.extend((first < place).then_some(Part { node, first, last: place, depth, kind: run.kind }));
                out.extend((kind != unlisted).then_some(Part { node, first: place, last: place + 1, depth, kind }));
                first = place + 1;
            }
            out.extend((first < run.last).then_some(Part { node, first, last: run.last, depth, kind: run.kind }));
        }
    }
}

/// What a node says about s_1..s_depth, which its bytes have reached.
#[derive(Debug, Clone, Copy)]
struct Reached {
    depth: usize,
    context: u32,
    verdict: Verdict,
}

/// Places of tokens that are decided, or (`Open`) looked at elsewhere.
pub type Settled = FxHashMap<u32, Verdict>;

/// A row and the student prefix that it is looked at for.
pub struct Target {
    pub node: usize,
    pub depth: usize,
    pub state: u32,
    pub whole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::SharedTokenizer;
    use crate::tokenizer::Tokenizer;
    use serde_json::{Value, json};

    const WORDS: [&str; 4] = ["a", "b", "c", "ab"];
    const PURPOSE: Purpose = Purpose { start: false, every_node: false, boundaries: false, end_rows: true };

    fn tokenizer(merges: &Value) -> SharedTokenizer {
        let file = json!({
            "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": merges},
        });
        SharedTokenizer::new(Tokenizer::from_json(file.to_string().as_bytes()).expect("a tokenizer"))
    }

    /// Of a·c in student tokens: what the parts say of [a] after the root, for the first student token, and the nodes whose
    /// rows are whole. The student merges a·b; whether the teacher does is the question.
    fn first_token(teacher: &Value, budget: usize) -> (Vec<Kind>, Vec<usize>) {
        let (teacher, student) = (tokenizer(teacher), tokenizer(&json!([["a", "b"]])));
        let shared = Decisions::new(&teacher, &student).expect("both can be decided about").with_budget(budget);
        let line = Line::new(&teacher.tokenizer, &student.tokenizer, &[0, 2], false);
        let grown = shared.with(|work| Grower::new(&shared, work, &line).grow(PURPOSE));
        let of_a = |part: &&Part| {
            let mut tokens = (part.first..part.last).map(|place| WORDS[shared.teacher.token(place) as usize]);
            (part.node, part.depth) == (0, 1) && tokens.any(|token| token == "a")
        };
        let kinds = grown.parts.iter().filter(of_a).map(|part| part.kind).collect();
        (kinds, grown.wholes.iter().map(|whole| whole.node).collect())
    }

    #[test]
    fn what_was_given_up_is_not_replaced_by_its_row() {
        let merges = json!([["a", "b"]]);
        assert_eq!(first_token(&merges, 1 << 10), (vec![Kind::In], vec![]));
        assert_eq!(first_token(&merges, 0), (vec![Kind::Likely], vec![]));
    }

    #[test]
    fn what_is_known_not_to_be_in_is() {
        let none = json!([]);
        assert_eq!(first_token(&none, 1 << 10), (vec![], vec![1]));
        assert_eq!(first_token(&none, 1), (vec![], vec![1]));
    }
}
