//! How a token's own string is spelled in symbols.

use super::{Symbols, TokenBytes, TokenKind};
use rustc_hash::FxHashSet;

/// What spelling needs; borrowed so that it works before the tokenizer is complete.
pub(super) struct Speller<'a> {
    pub symbols: &'a Symbols,
    pub bytes: &'a TokenBytes,
    pub kind: &'a [TokenKind],
    pub in_model: &'a [bool],
    pub unspellable: &'a FxHashSet<u32>,
}

impl Speller<'_> {
    /// Appends the symbols of `id`; nothing where no text spells it.
    pub fn symbols_of(&self, id: u32, out: &mut Vec<u32>) {
        if !self.in_model.get(id as usize).copied().unwrap_or(false) || self.unspellable.contains(&id) {
            return;
        }
        if self.kind[id as usize] == TokenKind::Fallback {
            out.push(id);
            return;
        }
        let start = out.len();
        if !self.spell(self.bytes.get(id), out) {
            out.truncate(start);
        }
    }

    /// Fallback bytes do not count: a token that holds a character without piece is never merged.
    fn spell(&self, bytes: &[u8], out: &mut Vec<u32>) -> bool {
        match self.symbols {
            Symbols::Bytes { id_of_byte } => bytes.iter().all(|&byte| push(id_of_byte[usize::from(byte)], out)),
            Symbols::Chars { piece, marker, .. } => {
                let Ok(text) = std::str::from_utf8(bytes) else { return false };
                text.chars().all(|c| {
                    let c = if c == ' ' { marker.unwrap_or(c) } else { c };
                    piece.get(&c).is_some_and(|&id| push(id, out))
                })
            }
        }
    }
}

fn push(id: u32, out: &mut Vec<u32>) -> bool {
    if id != super::symbols::NO_SYMBOL {
        out.push(id);
    }
    id != super::symbols::NO_SYMBOL
}
