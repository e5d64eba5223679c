//! Whole tokenizers, small enough to follow by hand. Equality with Hugging Face `tokenizers` is tested from Python.

use super::TokenKind::{Added, Fallback, Normal, Special};
use super::{Dummy, Tokenizer};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// A SentencePiece-style vocabulary: fallback bytes of 🙂, then characters, then merges.
fn sentencepiece(normalizer: &Value, pre_tokenizer: &Value, added: &Value) -> Value {
    json!({
        "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": {"<unk>": 0, "<0xF0>": 1, "<0x9F>": 2, "<0x99>": 3, "<0x82>": 4, "▁": 5, "a": 6, "b": 7, "▁a": 8, "ab": 9},
            "merges": ["▁ a", "a b"],
        },
    })
}

fn byte_level(fields: &Value) -> Value {
    let mut file = json!({
        "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
        "model": {
            "type": "BPE", "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "bc": 5, "abc": 6, "cab": 7},
            "merges": [["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"]],
        },
    });
    for (path, value) in fields.as_object().into_iter().flatten() {
        if let Some(slot) = file.pointer_mut(path) {
            *slot = value.clone();
        }
    }
    file
}

fn load(file: &Value) -> Result<Tokenizer> {
    Tokenizer::from_json(file.to_string().as_bytes())
}

fn replace() -> Value {
    json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
}

fn llama() -> Tokenizer {
    let normalizer = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace()]});
    load(&sentencepiece(&normalizer, &Value::Null, &json!([]))).expect("llama-style")
}

#[test]
fn a_prefix_space_only_starts_documents() {
    let tok = llama();
    assert_eq!(tok.dummy, Some(Dummy::Always));
    assert_eq!(tok.encode("ab", true), Ok(vec![8, 7]));
    assert_eq!(tok.encode("ab", false), Ok(vec![9]));
    assert_eq!(tok.encode("", true), Ok(vec![]));
    assert_eq!(tok.decode(&[8, 7]), Ok(b" ab".to_vec()));
    for text in ["", "ab", " ab", "a  b", "🙂a"] {
        assert_eq!(tok.admissible(text, true), Ok(()), "{text:?}");
        assert_eq!(tok.admissible(text, false), Ok(()), "{text:?}");
    }
}

#[test]
fn metaspace_cannot_tell_a_leading_space() {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    let tok = load(&sentencepiece(&Value::Null, &metaspace, &json!([]))).expect("mistral-style");
    assert_eq!(tok.dummy, Some(Dummy::UnlessSpace));
    assert_eq!(tok.encode("a", true), tok.encode(" a", true));
    assert!(matches!(tok.admissible(" a", true), Err(Error::Text { offset: 0, .. })));
    assert_eq!(tok.admissible(" a", false), Ok(()));
    assert_eq!(tok.admissible("a", true), Ok(()));
}

#[test]
fn what_cannot_be_spelled_is_refused_with_its_offset() {
    let tok = llama();
    for (text, offset) in [("aé", 1), ("🙂 🙃", 5), ("ab\n", 2)] {
        assert!(matches!(tok.encode(text, true), Err(Error::Text { offset: at, .. }) if at == offset), "{text:?}");
    }
    let batch = tok.encode_batch(&["a", "b", "bé"], false, 2);
    assert!(matches!(batch, Err(Error::Text { index: Some(2), offset: 1, .. })));
}

#[test]
fn the_marker_is_not_text() {
    let tok = llama();
    assert_eq!(tok.normalize("a▁b"), "a b");
    let error = tok.admissible("a▁b", false).expect_err("U+2581");
    assert_eq!(error.to_string(), "byte 1: U+2581 stands for a space in this vocabulary");
}

#[test]
fn kinds_bytes_and_symbols() {
    let added = json!([
        {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
        {"id": 9, "content": "ab", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false},
        {"id": 10, "content": "<t>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}
    ]);
    let tok = load(&sentencepiece(&replace(), &Value::Null, &added)).expect("gemma-style");
    let kinds: Vec<_> = [0, 1, 5, 9, 10].iter().map(|&id: &usize| tok.kind[id]).collect();
    assert_eq!(kinds, [Special, Fallback, Normal, Added, Added]);
    assert_eq!((tok.bytes.get(1), tok.bytes.get(8)), (&[0xF0][..], &b" a"[..]));
    assert_eq!((tok.symbols_of(8), tok.symbols_of(1), tok.symbols_of(10)), (vec![5, 6], vec![1], vec![]));
    assert!(tok.in_model(9) && !tok.in_model(10));
    assert_eq!(tok.encode("b<t>ab a", false), Ok(vec![7, 10, 9, 8]));
    assert_eq!(tok.special_ids(), [0]);
}

#[test]
fn ignore_merges_takes_pretokens_whole() {
    let file = json!({"/model/ignore_merges": true});
    let tok = load(&byte_level(&file)).expect("llama-3-style");
    assert_eq!(tok.encode("cab", false), Ok(vec![7]));
    assert_eq!(tok.encode("cabc", false), Ok(vec![2, 6]));
    assert!(!tok.bpe.reachable[7]);
    let without = load(&byte_level(&json!({}))).expect("plain");
    assert_eq!(without.encode("cab", false), Ok(vec![2, 4]));
}

#[test]
fn first_merges_keep_tokens_not_lines() {
    let tok = load(&byte_level(&json!({"/model/ignore_merges": true}))).expect("llama-3-style");
    // Own merges: ab (rank 0), bc (1), abc = ab + c (3). "cab" is made by no merge, so it stays.
    let (one, ids) = tok.first_merges_with_ids(1).expect("first merge");
    assert_eq!(ids, [0, 1, 2, 3, 4, u32::MAX, u32::MAX, 5]);
    assert_eq!(one.encode("abcab", false), Ok(vec![4, 2, 4]));
    let all = tok.first_merges(100).expect("all merges");
    assert_eq!(all.encode("abcab", false), Ok(vec![6, 4]));
    assert_eq!(all.bpe.merges.len(), 4);
    assert_eq!(Tokenizer::from_json(&all.to_json()).expect("round trip").fingerprint(), all.fingerprint());
}

#[test]
fn fingerprints_see_encoding_and_nothing_else() {
    let print = |fields: Value| load(&byte_level(&fields)).expect("loads").fingerprint().to_owned();
    let plain = print(json!({}));
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, print(json!({"/model/merges": ["a b", "b c", "a bc", "ab c"]})));
    assert_eq!(
        plain,
        print(json!({"/pre_tokenizer/use_regex": false, "/normalizer": {"type": "Sequence", "normalizers": []}}))
    );
    assert_ne!(plain, print(json!({"/model/merges": ["b c", "a b", "a bc", "ab c"]})));
    assert_ne!(plain, print(json!({"/model/ignore_merges": true})));
    assert_ne!(plain, print(json!({"/normalizer": {"type": "NFC"}})));
}

#[test]
fn parallel_equals_serial() {
    let tok = llama();
    let texts: Vec<String> = (0..400).map(|i| "ab a🙂 b".repeat(1 + i % 50)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert!(texts.iter().map(|t| t.len()).sum::<usize>() > super::encode::PARALLEL_BYTES);
    let serial = tok.encode_batch(&texts, true, 1).expect("serial");
    assert_eq!(tok.encode_batch(&texts, true, 4), Ok(serial.clone()));
    let single: Result<Vec<_>> = texts.iter().map(|text| tok.encode(text, true)).collect();
    assert_eq!(single, Ok(serial));
}

#[test]
fn combinations_that_hugging_face_treats_piecewise_are_refused() {
    let plain = json!([{"id": 10, "content": "<t>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}]);
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"});
    let mut merged = sentencepiece(&replace(), &Value::Null, &json!([]));
    merged["model"]["vocab"]["<0xF0>a"] = json!(10);
    merged["model"]["merges"] = json!(["<0xF0> a"]);
    for (file, culprit) in
        [(sentencepiece(&Value::Null, &metaspace, &plain), "added_tokens[0].special"), (merged, "model.merges[0]")]
    {
        match load(&file) {
            Err(Error::Unsupported { field, .. }) => assert_eq!(field, culprit),
            other => panic!("{other:?}"),
        }
    }
}
