//! A tokenizer.json, read once and never changed: what encoding, canonicality and plans are computed from.
//!
//! `json` reads the file, `normalizer`, `layers` and `added` interpret its parts, `build` puts them together;
//! `encode`, `text`, `first_merges` and `fingerprint` work on the result.

pub mod added;
mod alphabet;
mod build;
mod cache;
pub mod encode;
pub mod fingerprint;
pub mod first_merges;
pub mod json;
mod layers;
pub mod normalizer;

mod spell;
pub mod symbols;
#[cfg(test)]
mod tests;
mod text;

pub use added::{AddedPattern, AddedTokens};
pub use normalizer::Normalizer;
pub use symbols::{Symbols, TokenBytes};

use crate::bpe::Bpe;
use crate::error::{Error, Result};
use crate::pretoken::Pretokenizer;
use crate::sync::Lazy;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// What an id stands for. An id that is in the vocabulary and also an added token counts as added; whether merges
/// reach it too is for [`Tokenizer::in_model`] to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// No token has this id.
    Missing,
    /// An added token with `special: true`: never produced from text by matching.
    Special,
    /// An added token with `special: false`: matched in text before anything else.
    Added,
    /// `<0xXX>` of a vocabulary with byte fallback.
    Fallback,
    /// The unknown token, where it is not an added token.
    Unk,
    /// Everything else.
    Normal,
}

/// A space that is put before a text that starts a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dummy {
    /// Before every non-empty text (the normalizer `Prepend`: Llama 2).
    Always,
    /// Unless the text already starts with a space or the marker (`Metaspace`, `add_prefix_space`).
    UnlessSpace,
}

/// An immutable tokenizer. All methods may be called from several threads.
#[derive(Debug)]
pub struct Tokenizer {
    /// From characters or bytes to the ids that merging starts with.
    pub(crate) symbols: Symbols,
    /// Highest id + 1, added tokens included.
    pub(crate) vocab_size: usize,
    /// Bytes of every token.
    pub(crate) bytes: TokenBytes,
    /// Kind of every id.
    pub(crate) kind: Vec<TokenKind>,
    /// Per id: listed in `model.vocab`.
    pub(crate) in_model: Vec<bool>,
    /// Ids in `model.vocab` that no text can spell (a byte-level token with other characters, a literal space
    /// where spaces become the marker).
    pub(crate) unspellable: FxHashSet<u32>,
    /// Bytes of a pretoken (marker mapped back to space) → id, for `ignore_merges`; empty without it.
    pub(crate) whole: FxHashMap<Box<[u8]>, u32>,
    /// Whether a pretoken that is a token is taken whole, without merging.
    pub(crate) ignore_merges: bool,
    /// Merges and own derivations.
    pub(crate) bpe: Bpe,
    /// The patterns that `pretokenizer` was made from, outermost first.
    pub(crate) layers: Vec<String>,
    /// Splits normalized text. It sees the text as `tokenizers` shows it to its pretokenizer: for
    /// SentencePiece-style vocabularies with the marker in place of spaces.
    pub(crate) pretokenizer: Pretokenizer,
    /// What happens to text before it is split.
    pub(crate) normalizer: Normalizer,
    /// Matchers for the added tokens.
    pub(crate) added: AddedTokens,
    /// The space before a text that starts a document.
    pub(crate) dummy: Option<Dummy>,
    /// The token that the post-processor puts first.
    pub(crate) bos: Option<u32>,
    /// Ids of the special tokens, ascending.
    pub(crate) special_ids: Vec<u32>,
    /// For vocabularies without pretokenizer: where a text may be cut so that pieces can be cached.
    pub(crate) cuts: cache::Cuts,
    /// Caches of encoded pieces, lent to one call at a time.
    caches: cache::CachePool,
    /// The file as it was read, for saving and pickling.
    raw: Arc<[u8]>,
    fingerprint: Lazy<String>,
}

impl Tokenizer {
    /// Reads a tokenizer.json. What this crate does not support is refused, naming the field.
    pub fn from_json(raw: &[u8]) -> Result<Self> {
        build::build(raw)
    }

    /// The tokenizer.json that this tokenizer was made from.
    pub fn to_json(&self) -> Vec<u8> {
        self.raw.to_vec()
    }

    /// The same, shared.
    pub fn raw(&self) -> &Arc<[u8]> {
        &self.raw
    }

    /// Highest id + 1, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether `id` is listed in `model.vocab`, so that merges may produce it.
    pub fn in_model(&self, id: u32) -> bool {
        self.in_model.get(id as usize).copied().unwrap_or(false)
    }

    /// The token that the post-processor puts first.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Ids of the special tokens, ascending.
    pub fn special_ids(&self) -> &[u32] {
        &self.special_ids
    }

    /// The whole-pretoken look-up of `ignore_merges`. `pretoken` has spaces where the text has them.
    pub(crate) fn whole_pretoken(&self, pretoken: &[u8]) -> Option<u32> {
        if self.ignore_merges { self.whole.get(pretoken).copied() } else { None }
    }

    /// The symbols that the token's own string is spelled with. A fallback byte is its own symbol; empty where
    /// no text spells the token or it is not in the model.
    pub fn symbols_of(&self, id: u32) -> Vec<u32> {
        let mut out = Vec::new();
        self.speller().symbols_of(id, &mut out);
        out
    }

    /// Bytes of a token: what it stands for in a text; the content of special tokens. An id that no token has
    /// gives no bytes.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        if (id as usize) < self.vocab_size {
            return Ok(self.bytes.get(id));
        }
        Err(Error::Invalid(format!("id {id} is out of range (vocab_size {})", self.vocab_size)))
    }

    /// Own derivation of a token: (token, left, right), root first.
    pub fn merge_dag(&self, id: u32) -> Result<Vec<(u32, u32, u32)>> {
        self.token_bytes(id)?;
        Ok(self.bpe.merge_dag(id))
    }

    fn speller(&self) -> spell::Speller<'_> {
        spell::Speller {
            symbols: &self.symbols,
            bytes: &self.bytes,
            kind: &self.kind,
            in_model: &self.in_model,
            unspellable: &self.unspellable,
        }
    }
}
