//! tokenizer.json as it is written. Strings are borrowed from the file wherever they hold no escapes: Gemma 3's
//! 33 MB have 1.3 million of them.

use crate::error::{Error, Result};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// The file. Decoder, truncation, padding and version do not change encoding and are not read here.
#[derive(Debug, Deserialize)]
pub struct File<'a> {
    /// Added tokens, in order.
    #[serde(default)]
    pub added_tokens: Option<Vec<AddedToken>>,
    /// Null, one normalizer or a sequence.
    #[serde(default)]
    pub normalizer: Value,
    /// Null, one pretokenizer or a sequence.
    #[serde(default)]
    pub pre_tokenizer: Value,
    /// Only the first token of a template is read.
    #[serde(default)]
    pub post_processor: Value,
    /// Vocabulary and merges.
    #[serde(borrow)]
    pub model: Model<'a>,
}

/// An entry of `added_tokens`. All fields are required, as in `tokenizers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // the file has them
pub struct AddedToken {
    /// Id that the file states.
    pub id: u32,
    /// Text of the token.
    pub content: String,
    /// Match only between non-word characters.
    pub single_word: bool,
    /// Swallow whitespace before it.
    pub lstrip: bool,
    /// Swallow whitespace after it.
    pub rstrip: bool,
    /// Match its normalized content in the normalized text.
    pub normalized: bool,
    /// Never matched in text (`encode_special_tokens=True`).
    pub special: bool,
}

/// The model. Other types than BPE parse too, so that they can be refused by name.
#[derive(Debug, Deserialize)]
pub struct Model<'a> {
    /// `BPE`; old files leave it out.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    #[allow(missing_docs)]
    pub dropout: Option<f64>,
    /// String of the unknown token.
    #[serde(default)]
    pub unk_token: Option<String>,
    /// Only empty or absent is supported.
    #[serde(default)]
    pub continuing_subword_prefix: Option<String>,
    /// Only empty or absent is supported.
    #[serde(default)]
    pub end_of_word_suffix: Option<String>,
    /// No effect here: text that needs the unknown token is refused.
    #[serde(default)]
    pub fuse_unk: Option<bool>,
    /// Characters without piece are spelled `<0xXX>`.
    #[serde(default)]
    pub byte_fallback: Option<bool>,
    /// A pretoken that is a token is taken whole.
    #[serde(default)]
    pub ignore_merges: Option<bool>,
    /// Token → id.
    #[serde(borrow, default)]
    pub vocab: Vocab<'a>,
    /// In order of rank.
    #[serde(borrow, default)]
    pub merges: Option<Vec<MergeEntry<'a>>>,
}

/// Parses the file.
pub fn parse(raw: &[u8]) -> Result<File<'_>> {
    let file: File<'_> = serde_json::from_slice(raw).map_err(|e| Error::Invalid(format!("tokenizer.json: {e}")))?;
    check_model(&file.model)?;
    Ok(file)
}

/// Refuses what the model part may ask for and this crate does not do.
fn check_model(model: &Model<'_>) -> Result<()> {
    match model.kind.as_deref() {
        Some("BPE") => {}
        None if model.merges.is_some() => {}
        Some(other) => return Err(Error::unsupported("model.type", format!("{other} is not supported, only BPE"))),
        None => return Err(Error::unsupported("model.type", "absent, and there are no merges")),
    }
    if model.dropout.is_some_and(|p| p != 0.0) {
        return Err(Error::unsupported("model.dropout", "encodings would be random"));
    }
    for (field, value) in [
        ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
        ("model.end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if value.as_ref().is_some_and(|affix| !affix.is_empty()) {
            return Err(Error::unsupported(field, "only an empty one is supported"));
        }
    }
    if model.vocab.0.is_empty() {
        return Err(Error::Invalid("model.vocab: empty or not a map".into()));
    }
    if model.ignore_merges == Some(true) && model.byte_fallback == Some(true) {
        return Err(Error::unsupported("model.ignore_merges", "not supported together with model.byte_fallback"));
    }
    Ok(())
}

/// A string that borrows from the file where it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Str<'a>(pub Cow<'a, str>);

impl Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct StrVisitor;
        impl<'de> Visitor<'de> for StrVisitor {
            type Value = Str<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, v: &'de str) -> std::result::Result<Str<'de>, E> {
                Ok(Str(Cow::Borrowed(v)))
            }

            fn visit_str<E>(self, v: &str) -> std::result::Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(v.to_owned())))
            }
        }
        deserializer.deserialize_str(StrVisitor)
    }
}

/// Vocabulary in file order. A list (Unigram) reads as empty.
#[derive(Debug, Default)]
pub struct Vocab<'a>(pub Vec<(Str<'a>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct VocabVisitor;
        impl<'de> Visitor<'de> for VocabVisitor {
            type Value = Vocab<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Vocab<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vocab(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vocab<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab(Vec::new()))
            }
        }
        deserializer.deserialize_any(VocabVisitor)
    }
}

/// A merge, written `"a b"` or `["a", "b"]`. `None` for the header line that old files carry as their first merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeEntry<'a>(pub Option<(Str<'a>, Str<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for MergeEntry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = MergeEntry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge: \"a b\" or [\"a\", \"b\"]")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, v: &'de str) -> std::result::Result<MergeEntry<'de>, E> {
        let pair = split_merge::<E>(v)?;
        Ok(MergeEntry(pair.map(|(a, b)| (Str(Cow::Borrowed(a)), Str(Cow::Borrowed(b))))))
    }

    fn visit_str<E: serde::de::Error>(self, v: &str) -> std::result::Result<MergeEntry<'de>, E> {
        let pair = split_merge::<E>(v)?;
        Ok(MergeEntry(pair.map(|(a, b)| (Str(Cow::Owned(a.to_owned())), Str(Cow::Owned(b.to_owned()))))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<MergeEntry<'de>, A::Error> {
        let wrong = |n| serde::de::Error::invalid_length(n, &self);
        let left = seq.next_element()?.ok_or_else(|| wrong(0))?;
        let right = seq.next_element()?.ok_or_else(|| wrong(1))?;
        if seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(wrong(3));
        }
        Ok(MergeEntry(Some((left, right))))
    }
}

/// Splits "a b"; `None` for the header `#version: ...`.
fn split_merge<E: serde::de::Error>(line: &str) -> std::result::Result<Option<(&str, &str)>, E> {
    if line.starts_with("#version") {
        return Ok(None);
    }
    match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok(Some((left, right))),
        _ => Err(E::custom(format!("merge {line:?} is not two tokens with a space between"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(fields: &str) -> String {
        format!(r#"{{"model": {{"vocab": {{"a": 0, "\u0062": 1, "ab": 2}}, {fields}}}}}"#)
    }

    #[test]
    fn merges_are_strings_or_pairs() {
        for merges in [r#"["a b"]"#, r#"[["a", "b"]]"#, r##"["#version: 0.2", "\u0061 b"]"##] {
            let raw = model(&format!(r#""merges": {merges}"#));
            let file = parse(raw.as_bytes()).expect(merges);
            let pairs: Vec<_> = file.model.merges.into_iter().flatten().filter_map(|m| m.0).collect();
            assert_eq!(pairs.len(), 1);
            assert_eq!((&*pairs[0].0, &*pairs[0].1), ("a", "b"));
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (fields, culprit) in [
            (r#""type": "Unigram", "merges": []"#, "model.type"),
            (r#""type": "BPE", "merges": [], "dropout": 0.1"#, "model.dropout"),
            (r###""merges": [], "continuing_subword_prefix": "##""###, "model.continuing_subword_prefix"),
            (r#""merges": [], "end_of_word_suffix": "</w>""#, "model.end_of_word_suffix"),
            (r#""merges": [], "ignore_merges": true, "byte_fallback": true"#, "model.ignore_merges"),
        ] {
            match parse(model(fields).as_bytes()) {
                Err(Error::Unsupported { field, .. }) => assert_eq!(field, culprit),
                other => panic!("{fields}: {other:?}"),
            }
        }
    }

    #[test]
    fn absent_and_empty_are_the_same() {
        let raw = model(r#""merges": [], "dropout": 0.0, "continuing_subword_prefix": "", "unk_token": null"#);
        assert!(parse(raw.as_bytes()).is_ok());
    }
}
