//! The merge loop. Short pretokens (nearly all) are scanned, long ones go through a heap: scanning is quadratic
//! but has no allocation, and a 10,000-character run must stay linear up to a logarithm.

use super::{Bpe, Merge, NONE, Own};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest symbol sequence that is scanned.
const SHORT: usize = 24;

/// A pair that does not merge.
const NO_MERGE: Merge = Merge { rank: u32::MAX, product: NONE };

impl Bpe {
    /// Merges in place and reports each merge as it happens.
    pub(super) fn run(&self, symbols: &mut Vec<u32>, on_merge: impl FnMut(Own)) {
        match symbols.len() {
            0 | 1 => {}
            2..=SHORT => self.run_short(symbols, on_merge),
            _ => self.run_long(symbols, on_merge),
        }
    }

    fn rank(&self, left: u32, right: u32) -> Merge {
        self.merges.get(&(left, right)).copied().unwrap_or(NO_MERGE)
    }

    fn run_short(&self, symbols: &mut Vec<u32>, mut on_merge: impl FnMut(Own)) {
        let mut pairs = [NO_MERGE; SHORT];
        let mut len = symbols.len();
        for i in 1..len {
            pairs[i - 1] = self.rank(symbols[i - 1], symbols[i]);
        }
        while len > 1 {
            let Some((at, best)) = lowest(&pairs[..len - 1]) else { break };
            on_merge(Own { left: symbols[at], right: symbols[at + 1], rank: best.rank });
            symbols[at] = best.product;
            symbols.copy_within(at + 2..len, at + 1);
            pairs.copy_within(at + 1..len - 1, at);
            len -= 1;
            if at > 0 {
                pairs[at - 1] = self.rank(symbols[at - 1], symbols[at]);
            }
            if at + 1 < len {
                pairs[at] = self.rank(symbols[at], symbols[at + 1]);
            }
        }
        symbols.truncate(len);
    }

    fn run_long(&self, symbols: &mut Vec<u32>, mut on_merge: impl FnMut(Own)) {
        let mut chain = Chain::new(symbols);
        let mut queue = BinaryHeap::with_capacity(symbols.len());
        for at in 0..symbols.len() as u32 - 1 {
            self.offer(&chain, at, &mut queue);
        }
        while let Some(Reverse((rank, at, left, right))) = queue.pop() {
            // An entry is stale once either side has merged elsewhere; the span only ever grows, so the same
            // pair cannot come back at the same place.
            let Some(next) = chain.pair_at(at, left, right) else { continue };
            on_merge(Own { left, right, rank });
            chain.join(at, next, self.rank(left, right).product);
            if let Some(previous) = chain.previous(at) {
                self.offer(&chain, previous, &mut queue);
            }
            self.offer(&chain, at, &mut queue);
        }
        chain.collect(symbols);
    }

    /// Queues the pair that starts at `at`, if it merges.
    fn offer(&self, chain: &Chain, at: u32, queue: &mut BinaryHeap<Reverse<(u32, u32, u32, u32)>>) {
        let Some((left, right)) = chain.pair(at) else { return };
        let merge = self.rank(left, right);
        if merge.product != NONE {
            queue.push(Reverse((merge.rank, at, left, right)));
        }
    }
}

/// Place and merge of the lowest rank, the leftmost if it occurs twice.
fn lowest(pairs: &[Merge]) -> Option<(usize, Merge)> {
    let mut found = (0, NO_MERGE);
    for (at, pair) in pairs.iter().enumerate() {
        if pair.rank < found.1.rank {
            found = (at, *pair);
        }
    }
    (found.1.product != NONE).then_some(found)
}

/// Doubly linked symbols. A removed symbol is [`NONE`].
struct Chain {
    token: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Chain {
    fn new(symbols: &[u32]) -> Self {
        let len = symbols.len() as u32;
        Self {
            token: symbols.to_vec(),
            next: (1..=len).collect(),
            previous: (0..len).map(|i| i.wrapping_sub(1)).collect(),
        }
    }

    fn pair(&self, at: u32) -> Option<(u32, u32)> {
        let right = self.token.get(self.next[at as usize] as usize)?;
        Some((self.token[at as usize], *right))
    }

    /// Place of the right symbol if the pair still stands at `at`.
    fn pair_at(&self, at: u32, left: u32, right: u32) -> Option<u32> {
        (self.pair(at)? == (left, right)).then_some(self.next[at as usize])
    }

    fn previous(&self, at: u32) -> Option<u32> {
        let previous = self.previous[at as usize];
        (previous != u32::MAX).then_some(previous)
    }

    fn join(&mut self, at: u32, next: u32, product: u32) {
        self.token[at as usize] = product;
        self.token[next as usize] = NONE;
        let after = self.next[next as usize];
        self.next[at as usize] = after;
        if let Some(previous) = self.previous.get_mut(after as usize) {
            *previous = at;
        }
    }

    fn collect(&self, symbols: &mut Vec<u32>) {
        symbols.clear();
        symbols.extend(self.token.iter().copied().filter(|&token| token != NONE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustc_hash::FxHashMap;

    /// Restarts from the left after every merge: the definition, word for word.
    fn naive(bpe: &Bpe, symbols: &mut Vec<u32>) {
        loop {
            let best = (1..symbols.len())
                .filter_map(|i| bpe.lookup(symbols[i - 1], symbols[i]).map(|m| (m.rank, i, m.product)))
                .min();
            let Some((_, i, product)) = best else { return };
            symbols[i - 1] = product;
            symbols.remove(i);
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) as usize) % n
        }
    }

    /// Tokens as strings over {a, b, c}, random pairs merging in random order, several derivations a token.
    fn toy(random: &mut Random) -> (Bpe, Vec<Vec<u8>>) {
        let mut strings: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        let mut pairs = Vec::new();
        for _ in 0..12 {
            let (left, right) = (random.below(strings.len()), random.below(strings.len()));
            let joined = [strings[left].as_slice(), &strings[right]].concat();
            let product = strings.iter().position(|s| *s == joined).unwrap_or(strings.len());
            if product == strings.len() {
                strings.push(joined);
            }
            pairs.insert(random.below(pairs.len() + 1), ((left as u32, right as u32), product as u32));
        }
        let merges: FxHashMap<_, _> = pairs
            .iter()
            .enumerate()
            .map(|(rank, &(pair, product))| (pair, Merge { rank: rank as u32, product }))
            .collect();
        let spell = strings.clone();
        let bpe = Bpe::new(merges, strings.len(), |id, out| {
            out.extend(spell[id as usize].iter().map(|b| u32::from(b - b'a')));
        });
        (bpe, strings)
    }

    #[test]
    fn both_loops_equal_the_definition() {
        let mut random = Random(7);
        for _ in 0..300 {
            let (bpe, _) = toy(&mut random);
            for _ in 0..20 {
                let len = 2 + random.below(SHORT - 1);
                let symbols: Vec<u32> = (0..len).map(|_| random.below(3) as u32).collect();
                let (mut expected, mut short, mut long) = (symbols.clone(), symbols.clone(), symbols);
                naive(&bpe, &mut expected);
                bpe.run_short(&mut short, |_| ());
                bpe.run_long(&mut long, |_| ());
                assert_eq!(short, expected);
                assert_eq!(long, expected);
            }
        }
    }

    #[test]
    fn own_derivations_are_what_bpe_runs() {
        let mut random = Random(11);
        for _ in 0..200 {
            let (bpe, strings) = toy(&mut random);
            for (id, own) in bpe.own.iter().enumerate() {
                if own.is_none() {
                    continue;
                }
                let joined = [strings[own.left as usize].as_slice(), &strings[own.right as usize]].concat();
                assert_eq!(joined, strings[id]);
                assert!(bpe.reachable[own.left as usize] && bpe.reachable[own.right as usize]);
                assert_eq!(bpe.lookup(own.left, own.right).map(|m| m.rank), Some(own.rank));
                assert_eq!(bpe.merge_dag(id as u32)[0], (id as u32, own.left, own.right));
            }
        }
    }

    #[test]
    fn an_improper_token_is_reachable_but_not_proper() {
        // (bc, d) ranks before (b, c): bcd is built by a derivation that falls in rank.
        let merges =
            FxHashMap::from_iter([((3, 2), Merge { rank: 0, product: 4 }), ((0, 1), Merge { rank: 1, product: 3 })]);
        let spelled: [&[u32]; 5] = [&[0], &[1], &[2], &[0, 1], &[0, 1, 2]];
        let bpe = Bpe::new(merges, 5, |id, out| out.extend(spelled[id as usize]));
        assert_eq!(bpe.reachable, [true; 5]);
        assert_eq!(bpe.proper, [true, true, true, true, false]);
    }
}
