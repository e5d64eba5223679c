//! A character of which only some bytes are known.

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
    pub const NONE: Self = Self { bytes: [0; 3], len: 0 };

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

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

#[cfg(test)]
mod tests {
    use super::*;

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
