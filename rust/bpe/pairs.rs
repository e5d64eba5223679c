//! Which tokens may stand side by side inside one pretoken (docs/mathematics.md, facts 3 and 4).
//!
//! A sequence of reachable tokens is what BPE makes of its bytes iff this holds for every adjacent pair. A pair is broken iff
//! two symbols that touch, one on the right spine of the left token and one on the left spine of the right token, live at the
//! same time and merge before either is used up. Between proper tokens the spines' own ranks tell those times. The right end of
//! an improper token is watched while BPE makes it; what its times leave open is decided by running BPE on the pair, as is
//! every pair with an improper token on the right.

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

    /// What is at the right end of a reachable token while BPE makes it.
    fn right_edge(&self, token: u32) -> Vec<Edge> {
        let mut symbols = Vec::new();
        self.leaves(token, &mut symbols);
        let last = symbols.last().copied();
        let mut edge: Vec<Edge> = last.into_iter().map(|symbol| Edge { symbol, born: EVER, used: NEVER }).collect();
        let mut highest = EVER;
        while let Some((rank, at, product)) = self.lowest(&symbols) {
            highest = highest.max(i64::from(rank));
            symbols[at] = product;
            symbols.remove(at + 1);
            if at + 1 == symbols.len() {
                edge.last_mut().expect("a symbol was merged").used = highest;
                edge.push(Edge { symbol: product, born: highest, used: NEVER });
            }
        }
        edge
    }

    /// Whether merges up to a rank join the ends of two reachable tokens.
    fn crosses(&self, left: u32, right: u32, rank: i64) -> bool {
        let mut symbols = Vec::new();
        self.leaves(left, &mut symbols);
        let mut border = symbols.len();
        self.leaves(right, &mut symbols);
        while let Some(merge) = self.lowest(&symbols).filter(|merge| i64::from(merge.0) <= rank) {
            let (_, at, product) = merge;
            if at + 1 == border {
                return true;
            }
            border -= usize::from(at + 1 < border);
            symbols[at] = product;
            symbols.remove(at + 1);
        }
        false
    }

    /// Rank, place and product of the merge that comes next.
    fn lowest(&self, symbols: &[u32]) -> Option<(u32, usize, u32)> {
        let pairs = symbols.windows(2).enumerate();
        pairs.filter_map(|(at, pair)| self.lookup(pair[0], pair[1]).map(|m| (m.rank, at, m.product))).min()
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

/// A symbol at the right end of a token, while BPE makes the token of its leaves.
struct Edge {
    symbol: u32,
    /// The highest rank that has merged when the symbol is there: its own merge may have a lower one, and have waited.
    born: i64,
    /// The same for the merge that uses it up.
    used: i64,
}

impl Edge {
    /// Whether the symbol merges, with this rank, with one at the left end of the token after it, which is born and used up
    /// at these times. `None` where one happens at the same rank as another, and their order tells.
    fn merges(&self, rank: i64, born: i64, used: i64) -> Option<bool> {
        let (born, used) = (self.born.max(born), self.used.min(used));
        let last = rank.max(born);
        if last == used { None } else { Some(last < used) }
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
            self.edge_conflicts(bpe, left, &mut invalid);
        }
        for &right in self.improper.iter().filter(|&&right| !bpe.pair_valid(left, right)) {
            invalid(right);
        }
    }

    /// For an improper left token the proper right ones: those whose left spine holds a symbol that merges with its end.
    fn edge_conflicts(&self, bpe: &Bpe, left: u32, invalid: &mut impl FnMut(u32)) {
        for edge in bpe.right_edge(left) {
            for &(rank, right) in self.merges.get(edge.symbol) {
                let (rank, born) = (i64::from(rank), bpe.born(right));
                if rank > edge.used {
                    break;
                }
                let mut crosses = None;
                let mut merges = |used: i64| match edge.merges(rank, born, used) {
                    // What follows `right` in its token has no say before `right` is used up.
                    None if used > edge.used => {
                        Some(*crosses.get_or_insert_with(|| bpe.crosses(left, right, edge.used)))
                    }
                    known => known,
                };
                let whole = bpe.proper[right as usize].then_some((NEVER, std::slice::from_ref(&right)));
                let spines = self.children.get(right).iter().map(|&child| {
                    let (from, to) = self.interval[child as usize];
                    (bpe.born(child), &self.order[from as usize..to as usize])
                });
                for (used, tokens) in whole.into_iter().chain(spines) {
                    match merges(used) {
                        Some(true) => tokens.iter().for_each(|&token| invalid(token)),
                        Some(false) => {}
                        None => {
                            tokens.iter().filter(|&&token| !bpe.rerun_holds(left, token)).for_each(|&t| invalid(t));
                        }
                    }
                }
            }
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
