//! The symbols that merging starts with, and the bytes of every token.

use super::json::Vocab;
use crate::error::{Error, Result};
use rustc_hash::FxHashMap;

/// Marks "no symbol" in the byte tables.
pub const NO_SYMBOL: u32 = u32::MAX;

/// From text to the ids that merging starts with.
#[derive(Debug)]
pub enum Symbols {
    /// Byte-level vocabulary: one symbol a byte.
    Bytes {
        /// Id of each byte's piece; [`NO_SYMBOL`] where the vocabulary lacks it.
        id_of_byte: Box<[u32; 256]>,
    },
    /// SentencePiece-style vocabulary: one symbol a character.
    Chars {
        /// Id of each character that has a piece.
        piece: FxHashMap<char, u32>,
        /// Ids of `<0xXX>`, used for all bytes of a character without a piece; [`NO_SYMBOL`] where one is missing.
        fallback: Option<Box<[u32; 256]>>,
        /// The character that stands for a space.
        marker: Option<char>,
    },
}

impl Symbols {
    /// The marker of a SentencePiece-style vocabulary.
    pub fn marker(&self) -> Option<char> {
        match self {
            Self::Bytes { .. } => None,
            Self::Chars { marker, .. } => *marker,
        }
    }

    /// Whether the vocabulary is byte-level.
    pub fn is_bytes(&self) -> bool {
        matches!(self, Self::Bytes { .. })
    }

    /// Whether a byte-level vocabulary has this byte.
    pub(crate) fn spells_byte(&self, byte: u8) -> bool {
        matches!(self, Self::Bytes { id_of_byte } if id_of_byte[usize::from(byte)] != NO_SYMBOL)
    }

    /// Symbols of a byte-level vocabulary.
    pub(super) fn byte_level(ids: &FxHashMap<&str, u32>) -> Self {
        let mut id_of_byte = Box::new([NO_SYMBOL; 256]);
        for byte in 0..=u8::MAX {
            let mut buffer = [0; 4];
            let piece: &str = super::alphabet::char_of(byte).encode_utf8(&mut buffer);
            if let Some(&id) = ids.get(piece) {
                id_of_byte[usize::from(byte)] = id;
            }
        }
        Self::Bytes { id_of_byte }
    }

    /// Symbols of a SentencePiece-style vocabulary.
    pub(super) fn chars(vocab: &Vocab<'_>, ids: &FxHashMap<&str, u32>, fallback: bool, marker: Option<char>) -> Self {
        let mut piece = FxHashMap::default();
        for (token, id) in &vocab.0 {
            let mut chars = token.chars();
            if let (Some(only), None) = (chars.next(), chars.next()) {
                piece.insert(only, *id);
            }
        }
        let fallback = fallback.then(|| {
            let mut table = Box::new([NO_SYMBOL; 256]);
            for byte in 0..=u8::MAX {
                if let Some(&id) = ids.get(format!("<0x{byte:02X}>").as_str()) {
                    table[usize::from(byte)] = id;
                }
            }
            table
        });
        Self::Chars { piece, fallback, marker }
    }

    /// Appends the symbols of a piece of normalized text. On failure gives the offset of the character (or byte)
    /// that has no symbol.
    pub(crate) fn spell(&self, piece: &str, out: &mut Vec<u32>) -> std::result::Result<(), usize> {
        match self {
            Self::Bytes { id_of_byte } => {
                out.extend(piece.bytes().map(|byte| id_of_byte[usize::from(byte)]));
                match piece.bytes().position(|byte| id_of_byte[usize::from(byte)] == NO_SYMBOL) {
                    Some(offset) => Err(offset),
                    None => Ok(()),
                }
            }
            Self::Chars { piece: pieces, fallback, .. } => {
                for (offset, c) in piece.char_indices() {
                    match pieces.get(&c) {
                        Some(&id) => out.push(id),
                        None if push_fallback(fallback.as_deref(), c, out) => {}
                        None => return Err(offset),
                    }
                }
                Ok(())
            }
        }
    }
}

/// Appends the fallback bytes of a character; all or nothing.
fn push_fallback(fallback: Option<&[u32; 256]>, c: char, out: &mut Vec<u32>) -> bool {
    let Some(table) = fallback else { return false };
    let mut buffer = [0; 4];
    let start = out.len();
    out.extend(c.encode_utf8(&mut buffer).bytes().map(|byte| table[usize::from(byte)]));
    let complete = !out[start..].contains(&NO_SYMBOL);
    if !complete {
        out.truncate(start);
    }
    complete
}

/// Bytes of all tokens in one buffer.
#[derive(Debug, Default)]
pub struct TokenBytes {
    data: Vec<u8>,
    offsets: Vec<u32>,
}

impl TokenBytes {
    /// Bytes of `id`; empty where no token has this id.
    pub fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match (self.offsets.get(id), self.offsets.get(id + 1)) {
            (Some(&start), Some(&end)) => &self.data[start as usize..end as usize],
            _ => &[],
        }
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From one byte string per id.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = &'a [u8]>) -> Result<Self> {
        let mut all = Self { data: Vec::new(), offsets: vec![0] };
        for token in tokens {
            all.data.extend_from_slice(token);
            let end = u32::try_from(all.data.len())
                .map_err(|_| Error::Invalid("model.vocab: more than 4 GiB of tokens".into()))?;
            all.offsets.push(end);
        }
        Ok(all)
    }
}
