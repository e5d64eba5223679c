//! A tokenizer with the tables derived from it, each made when it is first needed and then shared.

use std::sync::Arc;

use crate::bits::Bits;
use crate::canonical::Canonical;
use crate::canonical::masks::Masks;
use crate::error::Result;
use crate::spelling::{Spelling, Tables};
use crate::sync::Lazy;
use crate::tokenizer::Tokenizer;
use crate::trie::Trie;

/// A tokenizer and what follows from it. All methods may be called from several threads.
#[derive(Debug)]
pub struct SharedTokenizer {
    /// As it was read.
    pub tokenizer: Arc<Tokenizer>,
    canonical: Lazy<Result<Arc<Canonical>>>,
    by_id: Lazy<Arc<Masks>>,
    by_bytes: Lazy<Arc<Tables>>,
    trie: Lazy<Arc<Trie>>,
}

impl SharedTokenizer {
    /// No tables yet.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer: Arc::new(tokenizer),
            canonical: Lazy::default(),
            by_id: Lazy::default(),
            by_bytes: Lazy::default(),
            trie: Lazy::default(),
        }
    }

    /// What decides canonicality.
    pub fn canonical(&self) -> Result<Arc<Canonical>> {
        self.canonical.get_or_make(|| Canonical::new(Arc::clone(&self.tokenizer)).map(Arc::new)).clone()
    }

    /// The canonical next tokens after a sequence, one bit an id.
    pub fn canonical_next(&self, ids: &[u32], start: bool) -> Result<Arc<Bits>> {
        let state = self.canonical()?.state_after(ids, start)?;
        Ok(self.masks()?.next(&state))
    }

    /// Canonical next tokens with one bit for each id.
    pub fn masks(&self) -> Result<Arc<Masks>> {
        let canonical = self.canonical()?;
        let every_id = || (0..self.tokenizer.vocab_size() as u32).collect();
        Ok(Arc::clone(self.by_id.get_or_make(|| Arc::new(Masks::new(canonical, every_id())))))
    }

    /// Whether a sequence is a canonical prefix, or canonical as a complete sequence.
    pub fn is_canonical(&self, ids: &[u32], complete: bool, start: bool) -> Result<bool> {
        let canonical = self.canonical()?;
        let state = canonical.state_after(ids, start);
        Ok(state.is_ok_and(|state| !complete || canonical.complete(&state)))
    }

    /// Tables for the student whose tokens are single bytes.
    pub fn byte_tables(&self) -> Result<Arc<Tables>> {
        let canonical = self.canonical()?;
        let make = || {
            let spelling = Spelling::in_bytes(&canonical);
            Arc::new(Tables::new(canonical, spelling))
        };
        Ok(Arc::clone(self.by_bytes.get_or_make(make)))
    }

    /// The trie of the same order as [`Self::byte_tables`].
    pub fn byte_trie(&self) -> Result<Arc<Trie>> {
        let tables = self.byte_tables()?;
        Ok(Arc::clone(self.trie.get_or_make(|| Arc::new(Trie::new(&tables.spelling)))))
    }
}
