//! A character of which only some bytes are known.

use rustc_hash::FxHashMap;

use crate::pretoken::classes::{Class, ClassSet};

/// At most three bytes that begin a UTF-8 character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Partial {
    bytes: [u8; 3],
    len: u8,
}

/// What one more byte makes of a partial character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    More(Partial),
    Char(char),
    Invalid,
}

impl Partial {
    /// No byte: a character begins.
    pub const NONE: Self = Self { bytes: [0; 3], len: 0 };

    /// Whether a character begins.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The next byte of the character.
    pub fn feed(self, byte: u8) -> Fed {
        let mut all = [0; 4];
        all[..self.len as usize].copy_from_slice(&self.bytes[..self.len as usize]);
        all[self.len as usize] = byte;
        let all = &all[..=self.len as usize];
        match std::str::from_utf8(all) {
            Ok(text) => text.chars().next().map_or(Fed::Invalid, Fed::Char),
            // Nothing wrong so far, only unfinished.
            Err(error) if error.error_len().is_none() => {
                let mut bytes = [0; 3];
                bytes[..all.len()].copy_from_slice(all);
                Fed::More(Self { bytes, len: all.len() as u8 })
            }
            Err(_) => Fed::Invalid,
        }
    }
}

/// For every unfinished character the classes that it may still turn out to be of.
#[derive(Debug)]
pub struct Completions(FxHashMap<Partial, ClassSet>);

impl Completions {
    /// From the class of every character.
    pub fn new(class_of: impl Fn(char) -> Class) -> Self {
        let mut all: FxHashMap<Partial, ClassSet> = FxHashMap::default();
        // Characters that share all but their last byte: 64 in a row.
        for block in (0x80..0x11_0000).step_by(64) {
            let chars = (block..block + 64).filter_map(char::from_u32);
            let mut classes = ClassSet::default();
            chars.clone().for_each(|c| classes.insert(class_of(c)));
            let Some(first) = chars.clone().next() else { continue };
            let mut buffer = [0; 4];
            let bytes = first.encode_utf8(&mut buffer).as_bytes();
            let mut partial = Partial::NONE;
            for &byte in &bytes[..bytes.len() - 1] {
                if let Fed::More(next) = partial.feed(byte) {
                    partial = next;
                    all.entry(partial).or_default().unite(classes);
                }
            }
        }
        Self(all)
    }

    /// The classes that completing `partial` can give.
    pub fn classes(&self, partial: Partial) -> ClassSet {
        self.0.get(&partial).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_those_of_all_characters() {
        let class_of = |c: char| (c as u32 % 7) as Class;
        let completions = Completions::new(class_of);
        for c in ('\u{80}'..=char::MAX).step_by(13) {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            let mut partial = Partial::NONE;
            for &byte in &bytes[..bytes.len() - 1] {
                let Fed::More(next) = partial.feed(byte) else { panic!("{c:?}") };
                partial = next;
                assert!(completions.classes(partial).meets(&[class_of(c)].into_iter().collect()), "{c:?}");
            }
        }
        assert_eq!(Completions::new(|_| 3).classes(Partial { bytes: [0xE4, 0, 0], len: 1 }), [3].into_iter().collect());
    }

    #[test]
    fn every_character_is_read_and_nothing_else() {
        for c in ('\0'..=char::MAX).step_by(11) {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            let mut partial = Partial::NONE;
            for (at, &byte) in bytes.iter().enumerate() {
                match partial.feed(byte) {
                    Fed::More(next) => partial = next,
                    Fed::Char(read) => assert_eq!((read, at + 1), (c, bytes.len())),
                    Fed::Invalid => panic!("{c:?}"),
                }
            }
        }
        for bad in [&[0xFF][..], &[0x80], &[0xC0], &[0xE0, 0x80], &[0xED, 0xA0], &[0xF4, 0x90], &[0xC3, 0x41]] {
            let mut partial = Partial::NONE;
            let fed: Vec<_> = bad
                .iter()
                .map(|&b| {
                    let fed = partial.feed(b);
                    if let Fed::More(next) = fed {
                        partial = next;
                    }
                    fed
                })
                .collect();
            assert_eq!(fed.last(), Some(&Fed::Invalid), "{bad:x?}");
        }
    }
}
