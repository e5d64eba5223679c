//! A text as both sides see it: its bytes, and where its student tokens end.

use crate::tokenizer::Tokenizer;

/// Bytes in the teacher's count, dummy prefix included.
#[derive(Debug)]
pub struct Line {
    pub bytes: Vec<u8>,
    /// Where s_1..s_i ends, i = 0..=n.
    pub ends: Vec<usize>,
    pub ids: Vec<u32>,
    pub start: bool,
}

impl Line {
    /// The text of student ids; `start`: it starts a document.
    pub fn new(teacher: &Tokenizer, student: &Tokenizer, ids: &[u32], start: bool) -> Self {
        // A dummy prefix stands before every text that is not empty, so before all of which these are a beginning.
        let dummy = |tokenizer: &Tokenizer| start && tokenizer.dummy.is_some() && !ids.is_empty();
        let mut skip = usize::from(dummy(student));
        let mut bytes = if dummy(teacher) { vec![b' '] } else { Vec::new() };
        let mut ends = vec![bytes.len()];
        for &id in ids {
            let token = student.bytes.get(id);
            let skipped = skip.min(token.len());
            skip -= skipped;
            bytes.extend_from_slice(&token[skipped..]);
            ends.push(bytes.len());
        }
        Self { bytes, ends, ids: ids.to_vec(), start }
    }

    /// All i such that s_1..s_i ends at a byte.
    pub fn ending_at(&self, byte: usize) -> std::ops::Range<usize> {
        self.ends.partition_point(|&end| end < byte)..self.ends.partition_point(|&end| end <= byte)
    }

    /// The largest i such that s_1..s_i ends at or before a byte.
    pub fn depth(&self, byte: usize) -> usize {
        self.ends.partition_point(|&end| end <= byte).saturating_sub(1)
    }
}
