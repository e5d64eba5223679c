//! A fixed-size set of small numbers. Indices must be below its length; they are not checked against it.

/// Byte `i` of `SPREAD[bits]` is bit `i` of `bits`, in memory order.
const SPREAD: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut at = 0;
    while at < 256 * 8 {
        table[at / 8][at % 8] = (((at / 8) >> (at % 8)) & 1) as u8;
        at += 1;
    }
    table
};

/// A set of numbers below `len`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// The empty set of numbers below `len`.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// The set of all numbers below `len`.
    pub fn full(len: usize) -> Self {
        let mut all = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        if let Some(last) = all.words.last_mut().filter(|_| !len.is_multiple_of(64)) {
            *last = (1 << (len % 64)) - 1;
        }
        all
    }

    /// The bound on its members (not their number).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the bound is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub fn get(&self, at: usize) -> bool {
        self.words[at / 64] >> (at % 64) & 1 == 1
    }

    #[inline]
    pub fn set(&mut self, at: usize, value: bool) {
        let bit = 1 << (at % 64);
        if value {
            self.words[at / 64] |= bit;
        } else {
            self.words[at / 64] &= !bit;
        }
    }

    #[inline]
    pub fn clear(&mut self, at: usize) {
        self.set(at, false);
    }

    /// Adds the members of a set with the same bound.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Writes the set as `flags`, one byte each; members beyond their end are left out, flags beyond the set are 0.
    pub fn spread(&self, flags: &mut [u8]) {
        let bytes = |at: usize| &SPREAD[((self.words[at / 8] >> (at % 8 * 8)) & 0xFF) as usize];
        let (used, beyond) = flags.split_at_mut(flags.len().min(self.len));
        beyond.fill(0);
        // Arrays, not slices: one store each.
        let (chunks, rest) = used.as_chunks_mut::<8>();
        let (whole, len) = (chunks.len(), rest.len());
        for (at, chunk) in chunks.iter_mut().enumerate() {
            *chunk = *bytes(at);
        }
        if len > 0 {
            rest.copy_from_slice(&bytes(whole)[..len]);
        }
    }

    /// Whether any of `from..to` is in the set.
    pub fn any(&self, from: usize, to: usize) -> bool {
        self.ones(from, to).next().is_some()
    }

    /// The members among `from..to`, ascending.
    pub fn ones(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + '_ {
        (from / 64..to.div_ceil(64)).flat_map(move |at| {
            let mut word = self.words[at];
            if at == from / 64 {
                word &= u64::MAX << (from % 64);
            }
            if at == to / 64 {
                word &= (1 << (to % 64)) - 1;
            }
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn spread_flags_are_the_members() {
        let mut bits = Bits::new(150);
        for at in [0, 1, 63, 64, 127, 149] {
            bits.set(at, true);
        }
        for width in [1, 7, 64, 100, 149, 150, 200] {
            let mut flags = vec![7; width];
            bits.spread(&mut flags);
            let wanted: Vec<u8> = (0..width).map(|at| u8::from(at < 150 && bits.get(at))).collect();
            assert_eq!(flags, wanted);
        }
    }
}
