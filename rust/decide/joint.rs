//! Whether some text goes on after a teacher prefix and after a student prefix alike: what decides, exactly.
//!
//! Both sides read byte by byte, each as in `side`: a canonical prefix, and bytes that a canonical token goes on from. A pair of
//! readings is feasible if some bytes lead both to a place where the text may end. Such bytes are searched depth first;
//! nearly always the first way tried leads to an end.

use rustc_hash::{FxHashMap, FxHashSet};

use super::side::{Item, Items, Side, States};
use crate::trie::Trie;

/// Pairs of readings that one question may look at. A question that needs more is left open, which no bound minds.
const BUDGET: usize = 1 << 14;

type Pair = (Item, Item);

/// Answers so far.
#[derive(Debug, Default)]
pub struct Joint {
    known: FxHashMap<Pair, bool>,
}

/// Both sides, as the search needs them.
pub struct Sides<'a> {
    pub teacher: (&'a Side, &'a mut States),
    pub student: (&'a Side, &'a mut States),
}

impl Joint {
    /// Whether some text continues both readings of the same bytes; `None` where the search was given up.
    pub fn feasible(&mut self, sides: &mut Sides<'_>, teacher: Item, student: Item) -> Option<bool> {
        let start = (Item { label: 0, ..teacher }, Item { label: 0, ..student });
        if sides.complete(start) {
            return Some(true);
        }
        if let Some(&known) = self.known.get(&start) {
            return Some(known);
        }
        let mut seen = FxHashSet::from_iter([start]);
        let mut open = vec![start];
        while let Some(pair) = open.pop() {
            let found = self.look_around(sides, pair, &mut seen, &mut open);
            if found {
                self.known.insert(start, true);
                return Some(true);
            }
            if seen.len() > BUDGET {
                return None;
            }
        }
        // Nothing that was seen leads to an end.
        self.known.extend(seen.into_iter().map(|pair| (pair, false)));
        Some(false)
    }

    /// Tries every next byte; whether one leads to an end.
    fn look_around(
        &self,
        sides: &mut Sides<'_>,
        (teacher, student): Pair,
        seen: &mut FxHashSet<Pair>,
        open: &mut Vec<Pair>,
    ) -> bool {
        let (side, theirs) = (sides.teacher.0, sides.student.0);
        for (byte, _) in side.trie.children(teacher.at) {
            if theirs.trie.child(student.at, byte).is_none() {
                continue;
            }
            let (ours, theirs) = sides.feed((teacher, student), byte);
            for pair in ours.iter().flat_map(|&t| theirs.iter().map(move |&s| (t, s))) {
                match self.known.get(&pair) {
                    Some(true) => return true,
                    Some(false) => continue,
                    None if sides.complete(pair) => return true,
                    None => {}
                }
                if seen.insert(pair) {
                    open.push(pair);
                }
            }
        }
        false
    }

    /// About how many bytes the answers take.
    pub fn size(&self) -> usize {
        self.known.len() * 40
    }
}

impl Sides<'_> {
    fn feed(&mut self, (teacher, student): Pair, byte: u8) -> (Items, Items) {
        let (mut ours, mut theirs) = (Items::new(), Items::new());
        self.teacher.1.feed(self.teacher.0, teacher, byte, &mut ours, |label, _| label);
        if !ours.is_empty() {
            self.student.1.feed(self.student.0, student, byte, &mut theirs, |label, _| label);
        }
        (ours, theirs)
    }

    fn complete(&self, (teacher, student): Pair) -> bool {
        let ends = |states: &States, item: Item| item.at == Trie::ROOT && states.complete(item.state);
        ends(self.teacher.1, teacher) && ends(self.student.1, student)
    }
}
