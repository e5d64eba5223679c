//! Cutting a known text: the ordered NFA made deterministic, once, when a tokenizer is loaded.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::classes::Classes;
use super::program::{Program, Thread};

/// More states than any published pattern needs by a factor of a hundred.
const MAX_STATES: usize = 20_000;
const DEAD: u32 = u32::MAX >> 1;
const MATCH: u32 = 1 << 31;

/// One layer: a table from (state, class of the next character or end) to the next state, with a flag that says
/// whether a match ends before that character.
#[derive(Debug)]
pub struct Splitter {
    table: Vec<u32>,
    width: usize,
}

impl Splitter {
    /// Makes the table. Fails where it would be too large.
    pub fn new(program: &Program, classes: usize) -> Result<Self, String> {
        let width = classes + 1;
        let mut number: FxHashMap<Vec<Thread>, u32> = FxHashMap::default();
        let mut states = vec![program.start().to_vec()];
        number.insert(states[0].clone(), 0);
        let mut table = Vec::new();
        let mut at = 0;
        while at < states.len() {
            let threads = states[at].clone();
            for next in 0..width {
                let class = (next < classes).then_some(next as u8);
                let resolved = program.resolve(&threads, class);
                let flag = if resolved.matched { MATCH } else { 0 };
                let after = class.map(|c| program.read(&resolved.reading, c)).unwrap_or_default();
                if after.is_empty() {
                    table.push(DEAD | flag);
                    continue;
                }
                let fresh = states.len() as u32;
                let state = *number.entry(after).or_insert_with_key(|threads| {
                    states.push(threads.clone());
                    fresh
                });
                table.push(state | flag);
            }
            if states.len() > MAX_STATES {
                return Err("a pattern whose automaton is too large".into());
            }
            at += 1;
        }
        Ok(Self { table, width })
    }

    /// Appends the pieces of `text[piece]`: matches, and the runs between them that nothing matches.
    pub fn split(&self, classes: &Classes, text: &str, piece: Range<usize>, out: &mut Vec<Range<usize>>) {
        let (mut at, mut gap) = (piece.start, piece.start);
        while at < piece.end {
            if let Some(end) = self.match_at(classes, &text[at..piece.end]) {
                if gap < at {
                    out.push(gap..at);
                }
                out.push(at..at + end);
                at += end;
                gap = at;
            } else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        if gap < piece.end {
            out.push(gap..piece.end);
        }
    }

    /// The length of the match at the front of `text`.
    fn match_at(&self, classes: &Classes, text: &str) -> Option<usize> {
        let (mut state, mut found) = (0usize, None);
        let mut chars = text.char_indices();
        loop {
            let (at, class) = chars.next().map_or((text.len(), self.width - 1), |(at, c)| (at, classes.of(c) as usize));
            let entry = self.table[state * self.width + class];
            if entry & MATCH != 0 {
                found = Some(at);
            }
            state = (entry & !MATCH) as usize;
            if state == DEAD as usize {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::pretoken::Pretokenizer;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::sync::LazyLock;

    const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const O200K: &str = concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    const LETTERS: &str = r"[A-Za-z]+|[^\r\n\p{L}]?[\p{L}\p{M}]+";

    fn reference(pattern: &str, text: &str) -> Vec<(usize, usize)> {
        thread_local!(static ENGINES: RefCell<HashMap<String, fancy_regex::Regex>> = RefCell::default());
        let regex = ENGINES.with_borrow_mut(|engines| {
            engines.entry(pattern.into()).or_insert_with(|| fancy_regex::Regex::new(pattern).unwrap()).clone()
        });
        let (mut out, mut last) = (Vec::new(), 0);
        for found in regex.find_iter(text).map(Result::unwrap) {
            if last < found.start() {
                out.push((last, found.start()));
            }
            out.push((found.start(), found.end()));
            last = found.end();
        }
        if last < text.len() {
            out.push((last, text.len()));
        }
        out
    }

    static COMPILED: LazyLock<Vec<(&str, Pretokenizer)>> = LazyLock::new(|| {
        let compile = |pattern: &'static str| (pattern, Pretokenizer::new(&[pattern.to_string()]).unwrap());
        [QWEN, GPT2, O200K, LETTERS].map(compile).into()
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn splits_as_a_backtracking_engine_does(
            text in r"([ \t\n\r]|\PC|[a-zA-Z'sltdLl]|[0-9]|[日Aaé\u{301}\u{a0}\u{3000}/!?ſ]){0,20}"
        ) {
            for (pattern, pretokenizer) in COMPILED.iter() {
                let mut pieces = Vec::new();
                pretokenizer.split(&text, &mut pieces);
                let ours: Vec<_> = pieces.iter().map(|r| (r.start, r.end)).collect();
                prop_assert_eq!(ours, reference(pattern, &text), "{}", pattern);
            }
        }
    }
}
