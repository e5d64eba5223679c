//! Pretokenizers: how a text is cut into the pieces that BPE then works on, one by one.
//!
//! One compiled pattern ([`program::Program`]) serves two readers: [`split`] cuts a text that is wholly known, and
//! [`boundaries`] follows a text whose continuation is still open, guessing boundaries and keeping obligations.

pub mod boundaries;
pub mod classes;
pub mod pattern;
pub mod program;
pub mod split;

use std::ops::Range;

use boundaries::Boundaries;
use classes::Classes;
use program::Program;
use split::Splitter;

/// A sequence of isolating splits, outermost first: the pieces of one layer are the inputs of the next.
#[derive(Debug)]
pub struct Pretokenizer {
    classes: Classes,
    programs: Vec<Program>,
    splitters: Vec<Splitter>,
}

impl Pretokenizer {
    /// Compiles the patterns of the layers. The error names the construct that is not supported.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let parsed = patterns.iter().map(|p| pattern::parse(p)).collect::<Result<Vec<_>, _>>()?;
        let mut sets = Vec::new();
        for node in &parsed {
            node.collect_sets(&mut sets);
        }
        let classes = Classes::new(&sets)?;
        let programs = parsed.iter().map(|node| Program::compile(node, &classes)).collect::<Result<Vec<_>, _>>()?;
        let splitters = programs.iter().map(|p| Splitter::new(p, classes.len())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { classes, programs, splitters })
    }

    /// Cuts `text` into pieces: byte ranges in order, without gaps. Without layers the text is one piece.
    pub fn split(&self, text: &str, out: &mut Vec<Range<usize>>) {
        out.clear();
        if text.is_empty() {
            return;
        }
        out.push(0..text.len());
        let mut inner = Vec::new();
        for splitter in &self.splitters {
            inner.clear();
            for piece in out.iter() {
                splitter.split(&self.classes, text, piece.clone(), &mut inner);
            }
            std::mem::swap(out, &mut inner);
        }
    }

    /// The classes of characters that the patterns can tell apart.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The automaton over texts whose end is not known yet.
    pub fn boundaries(&self) -> Result<Boundaries, String> {
        Boundaries::new(&self.programs, self.classes.len())
    }
}
