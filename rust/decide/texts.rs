//! Which of the teacher's texts are the student's too, as far as single tokens tell.
//!
//! A student that reads every text leaves one question, which student tokens come. Others cannot spell some characters, or
//! normalize them away; then it is also a question whether a teacher prefix has a continuation that both can read.

use super::side::Side;
use crate::canonical::nfc;
use crate::spelling::Spelling;
use crate::tokenizer::symbols::NO_SYMBOL;
use crate::tokenizer::{Dummy, Symbols, Tokenizer};
use crate::trie::Trie;

/// What the teacher's tokens may hold that the student cannot read.
#[derive(Debug)]
pub struct Texts {
    /// The student reads every text that the teacher does.
    pub all: bool,
    /// By node of the teacher's trie: bytes from the root behind which no token below holds a character that the student may
    /// not be able to read in some place.
    trouble: Vec<u16>,
    depth: Vec<u16>,
}

impl Texts {
    /// Looks at every token of the teacher.
    pub fn new(teacher: &Side, student: &Tokenizer) -> Self {
        let tokenizer = &teacher.tables.canonical.tokenizer;
        let all = reads_all(tokenizer, student);
        let depth = (0..teacher.trie.len() as u32).map(|at| teacher.trie.node(at).depth).collect();
        if all {
            return Self { all, trouble: vec![0; teacher.trie.len()], depth };
        }
        let spelling = &teacher.tables.spelling;
        let places = 0..spelling.tokens().len() as u32;
        let unread = Unread { teacher: tokenizer, student };
        let by_place: Vec<u16> = places.map(|place| unread.last(teacher.bytes(teacher.token(place)))).collect();
        Self { all, trouble: along(&teacher.trie, spelling, &by_place), depth }
    }

    /// Whether the student reads whatever the tokens below a node of the teacher's trie hold behind the node's path.
    pub fn plain_below(&self, at: u32) -> bool {
        self.plain_behind(at, at)
    }

    /// Whether the student reads whatever the tokens below `child` hold behind the path of the node `at` above it.
    pub fn plain_behind(&self, at: u32, child: u32) -> bool {
        self.trouble[child as usize] <= self.depth[at as usize]
    }
}

/// The most of any token below each node.
fn along(trie: &Trie, spelling: &Spelling, by_place: &[u16]) -> Vec<u16> {
    debug_assert_eq!(spelling.tokens().len(), by_place.len());
    let mut most = vec![0; trie.len()];
    for at in (0..trie.len() as u32).rev() {
        let node = trie.node(at);
        let exact = (node.first..node.exact).map(|place| by_place[place as usize]).max().unwrap_or(0);
        let below = trie.children(at).map(|(_, child)| most[child as usize]).max().unwrap_or(0);
        most[at as usize] = exact.max(below);
    }
    most
}

/// Whether every text that is admissible for the teacher is so for the student.
fn reads_all(teacher: &Tokenizer, student: &Tokenizer) -> bool {
    let (ours, theirs) = (&student.normalizer, &teacher.normalizer);
    let marker = student.symbols.marker();
    !(ours.strip_left || ours.strip_right)
        && (!ours.nfc || theirs.nfc)
        && (marker.is_none() || marker == teacher.symbols.marker())
        && (student.dummy != Some(Dummy::UnlessSpace) || teacher.dummy == Some(Dummy::UnlessSpace))
        && spells_all(&student.symbols)
}

/// Whether every character has symbols. (The bytes C0, C1 and those from F5 on are in none.)
fn spells_all(symbols: &Symbols) -> bool {
    let table = match symbols {
        Symbols::Bytes { id_of_byte } => Some(id_of_byte),
        Symbols::Chars { fallback, .. } => fallback.as_ref(),
    };
    let missing = |(byte, id): (usize, &u32)| byte < 0xF5 && byte & 0xFE != 0xC0 && *id == NO_SYMBOL;
    table.is_some_and(|ids| !ids.iter().enumerate().any(missing))
}

/// Whether the student has symbols for a character.
fn spells(student: &Tokenizer, c: char) -> bool {
    let c = if c == ' ' { student.symbols.marker().unwrap_or(c) } else { c };
    let mut buffer = [0; 4];
    student.symbols.spell(c.encode_utf8(&mut buffer), &mut Vec::new()).is_ok()
}

struct Unread<'a> {
    teacher: &'a Tokenizer,
    student: &'a Tokenizer,
}

impl Unread<'_> {
    /// The end of the last character that the student may not be able to read; unfinished characters are such.
    fn last(&self, bytes: &[u8]) -> u16 {
        let mut end = 0;
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                at += c.len_utf8();
                if !self.reads(c) {
                    end = at;
                }
            }
            at += chunk.invalid().len();
            if !chunk.invalid().is_empty() {
                end = at;
            }
        }
        end as u16
    }

    fn reads(&self, c: char) -> bool {
        let normalizer = &self.student.normalizer;
        let stripped = (normalizer.strip_left || normalizer.strip_right) && c.is_whitespace();
        let composed = normalizer.nfc && !self.teacher.normalizer.nfc && !nfc::starts_afresh(c);
        let marker = self.student.symbols.marker() == Some(c);
        // In front of a text, a space of its own cannot be told from the dummy prefix.
        let doubled = self.student.dummy == Some(Dummy::UnlessSpace) && c == ' ';
        !stripped && !composed && !marker && !doubled && spells(self.student, c)
    }
}
