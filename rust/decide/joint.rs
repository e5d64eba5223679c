//! Whether some text goes on after a teacher prefix and after a student prefix alike: what decides, exactly.
//!
//! Both sides read byte by byte, each as in `side`: a canonical prefix, and bytes that a canonical token goes on from. A pair of
//! readings is feasible if some bytes lead both to a place where the text may end. Such bytes are searched depth first;
//! nearly always the first way tried leads to an end.

use rustc_hash::{FxHashMap, FxHashSet};

use super::side::{Item, Items, Side, States};
use crate::trie::Trie;

/// Steps by one byte that one question may take. A question that needs more is given up.
pub const BUDGET: usize = 1 << 10;

type Pair = (Item, Item);

/// Answers so far, `None` for a search that was given up. Searches do not use what others found: where one is given up must
/// not depend on what was asked before it.
#[derive(Debug, Default)]
pub struct Joint {
    known: FxHashMap<Pair, Option<bool>>,
}

/// Both sides, as the search needs them.
pub struct Sides<'a> {
    pub teacher: (&'a Side, &'a mut States),
    pub student: (&'a Side, &'a mut States),
    /// Steps that one search may take.
    pub budget: usize,
}

impl Joint {
    /// Whether some text continues both readings of the same bytes; `None` where the search was given up.
    pub fn feasible(&mut self, sides: &mut Sides<'_>, teacher: Item, student: Item) -> Option<bool> {
        let start = (Item { label: 0, ..teacher }, Item { label: 0, ..student });
        if sides.complete(start) {
            return Some(true);
        }
        if let Some(&known) = self.known.get(&start) {
            return known;
        }
        let found = search(sides, start);
        self.known.insert(start, found);
        found
    }

    /// About how many bytes the answers take.
    pub fn size(&self) -> usize {
        self.known.len() * 40
    }
}

fn search(sides: &mut Sides<'_>, start: Pair) -> Option<bool> {
    let mut seen = FxHashSet::from_iter([start]);
    let mut open = vec![start];
    let mut steps = 0;
    while let Some(pair @ (teacher, student)) = open.pop() {
        let (side, theirs) = (sides.teacher.0, sides.student.0);
        for (byte, _) in side.trie.children(teacher.at) {
            if theirs.trie.child(student.at, byte).is_none() {
                continue;
            }
            steps += 1;
            if steps > sides.budget {
                return None;
            }
            let (ours, theirs) = sides.feed(pair, byte);
            for pair in ours.iter().flat_map(|&t| theirs.iter().map(move |&s| (t, s))) {
                if sides.complete(pair) {
                    return Some(true);
                }
                if seen.insert(pair) {
                    open.push(pair);
                }
            }
        }
    }
    Some(false)
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
