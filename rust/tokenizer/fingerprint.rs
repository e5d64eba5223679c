//! A digest of everything that affects encoding, and of nothing else: it is taken from what was understood, so formatting,
//! order and defaults of the file do not matter, nor do decoder, post-processor, truncation and padding.

use super::{AddedPattern, Dummy, Symbols, TokenKind, Tokenizer};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Changes whenever the digest of an unchanged tokenizer does.
const VERSION: &[u8] = b"crosstok tokenizer 1";

impl Tokenizer {
    /// Hexadecimal SHA-256, computed on first use.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_make(|| {
            let mut hasher = Hasher(Sha256::new());
            hasher.bytes(VERSION);
            self.hash_vocabulary(&mut hasher);
            self.hash_merges(&mut hasher);
            self.hash_text_steps(&mut hasher);
            hasher.finish()
        })
    }

    fn hash_vocabulary(&self, hasher: &mut Hasher) {
        hasher.number(self.vocab_size as u32);
        for id in 0..self.vocab_size as u32 {
            let flags = kind_code(self.kind[id as usize])
                | u32::from(self.in_model(id)) << 4
                | u32::from(self.unspellable.contains(&id)) << 5;
            hasher.number(flags);
            hasher.bytes(self.bytes.get(id));
        }
        match &self.symbols {
            Symbols::Bytes { id_of_byte } => hasher.numbers(&id_of_byte[..]),
            Symbols::Chars { piece, fallback, marker } => {
                let mut pieces: Vec<_> = piece.iter().map(|(&c, &id)| (id, c)).collect();
                pieces.sort_unstable();
                hasher.number(pieces.len() as u32);
                for (id, c) in pieces {
                    hasher.number(id);
                    hasher.number(c as u32);
                }
                hasher.number(fallback.is_some().into());
                hasher.numbers(fallback.as_deref().map_or(&[], |table| &table[..]));
                hasher.number(marker.map_or(0, u32::from));
            }
        }
        hasher.number(self.ignore_merges.into());
    }

    /// Merges in order; the ranks themselves do not matter.
    fn hash_merges(&self, hasher: &mut Hasher) {
        let mut merges: Vec<_> = self.bpe.merges.iter().map(|(&(a, b), m)| (m.rank, a, b, m.product)).collect();
        merges.sort_unstable();
        hasher.number(merges.len() as u32);
        for (_, left, right, product) in merges {
            hasher.numbers(&[left, right, product]);
        }
    }

    fn hash_text_steps(&self, hasher: &mut Hasher) {
        let n = &self.normalizer;
        hasher.numbers(&[n.nfc, n.strip_left, n.strip_right, n.prepend].map(u32::from));
        hasher.number(n.replace.map_or(0, u32::from));
        hasher.number(match self.dummy {
            None => 0,
            Some(Dummy::Always) => 1,
            Some(Dummy::UnlessSpace) => 2,
        });
        hasher.number(self.layers.len() as u32);
        for pattern in &self.layers {
            hasher.bytes(pattern.as_bytes());
        }
        // Without an added token that is not special matching changes nothing.
        if self.added.has_effect() {
            hash_patterns(&self.added.raw.patterns, hasher);
            hash_patterns(&self.added.normalized.patterns, hasher);
        }
    }
}

fn hash_patterns(patterns: &[AddedPattern], hasher: &mut Hasher) {
    hasher.number(patterns.len() as u32);
    for pattern in patterns {
        hasher.number(pattern.id);
        hasher.number(pattern.special.into());
        hasher.bytes(&pattern.content);
    }
}

fn kind_code(kind: TokenKind) -> u32 {
    match kind {
        TokenKind::Missing => 0,
        TokenKind::Special => 1,
        TokenKind::Added => 2,
        TokenKind::Fallback => 3,
        TokenKind::Unk => 4,
        TokenKind::Normal => 5,
    }
}

/// Every item has its length or a fixed size, so that no two inputs run together.
struct Hasher(Sha256);

impl Hasher {
    fn number(&mut self, number: u32) {
        self.0.update(number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: &[u32]) {
        for &number in numbers {
            self.number(number);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u32);
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        self.0.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}
