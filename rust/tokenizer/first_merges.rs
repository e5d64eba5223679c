//! A tokenizer cut down to its first merges (docs/mathematics.md, fact 16), as a tokenizer.json that Hugging Face loads.
//!
//! A plain cut of the merge list does not load where a token has several derivations or a merge's parts come later.
//! So *tokens* are kept: the pieces that no merge makes and the n tokens whose own merge ranks lowest; then every
//! merge of which parts and product are kept, in the old order.

use super::Tokenizer;
use super::json::{self, AddedToken, File};
use crate::error::{Error, Result};
use rustc_hash::FxHashSet;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::mem;

/// Marks an old id that is gone.
pub const GONE: u32 = u32::MAX;

impl Tokenizer {
    /// The tokenizer of the first `n` merges: added tokens stay, `ignore_merges` is off, ids are renumbered densely in
    /// their old order (added tokens outside the vocabulary last). `n` beyond the number of merged tokens keeps them all.
    pub fn first_merges(&self, n: usize) -> Result<Tokenizer> {
        self.first_merges_with_ids(n).map(|(tokenizer, _)| tokenizer)
    }

    /// The same with the new id of every old one, [`GONE`] where it was dropped.
    pub fn first_merges_with_ids(&self, n: usize) -> Result<(Tokenizer, Vec<u32>)> {
        let file = json::parse(&self.raw)?;
        let rest: Rest =
            serde_json::from_slice(&self.raw).map_err(|e| Error::Invalid(format!("tokenizer.json: {e}")))?;
        let merged = self.first_merged(n);
        let ids = self.renumber(&file, &merged);
        let written = write(&file, rest, &ids, &self.kept_merges(&merged))?;
        Ok((Self::from_json(&written)?, ids))
    }

    /// Per id: a piece that no merge makes, or one of the `n` tokens whose own merge ranks lowest.
    fn first_merged(&self, n: usize) -> Vec<bool> {
        let mut kept = self.in_model.clone();
        for merge in self.bpe.merges.values() {
            kept[merge.product as usize] = false;
        }
        let mut by_rank: Vec<u32> =
            (0..self.vocab_size as u32).filter(|&id| !self.bpe.own[id as usize].is_none()).collect();
        by_rank.sort_unstable_by_key(|&id| self.bpe.own[id as usize].rank);
        for &id in by_rank.iter().take(n) {
            kept[id as usize] = true;
        }
        kept
    }

    /// Pairs whose parts and product are kept, in order of rank.
    fn kept_merges(&self, kept: &[bool]) -> Vec<(u32, u32)> {
        let is_kept = |id: u32| kept[id as usize];
        let mut merges: Vec<_> = self
            .bpe
            .merges
            .iter()
            .filter(|((left, right), merge)| is_kept(*left) && is_kept(*right) && is_kept(merge.product))
            .map(|(&pair, merge)| (merge.rank, pair))
            .collect();
        merges.sort_unstable();
        merges.into_iter().map(|(_, pair)| pair).collect()
    }

    /// New ids: the vocabulary first, then the added tokens outside it, which is how `tokenizers` numbers them.
    fn renumber(&self, file: &File<'_>, merged: &[bool]) -> Vec<u32> {
        let mut stays: FxHashSet<u32> = added(file).map(|token| token.id).collect();
        if let Some(unk) = file.model.unk_token.as_deref() {
            stays.extend(file.model.vocab.0.iter().filter(|(token, _)| **token == *unk).map(|&(_, id)| id));
        }
        let mut ids = vec![GONE; self.vocab_size];
        let mut next = 0;
        for in_model in [true, false] {
            for id in 0..self.vocab_size as u32 {
                let kept = merged[id as usize] || stays.contains(&id);
                if kept && self.in_model(id) == in_model {
                    ids[id as usize] = next;
                    next += 1;
                }
            }
        }
        ids
    }
}

/// Added tokens; `tokenizers` ignores empty ones.
fn added<'a>(file: &'a File<'_>) -> impl Iterator<Item = &'a AddedToken> {
    file.added_tokens.iter().flatten().filter(|token| !token.content.is_empty())
}

/// The parts of the file that are carried over.
#[derive(Deserialize)]
struct Rest {
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    decoder: Value,
}

/// A tokenizer.json in the order in which `tokenizers` writes it.
#[derive(Serialize)]
struct Written<'a> {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<AddedToken>,
    normalizer: &'a Value,
    pre_tokenizer: &'a Value,
    post_processor: Value,
    decoder: Value,
    model: WrittenModel<'a>,
}

#[derive(Serialize)]
struct WrittenModel<'a> {
    r#type: &'static str,
    dropout: Option<f64>,
    unk_token: Option<&'a str>,
    continuing_subword_prefix: Option<&'a str>,
    end_of_word_suffix: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: WrittenVocab<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Token → id, by id.
struct WrittenVocab<'a>(Vec<(u32, &'a str)>);

impl Serialize for WrittenVocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in &self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

fn write(file: &File<'_>, rest: Rest, ids: &[u32], merges: &[(u32, u32)]) -> Result<Vec<u8>> {
    let mut strings = vec![""; ids.len()];
    for (token, id) in &file.model.vocab.0 {
        strings[*id as usize] = token;
    }
    let mut vocab: Vec<(u32, &str)> = file
        .model
        .vocab
        .0
        .iter()
        .filter(|(token, id)| ids[*id as usize] != GONE && strings[*id as usize] == &**token)
        .map(|(token, id)| (ids[*id as usize], &**token))
        .collect();
    vocab.sort_unstable();
    vocab.dedup();
    let written = Written {
        version: "1.0",
        truncation: rest.truncation,
        padding: renumber_padding(rest.padding, ids),
        added_tokens: renumber_added(file, ids),
        normalizer: &file.normalizer,
        pre_tokenizer: &file.pre_tokenizer,
        post_processor: renumber_post_processor(file.post_processor.clone(), ids),
        decoder: rest.decoder,
        model: WrittenModel {
            r#type: "BPE",
            dropout: None,
            unk_token: file.model.unk_token.as_deref(),
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: file.model.fuse_unk.unwrap_or(false),
            byte_fallback: file.model.byte_fallback.unwrap_or(false),
            ignore_merges: false,
            vocab: WrittenVocab(vocab),
            merges: merges.iter().map(|&(left, right)| (strings[left as usize], strings[right as usize])).collect(),
        },
    };
    serde_json::to_vec(&written).map_err(|e| Error::Invalid(format!("tokenizer.json: {e}")))
}

fn renumber_added(file: &File<'_>, ids: &[u32]) -> Vec<AddedToken> {
    let mut tokens: Vec<_> =
        added(file).map(|token| AddedToken { id: ids[token.id as usize], ..token.clone() }).collect();
    tokens.sort_by_key(|token| token.id);
    tokens
}

/// The new number of an id in a JSON field; false where it is gone.
fn renumber_id(value: &mut Value, ids: &[u32]) -> bool {
    let old = value.as_u64().and_then(|id| usize::try_from(id).ok());
    match old.and_then(|id| ids.get(id)) {
        Some(&new) if new != GONE => {
            *value = new.into();
            true
        }
        _ => false,
    }
}

fn renumber_padding(mut padding: Value, ids: &[u32]) -> Value {
    let gone = padding.get_mut("pad_id").is_some_and(|id| !renumber_id(id, ids));
    if gone { Value::Null } else { padding }
}

/// Ids of templates follow the tokens; a post-processor that names a dropped token is dropped too.
fn renumber_post_processor(mut value: Value, ids: &[u32]) -> Value {
    if renumber_steps(&mut value, ids) { value } else { Value::Null }
}

fn renumber_steps(value: &mut Value, ids: &[u32]) -> bool {
    match value.get("type").and_then(Value::as_str) {
        Some("Sequence") => {
            let Some(steps) = value.get_mut("processors").and_then(Value::as_array_mut) else { return false };
            steps.retain_mut(|step| renumber_steps(step, ids));
            !steps.is_empty()
        }
        Some("TemplateProcessing") => {
            let tokens = value.get_mut("special_tokens").and_then(Value::as_object_mut);
            tokens.into_iter().flat_map(|tokens| tokens.values_mut()).all(|token| {
                let token_ids = token.get_mut("ids").and_then(Value::as_array_mut);
                token_ids.is_some_and(|list| list.iter_mut().all(|id| renumber_id(id, ids)))
            })
        }
        Some("RobertaProcessing" | "BertProcessing") => ["sep", "cls"]
            .into_iter()
            .all(|field| value.get_mut(field).and_then(|pair| pair.get_mut(1)).is_some_and(|id| renumber_id(id, ids))),
        // Offsets only.
        Some("ByteLevel") => true,
        _ => mem::take(value).is_null(),
    }
}
