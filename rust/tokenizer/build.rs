//! Puts a tokenizer together from its file.

use super::json::{AddedToken, File, MergeEntry};
use super::layers::Layers;
use super::spell::Speller;
use super::symbols::NO_SYMBOL;
use super::{Dummy, Normalizer, Symbols, TokenBytes, TokenKind, Tokenizer, added, alphabet, cache, json};
use crate::bpe::{Bpe, Merge};
use crate::error::{Error, Result};
use crate::parallel::map_blocks;
use crate::pretoken::Pretokenizer;
use crate::sync::Lazy;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use serde_json::Value;
use std::borrow::Cow;

/// Largest id that is believed; tables have one entry an id.
const MAX_ID: u32 = 1 << 26;

pub(super) fn build(raw: &[u8]) -> Result<Tokenizer> {
    let file = json::parse(raw)?;
    let normalizer = Normalizer::from_json(&file.normalizer)?;
    let layers = Layers::from_json(&file.pre_tokenizer, normalizer.replace.is_some())?;
    let vocab = Vocabulary::new(&file, &normalizer, &layers)?;
    let dummy = match (normalizer.prepend, &layers.prefix) {
        (true, _) => Some(Dummy::Always),
        (false, Some(_)) => Some(Dummy::UnlessSpace),
        (false, None) => None,
    };
    let added_tokens = file.added_tokens.as_deref().unwrap_or_default();
    let added = added::build(added_tokens, &normalizer, dummy.is_some())?;
    let pretokenizer = Pretokenizer::new(&layers.patterns).map_err(|e| Error::unsupported("pre_tokenizer", e))?;
    let merges = vocab.merges(file.model.merges.as_deref().unwrap_or_default())?;

    let Spelling { mut bytes, mut unspellable } = vocab.spelling()?;
    let bpe = {
        let speller = Speller {
            symbols: &vocab.symbols,
            bytes: &bytes,
            kind: &vocab.kind,
            in_model: &vocab.in_model,
            unspellable: &unspellable,
        };
        Bpe::new(merges, vocab.strings.len(), |id, out| speller.symbols_of(id, out))
    };
    let ignore_merges = file.model.ignore_merges.unwrap_or(false);
    let whole = if ignore_merges { vocab.whole(&bytes, &unspellable) } else { FxHashMap::default() };
    vocab.restore_contents(&bpe, &mut bytes, &mut unspellable)?;

    let cuts = cache::Cuts::new(vocab.symbols.marker(), vocab.model_strings());
    let mut special_ids: Vec<u32> = added_tokens.iter().filter(|t| t.special).map(|t| t.id).collect();
    special_ids.sort_unstable();
    special_ids.dedup();
    Ok(Tokenizer {
        vocab_size: vocab.strings.len(),
        symbols: vocab.symbols,
        bytes,
        kind: vocab.kind,
        in_model: vocab.in_model,
        unspellable,
        whole,
        ignore_merges,
        bpe,
        layers: layers.patterns,
        pretokenizer,
        normalizer,
        added,
        dummy,
        bos: first_of_template(&file.post_processor),
        special_ids,
        cuts,
        caches: cache::CachePool::default(),
        raw: raw.into(),
        fingerprint: Lazy::default(),
    })
}

/// Vocabulary and added tokens by id.
struct Vocabulary<'a> {
    ids: FxHashMap<&'a str, u32>,
    /// Model string, or the content of an added token outside the model.
    strings: Vec<Option<&'a str>>,
    in_model: Vec<bool>,
    kind: Vec<TokenKind>,
    added: &'a [AddedToken],
    symbols: Symbols,
}

/// Bytes of each id, and which ids no text spells.
struct Spelling {
    bytes: TokenBytes,
    unspellable: FxHashSet<u32>,
}

impl<'a> Vocabulary<'a> {
    fn new(file: &'a File<'_>, normalizer: &Normalizer, layers: &Layers) -> Result<Self> {
        let entries = &file.model.vocab;
        let mut ids = FxHashMap::with_capacity_and_hasher(entries.0.len(), FxBuildHasher);
        ids.extend(entries.0.iter().map(|(token, id)| (&**token, *id)));
        let added = file.added_tokens.as_deref().unwrap_or_default();
        added::check_ids(added, &ids)?;
        let symbols = symbols(file, &ids, normalizer, layers)?;

        let largest = ids.values().copied().chain(added.iter().map(|t| t.id)).max().unwrap_or(0);
        if largest > MAX_ID {
            return Err(Error::Invalid(format!("model.vocab: id {largest} is larger than {MAX_ID}")));
        }
        let size = largest as usize + 1;
        let mut vocab = Self {
            ids,
            strings: vec![None; size],
            in_model: vec![false; size],
            kind: vec![TokenKind::Missing; size],
            added,
            symbols,
        };
        vocab.place_model()?;
        vocab.place_kinds(file.model.unk_token.as_deref());
        vocab.place_added()?;
        Ok(vocab)
    }

    fn place_model(&mut self) -> Result<()> {
        for (&token, &id) in &self.ids {
            if let Some(other) = self.strings[id as usize].replace(token) {
                return Err(Error::Invalid(format!("model.vocab: {other:?} and {token:?} share the id {id}")));
            }
            self.in_model[id as usize] = true;
            self.kind[id as usize] = TokenKind::Normal;
        }
        Ok(())
    }

    fn place_kinds(&mut self, unk: Option<&str>) {
        if let Symbols::Chars { fallback: Some(table), .. } = &self.symbols {
            for &id in table.iter().filter(|&&id| id != NO_SYMBOL) {
                self.kind[id as usize] = TokenKind::Fallback;
            }
        }
        if let Some(&id) = unk.and_then(|unk| self.ids.get(unk)) {
            self.kind[id as usize] = TokenKind::Unk;
        }
    }

    fn place_added(&mut self) -> Result<()> {
        for (i, token) in self.added.iter().enumerate().filter(|(_, token)| !token.content.is_empty()) {
            let id = token.id as usize;
            match self.strings[id] {
                None => self.strings[id] = Some(&token.content),
                Some(string) if string == token.content => {}
                Some(string) => {
                    let reason = format!("{:?} has the id {id} of {string:?}", token.content);
                    return Err(Error::Invalid(format!("added_tokens[{i}].id: {reason}")));
                }
            }
            self.kind[id] = if token.special { TokenKind::Special } else { TokenKind::Added };
        }
        Ok(())
    }

    fn model_strings(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.strings.iter().zip(&self.in_model).filter_map(|(string, &in_model)| string.filter(|_| in_model))
    }

    /// Looks up the parts and the product of every merge.
    fn merges(&self, entries: &[MergeEntry<'_>]) -> Result<FxHashMap<(u32, u32), Merge>> {
        let blocks = map_blocks(entries.len(), 16_384, 0, |range| {
            let mut joined = String::new();
            range.map(|rank| self.merge(rank, &entries[rank], &mut joined)).collect::<Result<Vec<_>>>()
        });
        let mut merges = FxHashMap::with_capacity_and_hasher(entries.len(), FxBuildHasher);
        for block in blocks {
            // A pair that is listed twice keeps the later rank, as in `tokenizers`.
            merges.extend(block?.into_iter().flatten());
        }
        Ok(merges)
    }

    fn merge(&self, rank: usize, entry: &MergeEntry<'_>, joined: &mut String) -> Result<Option<((u32, u32), Merge)>> {
        let Some((left, right)) = &entry.0 else { return Ok(None) };
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let id = |token: &str| {
            let id = self.ids.get(token).copied();
            id.ok_or_else(|| Error::Invalid(format!("model.merges[{rank}]: {token:?} is not in model.vocab")))
        };
        let (left, right, product) = (id(left)?, id(right)?, id(joined)?);
        if [left, right, product].iter().any(|&id| self.is_fallback(id)) {
            let reason = "a merge of byte fallback tokens is not supported";
            return Err(Error::unsupported(format!("model.merges[{rank}]"), reason));
        }
        Ok(Some(((left, right), Merge { rank: rank as u32, product })))
    }

    fn is_fallback(&self, id: u32) -> bool {
        // The kind is not enough: an added token may be a fallback byte too.
        match &self.symbols {
            Symbols::Chars { fallback: Some(table), .. } => {
                self.strings[id as usize].is_some_and(|s| s.starts_with("<0x")) && table.contains(&id)
            }
            _ => false,
        }
    }

    fn spelling(&self) -> Result<Spelling> {
        let mut unspellable = FxHashSet::default();
        let tokens: Vec<Cow<'_, [u8]>> = (0..self.strings.len() as u32)
            .map(|id| {
                let string = self.strings[id as usize].unwrap_or_default();
                if !self.in_model[id as usize] {
                    return Cow::Borrowed(string.as_bytes());
                }
                self.model_bytes(id, string).unwrap_or_else(|| {
                    unspellable.insert(id);
                    Cow::Borrowed(string.as_bytes())
                })
            })
            .collect();
        let bytes = TokenBytes::new(tokens.iter().map(|token| &**token))?;
        Ok(Spelling { bytes, unspellable })
    }

    /// The bytes that a model string stands for, or `None` where no text is spelled with it.
    fn model_bytes(&self, id: u32, string: &'a str) -> Option<Cow<'a, [u8]>> {
        match &self.symbols {
            Symbols::Bytes { .. } => {
                let mut bytes = Vec::with_capacity(string.len());
                alphabet::decode(string, &mut bytes).then_some(Cow::Owned(bytes))
            }
            Symbols::Chars { fallback: Some(table), .. } if self.kind[id as usize] == TokenKind::Fallback => {
                let byte = table.iter().position(|&fallback| fallback == id)?;
                Some(Cow::Owned(vec![byte as u8]))
            }
            Symbols::Chars { marker: Some(marker), .. } => {
                if string.contains(' ') {
                    return None;
                }
                if string.contains(*marker) {
                    return Some(Cow::Owned(string.replace(*marker, " ").into_bytes()));
                }
                Some(Cow::Borrowed(string.as_bytes()))
            }
            Symbols::Chars { .. } => Some(Cow::Borrowed(string.as_bytes())),
        }
    }

    /// The table of `ignore_merges`.
    fn whole(&self, bytes: &TokenBytes, unspellable: &FxHashSet<u32>) -> FxHashMap<Box<[u8]>, u32> {
        let ids = (0..self.strings.len() as u32).filter(|id| self.in_model[*id as usize] && !unspellable.contains(id));
        ids.map(|id| (bytes.get(id).into(), id)).collect()
    }

    /// An added token in the model whose string is no spelling of its content (`▁` in a special token, say) and that
    /// merges do not build stands for its content. Where merges do build it (Gemma 3's runs of U+2581), it
    /// stands for what they build it from, and matching its content is never admissible.
    fn restore_contents(&self, bpe: &Bpe, bytes: &mut TokenBytes, unspellable: &mut FxHashSet<u32>) -> Result<()> {
        let differs = |token: &&AddedToken| {
            let id = token.id as usize;
            !token.content.is_empty()
                && self.in_model[id]
                && !bpe.reachable[id]
                && bytes.get(token.id) != token.content.as_bytes()
        };
        let restored: FxHashMap<u32, &[u8]> =
            self.added.iter().filter(differs).map(|token| (token.id, token.content.as_bytes())).collect();
        if restored.is_empty() {
            return Ok(());
        }
        let all = (0..self.strings.len() as u32).map(|id| restored.get(&id).copied().unwrap_or_else(|| bytes.get(id)));
        *bytes = TokenBytes::new(all)?;
        unspellable.extend(restored.keys());
        Ok(())
    }
}

/// Byte-level or SentencePiece-style; refuses mixtures.
fn symbols(file: &File<'_>, ids: &FxHashMap<&str, u32>, normalizer: &Normalizer, layers: &Layers) -> Result<Symbols> {
    let byte_fallback = file.model.byte_fallback.unwrap_or(false);
    if layers.byte_level {
        let symbols = Symbols::byte_level(ids);
        let incomplete = matches!(&symbols, Symbols::Bytes { id_of_byte } if id_of_byte.contains(&NO_SYMBOL));
        if byte_fallback && incomplete && (0..=u8::MAX).any(|b| ids.contains_key(format!("<0x{b:02X}>").as_str())) {
            let reason = "not supported together with ByteLevel where bytes have no piece";
            return Err(Error::unsupported("model.byte_fallback", reason));
        }
        return Ok(symbols);
    }
    let marker = match (normalizer.replace, layers.marker) {
        (Some(a), Some(b)) if a != b => {
            return Err(Error::unsupported("pre_tokenizer", format!("Metaspace with {b:?} after Replace with {a:?}")));
        }
        (a, b) => a.or(b),
    };
    Ok(Symbols::chars(&file.model.vocab, ids, byte_fallback, marker))
}

/// The token that a `TemplateProcessing` puts before a single text.
fn first_of_template(post_processor: &Value) -> Option<u32> {
    if let Some(steps) = post_processor.get("processors").and_then(Value::as_array) {
        return steps.iter().find_map(first_of_template);
    }
    let name = post_processor.get("single")?.get(0)?.get("SpecialToken")?.get("id")?.as_str()?;
    let id = post_processor.get("special_tokens")?.get(name)?.get("ids")?.get(0)?.as_u64()?;
    u32::try_from(id).ok()
}
