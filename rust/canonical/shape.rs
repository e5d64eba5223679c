//! What a token does to the character level: the bytes with which it completes a character, its whole characters, and the
//! bytes of a character that it leaves unfinished.

use super::partial::{Fed, Partial};
use crate::pretoken::boundaries::{Boundaries, State as PretokenState, States, Step};
use crate::pretoken::classes::Class;
use crate::tokenizer::{TokenKind, Tokenizer};
use rustc_hash::FxHashMap;

/// How a token can be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Never part of an encoding.
    Never,
    /// Merged from its symbols.
    Merged,
    /// No merge reaches it: a pretoken of its own (`ignore_merges`).
    Whole,
}

/// The shape of one token.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How it can be used, matching aside.
    pub usable: Use,
    /// Matched in the text before all else (an added token that is not special).
    pub matched: bool,
    /// Leading bytes that can only continue a character.
    pub lead: u8,
    /// Bytes of the character left unfinished at the end.
    pub tail: u8,
    /// Index of the class string of the whole characters in between.
    pub classes: u32,
}

/// Shapes of all tokens, with their class strings shared.
#[derive(Debug)]
pub struct Shapes {
    /// By id.
    pub shape: Vec<Shape>,
    /// Distinct class strings, flat.
    data: Vec<Class>,
    offsets: Vec<u32>,
}

impl Shapes {
    /// Reads every token once.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let mut shapes = Self { shape: Vec::new(), data: Vec::new(), offsets: vec![0] };
        let mut number: FxHashMap<Vec<Class>, u32> = FxHashMap::default();
        let added = matched_ids(tokenizer);
        for id in 0..tokenizer.vocab_size as u32 {
            let mut shape = shapes.read(tokenizer, id, &mut number);
            shape.matched = added.get(&id).is_some_and(|content| content == tokenizer.bytes.get(id));
            shapes.shape.push(shape);
        }
        shapes
    }

    /// The shape of a token; none for an id beyond the vocabulary.
    pub fn get(&self, id: u32) -> Option<&Shape> {
        self.shape.get(id as usize)
    }

    /// Classes of a token's whole characters.
    pub fn classes(&self, index: u32) -> &[Class] {
        &self.data[self.offsets[index as usize] as usize..self.offsets[index as usize + 1] as usize]
    }

    /// Number of distinct class strings.
    pub fn distinct(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Hands a token's whole characters to `each`, until it says no; whether it never did.
    pub fn run(&self, tokenizer: &Tokenizer, id: u32, mut each: impl FnMut(char) -> bool) -> bool {
        let shape = &self.shape[id as usize];
        let bytes = tokenizer.bytes.get(id);
        let inner = &bytes[shape.lead as usize..bytes.len() - shape.tail as usize];
        // Checked when the shape was read: the inner part is valid UTF-8.
        std::str::from_utf8(inner).is_ok_and(|text| text.chars().all(&mut each))
    }

    fn read(&mut self, tokenizer: &Tokenizer, id: u32, number: &mut FxHashMap<Vec<Class>, u32>) -> Shape {
        let bytes = tokenizer.bytes.get(id);
        let never = Shape { usable: Use::Never, matched: false, lead: 0, tail: 0, classes: 0 };
        let lead = bytes.iter().take_while(|&&b| (0x80..0xC0).contains(&b)).count();
        let Some(tail) = tail_length(&bytes[lead..]) else { return never };
        let usable = usable(tokenizer, id, bytes);
        if lead > 3 || bytes.is_empty() || (usable == Use::Whole && lead + tail > 0) {
            return never;
        }
        let inner = &bytes[lead..bytes.len() - tail];
        let classes = std::str::from_utf8(inner).map_or_else(|_| Vec::new(), |text| class_string(tokenizer, text));
        let fresh = number.len() as u32;
        let index = *number.entry(classes).or_insert_with_key(|classes| {
            self.data.extend_from_slice(classes);
            self.offsets.push(self.data.len() as u32);
            fresh
        });
        Shape { usable, matched: false, lead: lead as u8, tail: tail as u8, classes: index }
    }
}

/// The class that the pretokenizer sees: spaces are the marker there.
pub fn class_of(tokenizer: &Tokenizer, c: char) -> Class {
    let c = if c == ' ' { tokenizer.symbols.marker().unwrap_or(c) } else { c };
    tokenizer.pretokenizer.classes().of(c)
}

fn class_string(tokenizer: &Tokenizer, text: &str) -> Vec<Class> {
    text.chars().map(|c| class_of(tokenizer, c)).collect()
}

fn usable(tokenizer: &Tokenizer, id: u32, bytes: &[u8]) -> Use {
    match tokenizer.kind[id as usize] {
        TokenKind::Fallback => Use::Merged,
        TokenKind::Normal | TokenKind::Added if tokenizer.in_model(id) => {
            if tokenizer.bpe.reachable.get(id as usize) == Some(&true) {
                Use::Merged
            } else if tokenizer.whole_pretoken(bytes) == Some(id) {
                Use::Whole
            } else {
                Use::Never
            }
        }
        _ => Use::Never,
    }
}

/// Contents of the added tokens that are matched, by id.
fn matched_ids(tokenizer: &Tokenizer) -> FxHashMap<u32, Vec<u8>> {
    [&tokenizer.added.raw, &tokenizer.added.normalized]
        .into_iter()
        .flat_map(|stage| &stage.patterns)
        .filter(|pattern| !pattern.special)
        .map(|pattern| (pattern.id, pattern.content.clone()))
        .collect()
}

/// How many bytes at the end belong to an unfinished character; `None` if no text has these bytes in a row.
fn tail_length(bytes: &[u8]) -> Option<usize> {
    let (mut partial, mut unfinished) = (Partial::NONE, 0);
    for &byte in bytes {
        match partial.feed(byte) {
            Fed::More(next) => (partial, unfinished) = (next, unfinished + 1),
            Fed::Char(_) => (partial, unfinished) = (Partial::NONE, 0),
            Fed::Invalid => return None,
        }
    }
    Some(unfinished)
}

/// Pretoken states after `classes`, read from `from` with `step` deciding about the boundary before them.
pub fn pretoken_run(boundaries: &Boundaries, from: PretokenState, mut step: Step, classes: &[Class], out: &mut States) {
    out.clear();
    out.push(from);
    for &class in classes {
        let mut next = States::new();
        for &state in out.iter() {
            for &after in boundaries.step(state, step, class) {
                if !next.contains(&after) {
                    next.push(after);
                }
            }
        }
        *out = next;
        step = Step::Join;
    }
}
