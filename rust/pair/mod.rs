//! A teacher's tokenizer beside a student's.

mod regime;

use std::sync::Arc;

pub use regime::{Regime, Verdict};

use crate::decide::Decisions;
use crate::error::{Error, Result};
use crate::parallel::map_blocks;
use crate::shared::SharedTokenizer;
use crate::spelling::{Spelling, Tables};
use crate::sync::Lazy;

/// Two tokenizers, and what their relation allows.
#[derive(Debug)]
pub struct Pair {
    /// The teacher's tokenizer.
    pub teacher: Arc<SharedTokenizer>,
    /// The student's.
    pub student: Arc<SharedTokenizer>,
    /// Ids that end a text for the teacher; special tokens, at least one.
    pub teacher_eos: Vec<u32>,
    /// The same for the student.
    pub student_eos: Vec<u32>,
    verdict: Verdict,
    tables: Lazy<Result<Arc<Tables>>>,
    decisions: Lazy<Result<Arc<Decisions>>>,
}

impl Pair {
    /// Compares the two. Fails (invalid) for ids that are not special tokens, or none.
    pub fn new(
        teacher: Arc<SharedTokenizer>,
        student: Arc<SharedTokenizer>,
        teacher_eos: Vec<u32>,
        student_eos: Vec<u32>,
    ) -> Result<Self> {
        for (tokenizer, eos, whose) in [(&teacher, &teacher_eos, "teacher"), (&student, &student_eos, "student")] {
            if eos.is_empty() {
                return Err(Error::Invalid(format!("the {whose} has no end-of-text id")));
            }
            if let Some(id) = eos.iter().find(|&&id| !tokenizer.tokenizer.special_ids().contains(&id)) {
                return Err(Error::Invalid(format!("end-of-text id {id} is not a special token of the {whose}")));
            }
        }
        let verdict = regime::compare(&teacher.tokenizer, &student.tokenizer);
        Ok(Self {
            teacher,
            student,
            teacher_eos,
            student_eos,
            verdict,
            tables: Lazy::default(),
            decisions: Lazy::default(),
        })
    }

    /// What their relation is.
    pub fn regime(&self) -> Regime {
        self.verdict.regime
    }

    /// Why the regime is what it is, in words.
    pub fn reason(&self) -> &str {
        &self.verdict.reason
    }

    /// The teacher's tokens as the student spells them, made at the first call. Fails (plan) in the general regime.
    pub fn tables(&self) -> Result<Arc<Tables>> {
        let make = || {
            if self.regime() == Regime::General {
                let reason = format!("in the general regime tokens are not spelled one by one ({})", self.reason());
                return Err(Error::Plan(reason));
            }
            let canonical = self.teacher.canonical()?;
            let spelling = Spelling::in_student(&canonical, &self.student.tokenizer)?;
            Ok(Arc::new(Tables::new(canonical, spelling)))
        };
        self.tables.get_or_make(make).clone()
    }

    /// What decides in the general regime, made at the first call.
    pub fn decisions(&self) -> Result<Arc<Decisions>> {
        let make = || Decisions::new(&self.teacher, &self.student).map(Arc::new);
        self.decisions.get_or_make(make).clone()
    }

    /// The first student token of each of the teacher's tokens by itself, in the order that plans refer to; none where
    /// the student cannot read its beginning.
    pub fn first_tokens(&self, threads: usize) -> Result<Vec<Option<u32>>> {
        let (order, student) = (self.order()?, &self.student.tokenizer);
        let first = |token: u32| {
            let bytes = self.teacher.tokenizer.bytes.get(token);
            let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            student.encode(text, false).ok().and_then(|ids| ids.first().copied())
        };
        let parts = map_blocks(order.len(), 1 << 12, threads, |block| {
            order[block].iter().map(|&token| first(token)).collect::<Vec<_>>()
        });
        Ok(parts.concat())
    }

    /// How many student tokens are longer than each one and begin with it, by id.
    pub fn longer_tokens(&self) -> Result<Vec<u32>> {
        let (trie, tables) = (self.student.byte_trie()?, self.student.byte_tables()?);
        let mut longer = vec![0; self.student.tokenizer.vocab_size];
        for at in 0..trie.len() as u32 {
            let node = trie.node(at);
            for place in node.first..node.exact {
                longer[tables.spelling.tokens()[place as usize] as usize] = node.last - node.exact;
            }
        }
        Ok(longer)
    }

    /// The teacher's tokens in the order that plans refer to.
    pub fn order(&self) -> Result<Vec<u32>> {
        let tables = if self.regime() == Regime::General { self.teacher.byte_tables()? } else { self.tables()? };
        Ok(tables.spelling.tokens().to_vec())
    }
}
