//! How each teacher token is spelled in student tokens (docs/mathematics.md, facts 14 and 17).
//!
//! In the subset regime the student's encoding of a text is the concatenation, token by token, of these spellings. Sorted by
//! spelling, the teacher tokens that begin with given student tokens stand side by side.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::canonical::Canonical;
use crate::canonical::masks::Masks;
use crate::canonical::shape::Use;
use crate::error::{Error, Result};
use crate::tokenizer::{TokenKind, Tokenizer};

/// The tables that plans are made from: teacher tokens in the order of their spellings, with masks in the same order.
#[derive(Debug)]
pub struct Tables {
    /// Of the teacher.
    pub canonical: Arc<Canonical>,
    /// The order.
    pub spelling: Spelling,
    /// Masks whose bit `i` is the token at place `i` of the order.
    pub masks: Masks,
}

impl Tables {
    pub fn new(canonical: Arc<Canonical>, spelling: Spelling) -> Self {
        let masks = Masks::new(Arc::clone(&canonical), spelling.tokens().to_vec());
        Self { canonical, spelling, masks }
    }
}

/// Teacher tokens that can stand in an encoding, sorted by their spellings, compared as id sequences.
#[derive(Debug)]
pub struct Spelling {
    tokens: Vec<u32>,
    ptr: Vec<u32>,
    ids: Vec<u32>,
}

/// Tokens at places `first..last` of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first place.
    pub first: usize,
    /// The place behind the last.
    pub last: usize,
}

impl Range {
    /// Whether no token is in it.
    pub fn is_empty(self) -> bool {
        self.first >= self.last
    }
}

impl Spelling {
    /// Spelled in bytes: the student whose tokens are single bytes.
    pub fn in_bytes(canonical: &Canonical) -> Self {
        let tokenizer = &canonical.tokenizer;
        Self::sorted(usable(canonical).map(|t| (t, tokenizer.bytes.get(t).iter().map(|&b| u32::from(b)).collect())))
    }

    /// Spelled in the tokens of a student in the regime "same" or "subset": the student's merges applied to the token's
    /// symbols; an added token or fallback byte goes to itself, a whole pretoken to what the student's own look-up gives.
    pub fn in_student(canonical: &Canonical, student: &Tokenizer) -> Result<Self> {
        let teacher = &canonical.tokenizer;
        let atoms = Atoms::new(student);
        let spell = |t: u32| {
            let (shape, bytes) = (canonical.shapes.shape[t as usize], teacher.bytes.get(t));
            if shape.matched {
                return atoms.added.get(bytes).map(|&id| vec![id]);
            }
            // Only whole pretokens: where the student looks them up too (regime "same"), it finds a token of its own.
            if shape.usable == Use::Whole
                && let Some(id) = student.whole_pretoken(bytes)
            {
                return Some(vec![id]);
            }
            let mut symbols: Vec<u32> =
                teacher.symbols_of(t).iter().map(|&s| atoms.of(teacher, s)).collect::<Option<_>>()?;
            student.bpe.merge(&mut symbols);
            Some(symbols)
        };
        let spelled = usable(canonical)
            .map(|t| spell(t).map(|ids| (t, ids)).ok_or(t))
            .collect::<std::result::Result<Vec<_>, u32>>()
            .map_err(|t| Error::Plan(format!("the student cannot spell teacher token {t}")))?;
        Ok(Self::sorted(spelled.into_iter()))
    }

    fn sorted(spelled: impl Iterator<Item = (u32, Vec<u32>)>) -> Self {
        let mut all: Vec<(Vec<u32>, u32)> =
            spelled.filter(|(_, ids)| !ids.is_empty()).map(|(token, ids)| (ids, token)).collect();
        all.sort_unstable();
        let mut out = Self { tokens: Vec::with_capacity(all.len()), ptr: vec![0], ids: Vec::new() };
        for (ids, token) in all {
            out.tokens.push(token);
            out.ids.extend(ids);
            out.ptr.push(out.ids.len() as u32);
        }
        out
    }

    /// The teacher tokens in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Offsets of the spellings, one more than tokens.
    pub fn ptr(&self) -> &[u32] {
        &self.ptr
    }

    /// The spellings, one after the other.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The spelling at a place of the order.
    pub fn get(&self, place: usize) -> &[u32] {
        &self.ids[self.ptr[place] as usize..self.ptr[place + 1] as usize]
    }

    /// All tokens.
    pub fn all(&self) -> Range {
        Range { first: 0, last: self.tokens.len() }
    }

    /// Those of `range` whose spelling has `id` at `depth`; all of `range` must agree before it.
    pub fn narrow(&self, range: Range, depth: usize, id: u32) -> Range {
        let places = range.first..range.last;
        let below = |place: usize| self.get(place).get(depth).is_none_or(|&at| at < id);
        let first = partition(places.clone(), below);
        let last = partition(first..places.end, |place| self.get(place).get(depth) == Some(&id));
        Range { first, last }
    }

    /// Those of `range` that end at `depth`; they come first.
    pub fn exact(&self, range: Range, depth: usize) -> std::ops::Range<usize> {
        let end = (range.first..range.last).find(|&place| self.get(place).len() > depth).unwrap_or(range.last);
        range.first..end
    }
}

/// The first place at which `below` no longer holds.
fn partition(places: std::ops::Range<usize>, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (places.start, places.end);
    while low < high {
        let middle = usize::midpoint(low, high);
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn usable(canonical: &Canonical) -> impl Iterator<Item = u32> + '_ {
    let shapes = &canonical.shapes.shape;
    (0..shapes.len() as u32).filter(|&t| {
        let shape = shapes[t as usize];
        shape.matched || shape.usable != Use::Never
    })
}

/// A student's symbols and added tokens, found by what they stand for.
struct Atoms<'a> {
    symbols: FxHashMap<(&'a [u8], bool), u32>,
    added: FxHashMap<&'a [u8], u32>,
}

impl<'a> Atoms<'a> {
    fn new(student: &'a Tokenizer) -> Self {
        let mut symbols = FxHashMap::default();
        let mut added = FxHashMap::default();
        for id in 0..student.vocab_size as u32 {
            let bytes = student.bytes.get(id);
            let fallback = student.kind[id as usize] == TokenKind::Fallback;
            if student.symbols_of(id) == [id] {
                symbols.insert((bytes, fallback), id);
            }
            if student.kind[id as usize] == TokenKind::Added {
                added.insert(bytes, id);
            }
        }
        Self { symbols, added }
    }

    fn of(&self, teacher: &Tokenizer, symbol: u32) -> Option<u32> {
        let fallback = teacher.kind[symbol as usize] == TokenKind::Fallback;
        self.symbols.get(&(teacher.bytes.get(symbol), fallback)).copied()
    }
}
