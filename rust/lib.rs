//! crosstok's core: what a teacher with one BPE tokenizer thinks of the tokens of another.
//!
//! The data flows one way: tokenizer.json → [`tokenizer`] (with [`pretoken`] and [`bpe`]) → [`canonical`] →
//! [`spelling`] → [`pair`] → [`plan`]. Nothing here knows about Python except `python`, behind the feature of that name; nothing knows about models.

mod bits;
pub mod bpe;
pub mod canonical;
pub mod decide;
pub mod error;
pub mod pair;
mod parallel;
pub mod plan;
pub mod pretoken;
pub mod shared;
pub mod spelling;
mod sync;
pub mod tokenizer;
pub mod trie;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
