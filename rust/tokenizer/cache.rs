//! Encoded pieces, kept from call to call.

use crate::sync::Cache;
use rustc_hash::{FxHashMap, FxHashSet};

/// Longest piece that is kept, in bytes: longer ones rarely come back.
const MAX_PIECE: usize = 64;
/// Pieces in one cache; about 8 MiB.
const MAX_PIECES: usize = 1 << 16;
/// Caches kept for later calls.
const MAX_CACHES: usize = 32;

/// Piece → ids.
#[derive(Debug, Default)]
pub(super) struct PieceCache {
    places: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<u32>,
}

impl PieceCache {
    /// Ids of a piece seen before.
    pub fn get(&self, piece: &[u8]) -> Option<&[u32]> {
        let &(start, end) = self.places.get(piece)?;
        Some(&self.ids[start as usize..end as usize])
    }

    /// Keeps a piece; empties the cache first where it is full.
    pub fn put(&mut self, piece: &[u8], ids: &[u32]) {
        if piece.len() > MAX_PIECE {
            return;
        }
        if self.places.len() >= MAX_PIECES {
            self.places.clear();
            self.ids.clear();
        }
        let start = self.ids.len() as u32;
        self.ids.extend_from_slice(ids);
        self.places.insert(piece.into(), (start, self.ids.len() as u32));
    }
}

/// Caches that are not in use. A call takes one, so that no lock is held while encoding; where there is none to be had the
/// call starts with an empty one.
#[derive(Debug, Default)]
pub(super) struct CachePool(Cache<Vec<PieceCache>>);

impl CachePool {
    pub fn lend(&self) -> PieceCache {
        self.0.with(Vec::pop).flatten().unwrap_or_default()
    }

    pub fn give_back(&self, cache: PieceCache) {
        self.0.with(|free| {
            if free.len() < MAX_CACHES {
                free.push(cache);
            }
        });
    }
}

/// Where SentencePiece-style text may be cut before merging: before a marker, after a character that no token has
/// in front of a marker. No merge can cross there, so the pieces are encoded, and cached, one by one.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    marker: Option<char>,
    glued: FxHashSet<char>,
}

impl Cuts {
    /// From the strings of the vocabulary.
    pub(super) fn new<'a>(marker: Option<char>, tokens: impl Iterator<Item = &'a str>) -> Self {
        let mut cuts = Self { marker, glued: FxHashSet::default() };
        let Some(marker) = marker else { return cuts };
        let mut buffer = [0; 4];
        let needle: &str = marker.encode_utf8(&mut buffer);
        for token in tokens {
            for (at, _) in token.match_indices(needle) {
                cuts.glued.extend(token[..at].chars().next_back());
            }
        }
        cuts
    }

    /// Length of the first piece of `text`.
    pub(super) fn first(&self, text: &str) -> usize {
        let Some(marker) = self.marker else { return text.len() };
        let mut previous = None;
        for (at, c) in text.char_indices() {
            if c == marker && previous.is_some_and(|p| !self.glued.contains(&p)) {
                return at;
            }
            previous = Some(c);
        }
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_fall_where_no_token_reaches_across() {
        let cuts = Cuts::new(Some('▁'), ["▁a", "▁▁", "x▁y", "b"].into_iter());
        assert_eq!(cuts.first("a▁▁b"), 1);
        assert_eq!(cuts.first("▁▁b▁"), "▁▁b".len());
        assert_eq!(cuts.first("x▁a"), "x▁a".len());
        assert_eq!(Cuts::new(None, std::iter::empty()).first("a b"), 3);
    }

    #[test]
    fn a_cache_is_bounded() {
        let mut cache = PieceCache::default();
        for i in 0..=MAX_PIECES as u32 {
            cache.put(&i.to_le_bytes(), &[i, i]);
        }
        assert_eq!(cache.places.len(), 1);
        assert_eq!(cache.get(&(MAX_PIECES as u32).to_le_bytes()), Some(&[MAX_PIECES as u32; 2][..]));
    }
}
