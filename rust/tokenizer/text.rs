//! Decoding, and which texts are admissible (docs/mathematics.md, section 1).

use super::{Dummy, TokenKind, Tokenizer};
use crate::error::{Error, Result};

impl Tokenizer {
    /// Bytes of a token sequence: the bytes of its tokens, one after the other.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id)?);
            if self.kind[id as usize] == TokenKind::Missing {
                return Err(Error::Invalid(format!("id {id}: no token has it")));
            }
        }
        Ok(bytes)
    }

    /// What the normalizer makes of a text as a whole, without the dummy prefix and with spaces for markers. (Encoding
    /// normalizes the pieces between added tokens, which changes no text that this leaves alone.)
    pub fn normalize(&self, text: &str) -> String {
        let normal = self.normalizer.apply(text);
        match self.symbols.marker() {
            Some(marker) => normal.replace(marker, " "),
            None => normal.into_owned(),
        }
    }

    /// Checks that a text is admissible: the normalizer leaves it alone, decoding its encoding gives it back (up to
    /// the dummy prefix), and no special or unknown token comes out of it.
    pub fn admissible(&self, text: &str, start: bool) -> Result<()> {
        self.check_normal(text)?;
        if start && self.dummy == Some(Dummy::UnlessSpace) && text.starts_with(' ') {
            return Err(Error::text(0, "with a leading space the prefix space cannot be told from the text"));
        }
        let ids = self.encode(text, start)?;
        let prefix = usize::from(start && self.dummy.is_some() && !text.is_empty());
        self.check_round_trip(text, &ids, prefix)
    }

    fn check_normal(&self, text: &str) -> Result<()> {
        let normal = self.normalize(text);
        if normal == text {
            return Ok(());
        }
        let same = text.bytes().zip(normal.bytes()).take_while(|(a, b)| a == b).count();
        let offset = (0..=same).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let reason = match self.symbols.marker() {
            Some(marker) if text[offset..].starts_with(marker) => {
                format!("U+{:04X} stands for a space in this vocabulary", marker as u32)
            }
            _ => "the normalizer changes the text here".to_owned(),
        };
        Err(Error::text(offset, reason))
    }

    /// `prefix`: bytes of the dummy prefix, one space or none.
    fn check_round_trip(&self, text: &str, ids: &[u32], prefix: usize) -> Result<()> {
        let mut rest = text.as_bytes();
        let mut at = 0;
        for &id in ids {
            let bytes = self.bytes.get(id);
            let dummy = prefix.saturating_sub(at).min(bytes.len());
            let offset = (at + dummy) - prefix.min(at + dummy);
            if matches!(self.kind[id as usize], TokenKind::Special | TokenKind::Unk) {
                return Err(Error::text(offset, format!("the text encodes to the special token {id}")));
            }
            match rest.strip_prefix(&bytes[dummy..]) {
                Some(after) if bytes[..dummy].iter().all(|&b| b == b' ') => rest = after,
                _ => return Err(Error::text(offset, format!("token {id} stands for other text than this"))),
            }
            at += bytes.len();
        }
        if rest.is_empty() { Ok(()) } else { Err(Error::text(text.len() - rest.len(), "the encoding drops this")) }
    }
}
