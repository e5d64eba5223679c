//! A pattern as an ordered NFA over classes of characters.
//!
//! A *thread* is a leaf of the pattern that is to be tried next; an ordered list of threads is everything a backtracking
//! matcher could still do, most preferred first. Lookahead is a thread of its own: it waits until the next character
//! (or the end) is known, see [`Program::resolve`].

use super::classes::{Class, Classes};
use super::pattern::Node;

/// A thread: the index of a leaf.
pub type Thread = u16;

#[derive(Debug, Clone)]
enum Leaf {
    /// Reads one character of these classes.
    Read(Vec<bool>),
    /// Looks at the next character: its class must be among these; `end`: the end of the input will do.
    Look {
        classes: Vec<bool>,
        end: bool,
    },
    Match,
}

/// A compiled pattern.
#[derive(Debug)]
pub struct Program {
    leaves: Vec<Leaf>,
    /// For each leaf the threads that follow it, most preferred first.
    follow: Vec<Vec<Thread>>,
    start: Vec<Thread>,
}

/// What the threads of a list amount to once the next character (or the end) is known.
#[derive(Debug, Default, Clone)]
pub struct Resolved {
    /// Threads that go on reading and are preferred to the match (all of them if there is none).
    pub reading: Vec<Thread>,
    /// Whether a match ends here.
    pub matched: bool,
}

impl Program {
    /// `classes` must tell the pattern's sets apart. Fails for a pattern that is too long.
    pub fn compile(node: &Node, classes: &Classes) -> Result<Self, String> {
        let mut builder = Builder { classes, instructions: Vec::new() };
        builder.emit(node);
        builder.instructions.push(Instruction::Leaf(Leaf::Match));
        if builder.instructions.len() > usize::from(Thread::MAX) {
            return Err("a pattern of more than 65535 instructions".into());
        }
        Ok(builder.finish())
    }

    /// The threads with which a match starts.
    pub fn start(&self) -> &[Thread] {
        &self.start
    }

    /// Settles lookahead with the next character's class (`None`: the end of the input), keeping the order. Threads
    /// below a match are dropped: a backtracking matcher would never come to them.
    pub fn resolve(&self, threads: &[Thread], next: Option<Class>) -> Resolved {
        let mut seen = vec![false; self.leaves.len()];
        let mut out = Resolved::default();
        self.resolve_into(threads, next, &mut seen, &mut out);
        out
    }

    fn resolve_into(&self, threads: &[Thread], next: Option<Class>, seen: &mut [bool], out: &mut Resolved) {
        for &thread in threads {
            if out.matched || std::mem::replace(&mut seen[thread as usize], true) {
                continue;
            }
            match &self.leaves[thread as usize] {
                Leaf::Match => out.matched = true,
                Leaf::Read(_) => out.reading.push(thread),
                Leaf::Look { classes, end } => {
                    if next.map_or(*end, |class| classes[class as usize]) {
                        self.resolve_into(&self.follow[thread as usize], next, seen, out);
                    }
                }
            }
        }
    }

    /// The threads after `reading` have read a character of `class`, in order, without repetition.
    pub fn read(&self, reading: &[Thread], class: Class) -> Vec<Thread> {
        let mut seen = vec![false; self.leaves.len()];
        let mut out = Vec::new();
        for &thread in reading {
            let Leaf::Read(classes) = &self.leaves[thread as usize] else { continue };
            if !classes[class as usize] {
                continue;
            }
            for &next in &self.follow[thread as usize] {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    out.push(next);
                }
            }
        }
        self.cut_below_match(&mut out);
        out
    }

    /// Whether a match is certain to end here, whatever comes next.
    pub fn surely_matches(&self, threads: &[Thread]) -> bool {
        threads.iter().any(|&t| matches!(self.leaves[t as usize], Leaf::Match))
    }

    fn cut_below_match(&self, threads: &mut Vec<Thread>) {
        if let Some(at) = threads.iter().position(|&t| matches!(self.leaves[t as usize], Leaf::Match)) {
            threads.truncate(at + 1);
        }
    }
}

enum Instruction {
    Leaf(Leaf),
    /// Try the first, then the second.
    Split(usize, usize),
    Jump(usize),
}

struct Builder<'a> {
    classes: &'a Classes,
    instructions: Vec<Instruction>,
}

impl Builder<'_> {
    fn emit(&mut self, node: &Node) {
        match node {
            Node::Class(set) => {
                let members = self.classes.members(set);
                self.instructions.push(Instruction::Leaf(Leaf::Read(members)));
            }
            Node::Lookahead { set, end } => {
                let classes = self.classes.members(set);
                self.instructions.push(Instruction::Leaf(Leaf::Look { classes, end: *end }));
            }
            Node::Concat(nodes) => nodes.iter().for_each(|n| self.emit(n)),
            Node::Alternation(nodes) => self.alternation(nodes),
            Node::Repeat { body, min, max } => {
                for _ in 0..*min {
                    self.emit(body);
                }
                match max {
                    None => self.star(body),
                    Some(max) => self.optional(body, max - min),
                }
            }
        }
    }

    fn alternation(&mut self, nodes: &[Node]) {
        let mut jumps = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            let split = self.instructions.len();
            if i + 1 < nodes.len() {
                self.instructions.push(Instruction::Split(split + 1, 0));
            }
            self.emit(node);
            if i + 1 < nodes.len() {
                jumps.push(self.instructions.len());
                self.instructions.push(Instruction::Jump(0));
                let next = self.instructions.len();
                self.instructions[split] = Instruction::Split(split + 1, next);
            }
        }
        let end = self.instructions.len();
        for jump in jumps {
            self.instructions[jump] = Instruction::Jump(end);
        }
    }

    fn star(&mut self, body: &Node) {
        let split = self.instructions.len();
        self.instructions.push(Instruction::Split(split + 1, 0));
        self.emit(body);
        self.instructions.push(Instruction::Jump(split));
        let end = self.instructions.len();
        self.instructions[split] = Instruction::Split(split + 1, end);
    }

    /// Up to `times` more: (body (body …)?)?
    fn optional(&mut self, body: &Node, times: u32) {
        let mut splits = Vec::new();
        for _ in 0..times {
            splits.push(self.instructions.len());
            self.instructions.push(Instruction::Split(0, 0));
            self.emit(body);
        }
        let end = self.instructions.len();
        for split in splits {
            self.instructions[split] = Instruction::Split(split + 1, end);
        }
    }

    fn finish(self) -> Program {
        let mut number = vec![Thread::MAX; self.instructions.len()];
        let mut leaves = Vec::new();
        for (at, instruction) in self.instructions.iter().enumerate() {
            if let Instruction::Leaf(leaf) = instruction {
                number[at] = leaves.len() as Thread;
                leaves.push(leaf.clone());
            }
        }
        let closure = |from: usize| {
            let mut out = Vec::new();
            let mut seen = vec![false; self.instructions.len()];
            let mut stack = vec![from];
            while let Some(at) = stack.pop() {
                if at >= self.instructions.len() || std::mem::replace(&mut seen[at], true) {
                    continue;
                }
                match self.instructions[at] {
                    Instruction::Leaf(_) => out.push(number[at]),
                    Instruction::Jump(to) => stack.push(to),
                    Instruction::Split(first, second) => stack.extend([second, first]),
                }
            }
            out
        };
        let follow = (0..self.instructions.len())
            .filter(|&at| matches!(self.instructions[at], Instruction::Leaf(_)))
            .map(|at| closure(at + 1))
            .collect();
        let start = closure(0);
        Program { leaves, follow, start }
    }
}
