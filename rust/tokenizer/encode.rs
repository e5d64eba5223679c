//! Text to ids, exactly as Hugging Face `tokenizers` does it with `encode_special_tokens=True,
//! add_special_tokens=False`, except that text which the vocabulary cannot spell is an error, never dropped.

use super::cache::PieceCache;
use super::{Dummy, Tokenizer};
use crate::error::{Error, Result};
use crate::parallel::map_blocks;
use std::borrow::Cow;
use std::ops::Range;

/// Batches below this many bytes are encoded on the calling thread.
pub const PARALLEL_BYTES: usize = 1 << 16;

/// Texts that a thread takes at a time.
const BLOCK: usize = 16;

/// Buffers of one call.
#[derive(Default)]
struct Work {
    cache: PieceCache,
    pieces: Vec<Range<usize>>,
    symbols: Vec<u32>,
}

/// Byte offset, in the string at hand, of what cannot be spelled.
type Spelled = std::result::Result<(), usize>;

impl Tokenizer {
    /// Ids of a text. `start`: the text starts a document, so the dummy prefix applies, if there is one.
    pub fn encode(&self, text: &str, start: bool) -> Result<Vec<u32>> {
        self.with_work(|work| {
            let mut out = Vec::with_capacity(text.len() / 3);
            self.encode_text(text, start, work, &mut out)?;
            Ok(out)
        })
    }

    /// Ids of many texts, on `threads` threads (0: as many as the machine has) where the texts have at least
    /// [`PARALLEL_BYTES`] bytes together. The error, if any, is that of the first text that has one.
    pub fn encode_batch(&self, texts: &[&str], start: bool, threads: usize) -> Result<Vec<Vec<u32>>> {
        let small = texts.iter().map(|text| text.len()).sum::<usize>() < PARALLEL_BYTES;
        let blocks = map_blocks(texts.len(), BLOCK, if small { 1 } else { threads }, |range| {
            self.with_work(|work| range.map(|i| self.encode_item(texts[i], i, start, work)).collect())
        });
        let mut all = Vec::with_capacity(texts.len());
        for block in blocks {
            let block: Vec<Vec<u32>> = block?;
            all.extend(block);
        }
        Ok(all)
    }

    fn encode_item(&self, text: &str, index: usize, start: bool, work: &mut Work) -> Result<Vec<u32>> {
        let mut out = Vec::with_capacity(text.len() / 3);
        self.encode_text(text, start, work, &mut out).map_err(|e| e.at(index))?;
        Ok(out)
    }

    fn with_work<T>(&self, call: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        let mut work = Work { cache: self.caches.lend(), ..Work::default() };
        let result = call(&mut work);
        self.caches.give_back(work.cache);
        result
    }

    /// Added tokens in the text as given, then what lies between.
    fn encode_text(&self, text: &str, start: bool, work: &mut Work, out: &mut Vec<u32>) -> Result<()> {
        let mut result = Ok(());
        self.added.raw.cut(text, |range, id| match id {
            Some(id) => out.push(id),
            None if result.is_ok() => {
                let segment = self.encode_segment(&text[range.clone()], start, work, out);
                result =
                    segment.map_err(|offset| Error::text(range.start + offset, "the vocabulary cannot spell this"));
            }
            None => {}
        });
        result
    }

    /// Normalizes a segment, finds the added tokens in the normalized text, then what lies between.
    fn encode_segment(&self, segment: &str, start: bool, work: &mut Work, out: &mut Vec<u32>) -> Spelled {
        let normalized = self.normalizer.apply(segment);
        let mut result = Ok(());
        self.added.normalized.cut(&normalized, |range, id| match id {
            Some(id) => out.push(id),
            None if result.is_ok() => {
                let part = self.encode_normalized(&normalized[range.clone()], start, work, out);
                result = part.map_err(|offset| {
                    let before = chars_before(&normalized, range.start + offset);
                    self.normalizer.original_offset(segment, before)
                });
            }
            None => {}
        });
        result
    }

    /// Prefix, pretokenizer, model.
    fn encode_normalized(&self, text: &str, start: bool, work: &mut Work, out: &mut Vec<u32>) -> Spelled {
        let (text_in_model, prefix) = self.model_text(text, start);
        let mut pieces = std::mem::take(&mut work.pieces);
        pieces.clear();
        self.pretokenizer.split(&text_in_model, &mut pieces);
        let result = pieces.iter().try_for_each(|range| {
            self.encode_pretoken(&text_in_model[range.clone()], work, out).map_err(|offset| range.start + offset)
        });
        work.pieces = pieces;
        // Spaces may have become longer, so the offset goes by characters.
        result.map_err(|offset| {
            let before = chars_before(&text_in_model[prefix..], offset.saturating_sub(prefix));
            text.char_indices().nth(before).map_or(text.len(), |(at, _)| at)
        })
    }

    /// The text with markers for spaces and with the dummy prefix, and the length of the latter.
    fn model_text<'a>(&self, text: &'a str, start: bool) -> (Cow<'a, str>, usize) {
        let space = self.symbols.marker().unwrap_or(' ');
        let mut text = Cow::Borrowed(text);
        if space != ' ' && self.normalizer.replace.is_none() && text.contains(' ') {
            text = Cow::Owned(text.replace(' ', space.encode_utf8(&mut [0; 4])));
        }
        let wanted = match self.dummy {
            Some(Dummy::Always) => !text.is_empty(),
            Some(Dummy::UnlessSpace) => !text.is_empty() && !text.starts_with(space),
            None => false,
        };
        if !(start && wanted) {
            return (text, 0);
        }
        let mut prefixed = String::with_capacity(text.len() + space.len_utf8());
        prefixed.push(space);
        prefixed.push_str(&text);
        (Cow::Owned(prefixed), space.len_utf8())
    }

    fn encode_pretoken(&self, pretoken: &str, work: &mut Work, out: &mut Vec<u32>) -> Spelled {
        if let Some(id) = self.find_whole(pretoken) {
            out.push(id);
            return Ok(());
        }
        let mut at = 0;
        while at < pretoken.len() {
            let end = at + self.cuts.first(&pretoken[at..]);
            self.encode_piece(&pretoken[at..end], work, out).map_err(|offset| at + offset)?;
            at = end;
        }
        Ok(())
    }

    fn find_whole(&self, pretoken: &str) -> Option<u32> {
        if !self.ignore_merges {
            return None;
        }
        match self.symbols.marker() {
            Some(marker) => self.whole_pretoken(pretoken.replace(marker, " ").as_bytes()),
            None => self.whole_pretoken(pretoken.as_bytes()),
        }
    }

    fn encode_piece(&self, piece: &str, work: &mut Work, out: &mut Vec<u32>) -> Spelled {
        if let Some(ids) = work.cache.get(piece.as_bytes()) {
            out.extend_from_slice(ids);
            return Ok(());
        }
        work.symbols.clear();
        self.symbols.spell(piece, &mut work.symbols)?;
        self.bpe.merge(&mut work.symbols);
        work.cache.put(piece.as_bytes(), &work.symbols);
        out.extend_from_slice(&work.symbols);
        Ok(())
    }
}

/// Number of characters that end at or before byte `offset`.
fn chars_before(text: &str, offset: usize) -> usize {
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= offset).count()
}
