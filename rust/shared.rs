//! A tokenizer with the tables derived from it, each made when it is first needed and then shared.

use std::sync::{Arc, OnceLock};

use crate::bits::Bits;
use crate::canonical::Canonical;
use crate::canonical::masks::Masks;
use crate::error::Result;
use crate::spelling::{Spelling, Tables};
use crate::tokenizer::Tokenizer;

#[derive(Debug)]
pub struct SharedTokenizer {
    pub tokenizer: Arc<Tokenizer>,
    canonical: OnceLock<Result<Arc<Canonical>>>,
    by_id: OnceLock<Masks>,
    by_bytes: OnceLock<Arc<Tables>>,
}

impl SharedTokenizer {
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer: Arc::new(tokenizer),
            canonical: OnceLock::new(),
            by_id: OnceLock::new(),
            by_bytes: OnceLock::new(),
        }
    }

    /// What decides canonicality.
    pub fn canonical(&self) -> Result<Arc<Canonical>> {
        self.canonical.get_or_init(|| Canonical::new(Arc::clone(&self.tokenizer)).map(Arc::new)).clone()
    }

    /// The canonical next tokens after a sequence, one bit an id.
    pub fn canonical_next(&self, ids: &[u32], start: bool) -> Result<Arc<Bits>> {
        let canonical = self.canonical()?;
        let state = canonical.state_after(ids, start)?;
        let every_id = || (0..self.tokenizer.vocab_size() as u32).collect();
        Ok(self.by_id.get_or_init(|| Masks::new(canonical, every_id())).next(&state))
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
        Ok(Arc::clone(self.by_bytes.get_or_init(make)))
    }
}
