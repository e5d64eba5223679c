//! The one error type of the core. Messages are lower case and name the culprit; the Python side maps
//! each variant to an exception class.

/// What can go wrong. No variant stands for a bug: those are unreachable by construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A tokenizer.json that is well formed but asks for something this crate does not do.
    #[error("{field}: {reason}")]
    Unsupported {
        /// JSON path inside tokenizer.json, such as `model.dropout`.
        field: String,
        /// Why it is refused.
        reason: String,
    },
    /// A text that is not admissible (docs/mathematics.md, section 1).
    #[error("{}byte {offset}: {reason}", index.map_or_else(String::new, |index| format!("text {index}: ")))]
    Text {
        /// Position of the text in the batch; none for a single text.
        index: Option<usize>,
        /// Byte offset in the text as it was given.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A token sequence that no admissible text encodes to.
    #[error("not canonical: {0}")]
    NotCanonical(String),
    /// A plan that would exceed its limits.
    #[error("plan: {0}")]
    Plan(String),
    /// Input that makes no sense: malformed files, ids out of range.
    #[error("{0}")]
    Invalid(String),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal that names the JSON field.
    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }

    /// A text error of a single text; [`Error::at`] sets its place in a batch.
    pub(crate) fn text(offset: usize, reason: impl Into<String>) -> Self {
        Self::Text { index: None, offset, reason: reason.into() }
    }

    /// The same error, for text number `index` of a batch.
    #[must_use]
    pub(crate) fn at(self, index: usize) -> Self {
        match self {
            Self::Text { offset, reason, .. } => Self::Text { index: Some(index), offset, reason },
            other => other,
        }
    }
}
