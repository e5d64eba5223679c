//! Which tokens may stand side by side inside one pretoken (docs/mathematics.md, facts 3 and 4).
//!
//! A sequence of reachable tokens is what BPE makes of its bytes iff this holds for every adjacent pair. A pair is broken iff
//! two symbols that touch, one on the right spine of the left token and one on the left spine of the right token, live at the
//! same time and merge before either is used up. Between proper tokens the spines' own ranks tell those times; pairs that
//! touch an improper token are decided by running BPE.

use super::{Bpe, NONE};

/// Birth of an atom, before every merge.
const EVER: i64 = -1;
/// No merge uses the symbol up.
const NEVER: i64 = i64::MAX;

impl Bpe {
    /// Whether BPE on the symbols of `left` and `right` gives exactly these two tokens. Both must be reachable.
    pub fn pair_valid(&self, left: u32, right: u32) -> bool {
        if self.proper[left as usize] && self.proper[right as usize] {
            self.spines_hold(left, right)
        } else {
            self.rerun_holds(left, right)
        }
    }

    fn born(&self, token: u32) -> i64 {
        let own = self.own[token as usize];
        if own.is_none() { EVER } else { i64::from(own.rank) }
    }

    /// Walks both spines down, always undoing the merge that ran later (the right one of equal ranks).
    fn spines_hold(&self, mut left: u32, mut right: u32) -> bool {
        let (mut left_used, mut right_used) = (NEVER, NEVER);
        loop {
            if let Some(merge) = self.lookup(left, right) {
                let rank = i64::from(merge.rank);
                // Equal ranks run from left to right: the merge inside `left` comes first, the one inside `right` last.
                if rank < left_used && rank <= right_used {
                    return false;
                }
            }
            let (left_born, right_born) = (self.born(left), self.born(right));
            if left_born > right_born {
                left_used = left_born;
                left = self.own[left as usize].right;
            } else if right_born > EVER {
                right_used = right_born;
                right = self.own[right as usize].left;
            } else {
                return true;
            }
        }
    }

    fn rerun_holds(&self, left: u32, right: u32) -> bool {
        let mut symbols = Vec::new();
        self.leaves(left, &mut symbols);
        self.leaves(right, &mut symbols);
        self.merge(&mut symbols);
        symbols == [left, right]
    }

    /// The symbols that a reachable token is merged from.
    pub fn leaves(&self, token: u32, out: &mut Vec<u32>) {
        let own = self.own[token as usize];
        if own.is_none() {
            out.push(token);
        } else {
            self.leaves(own.left, out);
            self.leaves(own.right, out);
        }
    }
}

/// For a left token all right tokens at once: the tokens whose left spine holds a symbol form an interval in the order
/// of a depth-first walk over left parts.
#[derive(Debug)]
pub struct PairIndex {
    /// Proper tokens in that order.
    order: Vec<u32>,
    /// Per id: where its interval begins and ends in `order`.
    interval: Vec<(u32, u32)>,
    /// Merges by left part: (rank, right part).
    merges: Lists<(u32, u32)>,
    /// Proper tokens by the left part of their own merge.
    children: Lists<u32>,
    /// Reachable tokens that are not proper.
    improper: Vec<u32>,
}

impl PairIndex {
    /// Tables of the size of the vocabulary and the merge list.
    pub fn new(bpe: &Bpe) -> Self {
        let size = bpe.own.len();
        let proper = |id: u32| bpe.proper[id as usize];
        let children = Lists::new(size, (0..size as u32).filter(|&t| proper(t)).map(|t| (bpe.own[t as usize].left, t)));
        let mut pairs: Vec<_> = bpe.merges.iter().map(|(&(a, b), m)| (a, (m.rank, b))).collect();
        pairs.sort_unstable();
        let merges = Lists::new(size, pairs.into_iter());
        let mut order = Vec::new();
        let mut interval = vec![(0, 0); size];
        for root in (0..size as u32).filter(|&t| proper(t) && bpe.own[t as usize].is_none()) {
            // Depth first; the second visit of a token closes its interval.
            let mut stack = vec![(root, false)];
            while let Some((token, done)) = stack.pop() {
                if done {
                    interval[token as usize].1 = order.len() as u32;
                    continue;
                }
                interval[token as usize].0 = order.len() as u32;
                order.push(token);
                stack.push((token, true));
                stack.extend(children.get(token).iter().map(|&child| (child, false)));
            }
        }
        let improper = (0..size as u32).filter(|&t| bpe.reachable[t as usize] && !proper(t)).collect();
        Self { order, interval, merges, children, improper }
    }

    /// Calls `invalid` with every reachable token that may not follow `left` inside a pretoken (some more than once).
    pub fn for_each_invalid(&self, bpe: &Bpe, left: u32, mut invalid: impl FnMut(u32)) {
        if bpe.proper[left as usize] {
            self.spine_conflicts(bpe, left, &mut invalid);
        } else {
            for &right in self.order.iter().filter(|&&right| !bpe.pair_valid(left, right)) {
                invalid(right);
            }
        }
        for &right in self.improper.iter().filter(|&&right| !bpe.pair_valid(left, right)) {
            invalid(right);
        }
    }

    fn spine_conflicts(&self, bpe: &Bpe, left: u32, invalid: &mut impl FnMut(u32)) {
        let (mut symbol, mut used) = (left, NEVER);
        while symbol != NONE {
            let born = bpe.born(symbol);
            for &(rank, right) in self.merges.get(symbol) {
                if i64::from(rank) >= used {
                    break;
                }
                // The two must live at the same time; a merge of equal rank runs in the left token first.
                if bpe.proper[right as usize] && bpe.born(right) < used {
                    invalid(right);
                }
                for &child in self.children.get(right) {
                    let ends = bpe.born(child);
                    if i64::from(rank) <= ends && born <= ends && bpe.born(right) < used {
                        let (from, to) = self.interval[child as usize];
                        self.order[from as usize..to as usize].iter().for_each(|&t| invalid(t));
                    }
                }
            }
            used = born;
            symbol = bpe.own[symbol as usize].right;
        }
    }
}

/// Lists by key in two flat arrays.
#[derive(Debug)]
struct Lists<T> {
    start: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy + Default> Lists<T> {
    /// Keys of [`NONE`] are dropped; the order within a key is kept.
    fn new(size: usize, entries: impl Iterator<Item = (u32, T)> + Clone) -> Self {
        let mut start = vec![0u32; size + 1];
        for (key, _) in entries.clone().filter(|&(key, _)| key != NONE) {
            start[key as usize + 1] += 1;
        }
        for at in 0..size {
            start[at + 1] += start[at];
        }
        let mut fill = start.clone();
        let mut items = vec![T::default(); start[size] as usize];
        for (key, item) in entries.filter(|&(key, _)| key != NONE) {
            items[fill[key as usize] as usize] = item;
            fill[key as usize] += 1;
        }
        Self { start, items }
    }

    fn get(&self, key: u32) -> &[T] {
        &self.items[self.start[key as usize] as usize..self.start[key as usize + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpe::Merge;
    use proptest::prelude::*;
    use rustc_hash::{FxHashMap, FxHashSet};

    /// Three atoms and random merges, products repeated at times, ranks in any order.
    fn random_bpe(picks: &[(u8, u8, bool)]) -> Bpe {
        let mut spelled: Vec<Vec<u32>> = (0..3).map(|a| vec![a]).collect();
        let mut merges = FxHashMap::default();
        for (rank, &(a, b, early)) in picks.iter().enumerate() {
            let (a, b) = (usize::from(a) % spelled.len(), usize::from(b) % spelled.len());
            let whole = [spelled[a].clone(), spelled[b].clone()].concat();
            if whole.len() > 6 {
                continue;
            }
            let product = spelled.iter().position(|s| *s == whole).unwrap_or_else(|| {
                spelled.push(whole);
                spelled.len() - 1
            });
            let rank = if early { 100 - rank as u32 } else { 200 + rank as u32 };
            merges.insert((a as u32, b as u32), Merge { rank, product: product as u32 });
        }
        let symbols = spelled.clone();
        Bpe::new(merges, spelled.len(), move |id, out| out.extend(&symbols[id as usize]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn pairs_are_what_bpe_gives_back(picks in prop::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 1..14)) {
            let bpe = random_bpe(&picks);
            let index = PairIndex::new(&bpe);
            let reachable: Vec<u32> = (0..bpe.own.len() as u32).filter(|&t| bpe.reachable[t as usize]).collect();
            for &left in &reachable {
                let mut invalid = FxHashSet::default();
                index.for_each_invalid(&bpe, left, |t| { invalid.insert(t); });
                for &right in &reachable {
                    let truth = bpe.rerun_holds(left, right);
                    prop_assert_eq!(bpe.pair_valid(left, right), truth, "{} {}", left, right);
                    prop_assert_eq!(!invalid.contains(&right), truth, "index {} {}", left, right);
                }
            }
        }
    }
}
