//! The normalizer: strip, then NFC, then spaces to the marker; the prefix of `Prepend` is [`super::Dummy`].
//!
//! The order in the file does not matter among these where it is accepted: NFC maps nothing to or from a space or the
//! marker and keeps whitespace whitespace. `Strip` after a step that adds or hides spaces is refused.

use crate::error::{Error, Result};
use serde_json::Value;
use std::borrow::Cow;
use unicode_normalization_alignments::UnicodeNormalization;

/// What happens to text before it is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // four independent switches
pub struct Normalizer {
    /// Compose (NFC).
    pub nfc: bool,
    /// Remove whitespace at the start.
    pub strip_left: bool,
    /// Remove whitespace at the end.
    pub strip_right: bool,
    /// The character that spaces turn into.
    pub replace: Option<char>,
    /// Put a space (or the marker) before every non-empty text.
    pub prepend: bool,
}

impl Normalizer {
    /// Reads the `normalizer` field.
    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let mut reader = Reader::default();
        reader.read(value, "normalizer")?;
        reader.finish()
    }

    /// Normalized text as the pretokenizer sees it, without the prefix.
    pub(crate) fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let composed = self.compose(self.strip(text));
        match self.replace {
            Some(marker) if composed.contains(' ') => {
                let mut buffer = [0; 4];
                Cow::Owned(composed.replace(' ', marker.encode_utf8(&mut buffer)))
            }
            _ => composed,
        }
    }

    /// The part of the text that `Strip` leaves.
    pub(crate) fn strip<'a>(&self, text: &'a str) -> &'a str {
        let text = if self.strip_left { text.trim_start_matches(char::is_whitespace) } else { text };
        if self.strip_right { text.trim_end_matches(char::is_whitespace) } else { text }
    }

    fn compose<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.nfc || is_plainly_composed(text) {
            return Cow::Borrowed(text);
        }
        let composed: String = text.nfc().map(|(c, _)| c).collect();
        if composed == text { Cow::Borrowed(text) } else { Cow::Owned(composed) }
    }

    /// Byte offset in `text` of the character that normalized character number `index` comes from. Only used
    /// for messages, so it may take time linear in the text.
    pub(crate) fn original_offset(&self, text: &str, index: usize) -> usize {
        let kept = self.strip(text);
        let lead = if self.strip_left { text.len() - text.trim_start_matches(char::is_whitespace).len() } else { 0 };
        let char_index = if self.nfc { composed_source(kept, index) } else { index };
        lead + kept.char_indices().nth(char_index).map_or(kept.len(), |(offset, _)| offset)
    }
}

/// No character below U+0300 combines with anything, and all of them are composed: the common case, for free.
fn is_plainly_composed(text: &str) -> bool {
    text.chars().all(|c| c < '\u{300}')
}

/// Index of the source character of composed character number `index`. The change that comes with each composed
/// character is 1 where it was added and minus the number of characters it swallowed besides its own.
fn composed_source(text: &str, index: usize) -> usize {
    let consumed: isize = text.nfc().take(index).map(|(_, change)| 1 - change).sum();
    usize::try_from(consumed).unwrap_or(0)
}

/// Reads the steps in order; some orders are refused.
#[derive(Default)]
struct Reader {
    found: Normalizer,
    /// The string of `Prepend`, already changed by later steps, and where it stands.
    prefix: Option<(String, String)>,
}

impl Reader {
    fn read(&mut self, value: &Value, path: &str) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        match value.get("type").and_then(Value::as_str) {
            Some("Sequence") => {
                let steps = value.get("normalizers").and_then(Value::as_array);
                let steps = steps.ok_or_else(|| Error::Invalid(format!("{path}.normalizers: not a list")))?;
                steps.iter().enumerate().try_for_each(|(i, step)| self.read(step, &format!("{path}.normalizers[{i}]")))
            }
            Some("NFC") => {
                self.found.nfc = true;
                Ok(())
            }
            Some("Strip") => self.read_strip(value, path),
            Some("Replace") => self.read_replace(value, path),
            Some("Prepend") => self.read_prepend(value, path),
            Some(other) => Err(Error::unsupported(path, format!("normalizer {other} is not supported"))),
            None => Err(Error::unsupported(path, "a normalizer without type")),
        }
    }

    fn read_strip(&mut self, value: &Value, path: &str) -> Result<()> {
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        if self.found.replace.is_some() || self.prefix.is_some() {
            return Err(Error::unsupported(path, "Strip after Replace or Prepend is not supported"));
        }
        self.found.strip_left |= flag("strip_left");
        self.found.strip_right |= flag("strip_right");
        Ok(())
    }

    fn read_replace(&mut self, value: &Value, path: &str) -> Result<()> {
        let pattern = value.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
        if pattern != Some(" ") {
            return Err(Error::unsupported(format!("{path}.pattern"), "only the string \" \" is supported"));
        }
        let content = value.get("content").and_then(Value::as_str).unwrap_or_default();
        let Some(marker) = single_char(content).filter(|&c| c != ' ') else {
            return Err(Error::unsupported(format!("{path}.content"), "only one character, not a space, is supported"));
        };
        // A second Replace finds no spaces left.
        self.found.replace.get_or_insert(marker);
        if let Some((prefix, _)) = &mut self.prefix {
            *prefix = prefix.replace(' ', content);
        }
        Ok(())
    }

    fn read_prepend(&mut self, value: &Value, path: &str) -> Result<()> {
        let field = format!("{path}.prepend");
        let prefix = value.get("prepend").and_then(Value::as_str).unwrap_or_default();
        if prefix.is_empty() {
            return Ok(());
        }
        if self.prefix.is_some() {
            return Err(Error::unsupported(field, "a second Prepend is not supported"));
        }
        self.prefix = Some((prefix.to_owned(), field));
        Ok(())
    }

    /// The prefix must end up as what a space ends up as; otherwise it could not be told from text.
    fn finish(mut self) -> Result<Normalizer> {
        if let Some((prefix, field)) = self.prefix {
            if single_char(&prefix) != Some(self.found.replace.unwrap_or(' ')) {
                return Err(Error::unsupported(field, "only a prefix that stands for a space is supported"));
            }
            self.found.prepend = true;
        }
        Ok(self.found)
    }
}

/// The character of a string that has exactly one.
pub(super) fn single_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Some(c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Normalizer> {
        Normalizer::from_json(value)
    }

    #[test]
    fn llama_2_and_gemma_3_and_qwen_3() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        let llama = read(&json!({"type": "Sequence", "normalizers": [prepend, replace]})).expect("llama 2");
        assert!(llama.prepend && llama.replace == Some('▁'));
        assert_eq!(read(&replace).expect("gemma 3").apply("a b"), "a▁b");
        assert_eq!(read(&json!({"type": "NFC"})).expect("qwen 3").apply("e\u{301} x"), "é x");
        assert_eq!(read(&Value::Null).expect("null"), Normalizer::default());
    }

    #[test]
    fn refusals_name_the_step() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        for (value, culprit) in [
            (json!({"type": "Lowercase"}), "normalizer"),
            (
                json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]}),
                "normalizer.normalizers[1]",
            ),
            (json!({"type": "Prepend", "prepend": "▁"}), "normalizer.prepend"),
            (json!({"type": "Replace", "pattern": {"Regex": " "}, "content": "▁"}), "normalizer.pattern"),
            (
                json!({"type": "Sequence", "normalizers": [replace, {"type": "Strip", "strip_left": true, "strip_right": false}]}),
                "normalizer.normalizers[1]",
            ),
        ] {
            match read(&value) {
                Err(Error::Unsupported { field, .. }) => assert_eq!(field, culprit),
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn offsets_lead_back_to_the_original() {
        let normalizer = Normalizer { nfc: true, strip_left: true, ..Normalizer::default() };
        // Two spaces, "e" with an accent (composed), "b".
        assert_eq!(normalizer.original_offset("  e\u{301}b", 0), 2);
        assert_eq!(normalizer.original_offset("  e\u{301}b", 1), 5);
    }
}
