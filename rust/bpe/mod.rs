//! Byte-pair encoding: the merge table, the merge loop and every token's own derivation.
//!
//! A token's *own merge* is the last merge that BPE really runs on that token's symbols (docs/mathematics.md, fact 2).
//! A span of symbols that never merges across its ends evolves as if it stood alone, so whatever BPE builds inside a
//! longer text it builds by own merges only. That is why one merge per token is kept although a vocabulary
//! may list a dozen.

mod merge;
pub mod pairs;

use crate::parallel::map_blocks;
use rustc_hash::{FxHashMap, FxHashSet};

/// Marks "no token" in [`Own`].
pub const NONE: u32 = u32::MAX;

/// What a pair of adjacent tokens turns into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Place in the merge list; lower merges first. Not related to the id.
    pub rank: u32,
    /// The token that replaces the pair.
    pub product: u32,
}

/// The last merge that BPE runs on a token's own symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Left part, or [`NONE`] for an atom (single symbol, fallback byte) and for an unreachable token.
    pub left: u32,
    /// Right part, [`NONE`] like `left`.
    pub right: u32,
    /// Rank of the merge, `u32::MAX` where there is none.
    pub rank: u32,
}

impl Own {
    /// No merge: an atom or an unreachable token.
    pub const ATOM: Own = Own { left: NONE, right: NONE, rank: u32::MAX };

    /// Whether there is no own merge.
    pub fn is_none(self) -> bool {
        self.left == NONE
    }
}

/// The merge table with the own derivation of every token.
#[derive(Debug, Default)]
pub struct Bpe {
    /// Pair → rank and product. A pair listed twice has its later rank, as in `tokenizers`.
    pub merges: FxHashMap<(u32, u32), Merge>,
    /// Own merge per id.
    pub own: Vec<Own>,
    /// Per id: BPE on the token's own symbols gives exactly the token.
    pub reachable: Vec<bool>,
    /// Per id: reachable, and the own derivation rises in rank all the way down.
    pub proper: Vec<bool>,
}

impl Bpe {
    /// Finds the own derivation of the tokens 0..`size`, given the symbols that each is spelled with (none for
    /// an id without spelling). Runs on several threads.
    pub fn new<F>(merges: FxHashMap<(u32, u32), Merge>, size: usize, symbols_of: F) -> Self
    where
        F: Fn(u32, &mut Vec<u32>) + Sync,
    {
        let mut bpe = Self { merges, ..Self::default() };
        let blocks = map_blocks(size, 2048, 0, |ids| {
            let mut symbols = Vec::new();
            let mut block = Vec::with_capacity(ids.len());
            for id in ids {
                symbols.clear();
                symbols_of(id as u32, &mut symbols);
                block.push(bpe.derive(id as u32, &mut symbols));
            }
            block
        });
        let (own, reachable) = blocks.into_iter().flatten().unzip();
        bpe.own = own;
        bpe.reachable = reachable;
        bpe.proper = bpe.find_proper();
        bpe
    }

    /// Own merge of `id` and whether its symbols merge into it.
    fn derive(&self, id: u32, symbols: &mut Vec<u32>) -> (Own, bool) {
        let mut last = Own::ATOM;
        self.run(symbols, |own| last = own);
        if symbols.as_slice() == [id] { (last, true) } else { (Own::ATOM, false) }
    }

    /// Tokens whose derivation rises in rank. Parts may have larger ids than their product, so the answer is
    /// found by walking the tokens in order of rank, where a rising derivation has its parts earlier.
    fn find_proper(&self) -> Vec<bool> {
        let mut proper: Vec<bool> =
            self.own.iter().zip(&self.reachable).map(|(own, &reachable)| reachable && own.is_none()).collect();
        let mut by_rank: Vec<u32> = (0..self.own.len() as u32).filter(|&id| !self.own[id as usize].is_none()).collect();
        by_rank.sort_unstable_by_key(|&id| self.own[id as usize].rank);
        for id in by_rank {
            let own = self.own[id as usize];
            let rises = |part: u32| {
                let below = self.own[part as usize];
                proper[part as usize] && (below.is_none() || below.rank < own.rank)
            };
            proper[id as usize] = rises(own.left) && rises(own.right);
        }
        proper
    }

    /// Replaces symbols by tokens: the lowest rank first, the leftmost of equal ranks, until no pair merges.
    pub fn merge(&self, symbols: &mut Vec<u32>) {
        self.run(symbols, |_| ());
    }

    /// What the pair turns into, if anything.
    pub fn lookup(&self, left: u32, right: u32) -> Option<Merge> {
        self.merges.get(&(left, right)).copied()
    }

    /// Own derivation of `id` as (token, left, right): root first, every token once, atoms omitted.
    pub fn merge_dag(&self, id: u32) -> Vec<(u32, u32, u32)> {
        let mut dag = Vec::new();
        let mut seen = FxHashSet::default();
        let mut open = vec![id];
        while let Some(token) = open.pop() {
            let Some(&own) = self.own.get(token as usize) else { continue };
            if own.is_none() || !seen.insert(token) {
                continue;
            }
            dag.push((token, own.left, own.right));
            open.extend([own.right, own.left]);
        }
        dag
    }
}
