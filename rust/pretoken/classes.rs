//! The finitely many classes of characters that a set of patterns can tell apart.

use regex_syntax::hir::ClassUnicode;
use rustc_hash::FxHashMap;

/// A class of characters, numbered from 0; `Classes::len()` of them.
pub type Class = u8;

/// A set of classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassSet([u64; 4]);

impl ClassSet {
    pub fn insert(&mut self, class: Class) {
        self.0[class as usize / 64] |= 1 << (class % 64);
    }

    pub fn contains(&self, class: Class) -> bool {
        self.0[class as usize / 64] >> (class % 64) & 1 == 1
    }

    pub fn unite(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
    }

    /// Whether the two have a class in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

impl FromIterator<Class> for ClassSet {
    fn from_iter<I: IntoIterator<Item = Class>>(classes: I) -> Self {
        let mut set = Self::default();
        classes.into_iter().for_each(|class| set.insert(class));
        set
    }
}

const PAGE: usize = 256;
const CODE_POINTS: usize = 0x11_0000;

/// Maps every character to its class by a two-level table.
#[derive(Debug)]
pub struct Classes {
    page_of: Vec<u16>,
    pages: Vec<[Class; PAGE]>,
    signatures: Vec<u128>,
    example: Vec<char>,
}

impl Classes {
    /// The coarsest partition in which every given set is a union of classes. At most 128 sets and 255 classes.
    pub fn new(sets: &[ClassUnicode]) -> Result<Self, String> {
        if sets.len() > 128 {
            return Err(format!("a pattern with {} character classes (at most 128)", sets.len()));
        }
        let mut signature = vec![0u128; CODE_POINTS];
        for (bit, set) in sets.iter().enumerate() {
            for range in set.ranges() {
                for slot in &mut signature[range.start() as usize..=range.end() as usize] {
                    *slot |= 1 << bit;
                }
            }
        }
        let mut number: FxHashMap<u128, Class> = FxHashMap::default();
        let (mut signatures, mut example) = (Vec::new(), Vec::new());
        let mut class_of = vec![0 as Class; CODE_POINTS];
        for (point, sig) in signature.iter().enumerate() {
            let Some(c) = char::from_u32(point as u32) else { continue };
            let next = signatures.len();
            let class = *number.entry(*sig).or_insert(next as Class);
            if class as usize == next {
                if next >= usize::from(Class::MAX) {
                    return Err("patterns that tell more than 255 classes of characters apart".into());
                }
                signatures.push(*sig);
                example.push(c);
            }
            class_of[point] = class;
        }
        let mut pages: Vec<[Class; PAGE]> = Vec::new();
        let mut seen: FxHashMap<[Class; PAGE], u16> = FxHashMap::default();
        let mut page_of = Vec::with_capacity(CODE_POINTS / PAGE);
        for chunk in class_of.as_chunks::<PAGE>().0 {
            let id = *seen.entry(*chunk).or_insert_with(|| {
                pages.push(*chunk);
                (pages.len() - 1) as u16
            });
            page_of.push(id);
        }
        Ok(Self { page_of, pages, signatures, example })
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.signatures.len()
    }

    pub fn is_empty(&self) -> bool {
        self.signatures.is_empty()
    }

    /// The class of a character.
    #[inline]
    pub fn of(&self, c: char) -> Class {
        let point = c as usize;
        self.pages[self.page_of[point / PAGE] as usize][point % PAGE]
    }

    /// For each class whether it lies in `set` (which must be one of the sets the partition was made from, or a union of classes).
    pub fn members(&self, set: &ClassUnicode) -> Vec<bool> {
        let inside = |c: char| set.ranges().iter().any(|r| r.start() <= c && c <= r.end());
        self.example.iter().map(|&c| inside(c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretoken::pattern;

    #[test]
    fn every_character_is_where_its_class_says() {
        let node = pattern::parse(r"[^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)").unwrap();
        let mut sets = Vec::new();
        node.collect_sets(&mut sets);
        let classes = Classes::new(&sets).unwrap();
        for set in &sets {
            let members = classes.members(set);
            for c in ('\0'..=char::MAX).step_by(7) {
                let inside = set.ranges().iter().any(|r| r.start() <= c && c <= r.end());
                assert_eq!(members[classes.of(c) as usize], inside, "{c:?}");
            }
        }
    }
}
