//! The pretokenizer field: everything that is supported comes down to regex layers, each isolating its matches.

use super::normalizer::single_char;
use crate::error::{Error, Result};
use serde_json::Value;

/// The pattern that `ByteLevel` with `use_regex` stands for (GPT-2).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What `Digits` splits at: `char::is_numeric` in `tokenizers` 0.23, which follows Unicode 17. The regex tables, there and
/// here, follow Unicode 16; these are the numbers that it lacks.
const NUMERIC: &str = "[\\p{N}\u{11DE0}-\u{11DE9}\u{16FF4}-\u{16FF6}]";

/// What the pretokenizer does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layers {
    /// Patterns, outermost first.
    pub patterns: Vec<String>,
    /// Text goes to the model as bytes.
    pub byte_level: bool,
    /// Character that `Metaspace` puts for a space.
    pub marker: Option<char>,
    /// A space is put before a text that does not start with one: the field that asks for it.
    pub prefix: Option<String>,
    /// No spaces are left: by the normalizer or by `Metaspace`.
    spaceless: bool,
}

impl Layers {
    /// Reads the `pre_tokenizer` field. `spaceless`: the normalizer leaves no spaces.
    pub fn from_json(value: &Value, spaceless: bool) -> Result<Self> {
        let mut layers = Self { spaceless, ..Self::default() };
        layers.read(value, "pre_tokenizer")?;
        Ok(layers)
    }

    fn read(&mut self, value: &Value, path: &str) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        let kind = value.get("type").and_then(Value::as_str).unwrap_or("without type");
        if kind == "Sequence" {
            let steps = value.get("pretokenizers").and_then(Value::as_array);
            let steps = steps.ok_or_else(|| Error::Invalid(format!("{path}.pretokenizers: not a list")))?;
            return steps
                .iter()
                .enumerate()
                .try_for_each(|(i, step)| self.read(step, &format!("{path}.pretokenizers[{i}]")));
        }
        if self.byte_level {
            return Err(Error::unsupported(path, format!("{kind} after ByteLevel is not supported")));
        }
        match kind {
            "Split" => self.read_split(value, path),
            "Digits" => {
                let single = value.get("individual_digits").and_then(Value::as_bool).unwrap_or(false);
                self.patterns.push(format!("{NUMERIC}{}", if single { "" } else { "+" }));
                Ok(())
            }
            "ByteLevel" => self.read_byte_level(value, path),
            "Metaspace" => self.read_metaspace(value, path),
            other => Err(Error::unsupported(path, format!("pretokenizer {other} is not supported"))),
        }
    }

    fn read_split(&mut self, value: &Value, path: &str) -> Result<()> {
        if value.get("invert").and_then(Value::as_bool) == Some(true) {
            return Err(Error::unsupported(format!("{path}.invert"), "not supported"));
        }
        let pattern = value.get("pattern");
        let get = |kind: &str| pattern.and_then(|p| p.get(kind)).and_then(Value::as_str);
        let pattern = match (get("Regex"), get("String")) {
            (Some(regex), _) => regex.to_owned(),
            // A string with a space never occurs where no spaces are left (Gemma 3), whatever the behaviour.
            (None, Some(string)) if self.spaceless && string.contains(' ') => return Ok(()),
            (None, Some("")) => return Err(Error::unsupported(format!("{path}.pattern"), "an empty string")),
            (None, Some(string)) => escape(string),
            (None, None) => return Err(Error::Invalid(format!("{path}.pattern: neither Regex nor String"))),
        };
        match value.get("behavior").and_then(Value::as_str) {
            Some("Isolated") => self.patterns.push(pattern),
            other => {
                let reason = format!("{} is not supported, only Isolated", other.unwrap_or("absent"));
                return Err(Error::unsupported(format!("{path}.behavior"), reason));
            }
        }
        Ok(())
    }

    fn read_byte_level(&mut self, value: &Value, path: &str) -> Result<()> {
        if self.spaceless {
            return Err(Error::unsupported(path, "ByteLevel after spaces were replaced is not supported"));
        }
        match value.get("add_prefix_space").and_then(Value::as_bool) {
            None => return Err(Error::Invalid(format!("{path}.add_prefix_space: absent"))),
            Some(true) => self.set_prefix(format!("{path}.add_prefix_space"))?,
            Some(false) => {}
        }
        if value.get("use_regex").and_then(Value::as_bool).unwrap_or(true) {
            self.patterns.push(GPT2.to_owned());
        }
        self.byte_level = true;
        Ok(())
    }

    fn read_metaspace(&mut self, value: &Value, path: &str) -> Result<()> {
        if !self.patterns.is_empty() || self.marker.is_some() {
            return Err(Error::unsupported(path, "Metaspace is only supported as the first pretokenizer"));
        }
        let marker = value.get("replacement").and_then(Value::as_str).and_then(single_char);
        // An ASCII marker could not stand in a character class as it is; nothing uses one.
        let Some(marker) = marker.filter(|c| !c.is_ascii()) else {
            return Err(Error::unsupported(format!("{path}.replacement"), "only one non-ascii character is supported"));
        };
        let field = format!("{path}.prepend_scheme");
        let scheme = value.get("prepend_scheme").and_then(Value::as_str).unwrap_or("always");
        match scheme {
            "always" | "first" if value.get("add_prefix_space").and_then(Value::as_bool) == Some(false) => {
                return Err(Error::Invalid(format!("{field}: {scheme}, but add_prefix_space is false")));
            }
            "always" | "first" => self.set_prefix(field)?,
            "never" => {}
            other => return Err(Error::unsupported(field, format!("{other} is not supported"))),
        }
        if value.get("split").and_then(Value::as_bool).unwrap_or(true) {
            // Each marker starts a piece. Spaces are listed too, so that the pattern means the same on the
            // text before spaces become markers.
            self.patterns.push(format!("[{marker} ][^{marker} ]*"));
        }
        self.marker = Some(marker);
        self.spaceless = true;
        Ok(())
    }

    /// The prefix is put before every piece of the layers above, which is one only if there are none.
    fn set_prefix(&mut self, field: String) -> Result<()> {
        if !self.patterns.is_empty() {
            return Err(Error::unsupported(field, "a prefix space is only supported in the first pretokenizer"));
        }
        self.prefix = Some(field);
        Ok(())
    }
}

/// The string as a pattern.
fn escape(string: &str) -> String {
    let mut pattern = String::with_capacity(string.len());
    for c in string.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn layers_of_known_files() {
        let smollm = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}]});
        let layers = Layers::from_json(&smollm, false).expect("smollm 2");
        assert_eq!(layers.patterns, [NUMERIC, GPT2]);
        assert!(layers.byte_level && layers.prefix.is_none());

        let gemma =
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
        assert!(Layers::from_json(&gemma, true).expect("gemma 3").patterns.is_empty());

        let mistral = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
        let layers = Layers::from_json(&mistral, false).expect("mistral");
        assert!(layers.patterns.is_empty() && layers.prefix.is_some() && layers.marker == Some('▁'));
    }

    #[test]
    fn refusals_name_the_field() {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
        for (value, culprit) in [
            (json!({"type": "Punctuation", "behavior": "Isolated"}), "pre_tokenizer"),
            (
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": false}),
                "pre_tokenizer.behavior",
            ),
            (
                json!({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": true}),
                "pre_tokenizer.invert",
            ),
            (
                json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level]}),
                "pre_tokenizer.pretokenizers[1].add_prefix_space",
            ),
        ] {
            match Layers::from_json(&value, false) {
                Err(Error::Unsupported { field, .. }) => assert_eq!(field, culprit),
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn strings_become_patterns() {
        assert_eq!(escape("a.b*"), r"a\.b\*");
    }
}
