//! Added tokens: found in the text before the model sees it, the leftmost first and the longest of those.
//!
//! With `encode_special_tokens=True`, which is the setting here, special tokens take part in the search but leave their
//! text where it is; still they consume it, so that `<|a|>` hides an added `|a` inside it.

use super::json::AddedToken;
use super::normalizer::Normalizer;
use crate::error::{Error, Result};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedPattern {
    /// Bytes to find in a text that the normalizer leaves alone: for the normalized stage the normalized content,
    /// the marker of `Replace` mapped back to a space. May differ from the bytes of the token (Gemma 3's runs
    /// of U+2581); such a match is never admissible.
    pub content: Vec<u8>,
    /// The token.
    pub id: u32,
    /// Found, but left as text.
    pub special: bool,
}

/// The two searches: `raw` on the text as given, then `normalized` on the normalized pieces between.
#[derive(Debug, Default)]
pub struct AddedTokens {
    /// Tokens with `normalized: false`.
    pub raw: Stage,
    /// Tokens with `normalized: true`.
    pub normalized: Stage,
}

impl AddedTokens {
    /// Whether any text is ever changed by matching: some token is not special.
    pub fn has_effect(&self) -> bool {
        self.raw.effective || self.normalized.effective
    }
}

/// One search over bytes.
#[derive(Debug, Default)]
pub struct Stage {
    /// The patterns, by id.
    pub patterns: Vec<AddedPattern>,
    /// Some pattern is not special.
    effective: bool,
    trie: Trie,
}

impl Stage {
    fn new(mut entries: Vec<(String, AddedPattern)>) -> Self {
        entries.sort_by_key(|(_, pattern)| pattern.id);
        let mut trie = Trie::default();
        for (i, (needle, _)) in entries.iter().enumerate() {
            trie.insert(needle.as_bytes(), i as u32);
        }
        let patterns: Vec<_> = entries.into_iter().map(|(_, pattern)| pattern).collect();
        Self { effective: patterns.iter().any(|p| !p.special), patterns, trie }
    }

    /// Cuts `text` at the matches of non-special tokens: ranges in order, covering the text, with the token's id
    /// where one matched.
    pub(crate) fn cut(&self, text: &str, mut piece: impl FnMut(Range<usize>, Option<u32>)) {
        let (mut at, mut open) = (0, 0);
        while self.effective && at < text.len() {
            let Some((end, pattern)) = self.trie.longest(text.as_bytes(), at) else {
                at += 1;
                continue;
            };
            let pattern = &self.patterns[pattern as usize];
            if !pattern.special {
                if open < at {
                    piece(open..at, None);
                }
                piece(at..end, Some(pattern.id));
                open = end;
            }
            at = end;
        }
        if open < text.len() {
            piece(open..text.len(), None);
        }
    }
}

/// The id that `tokenizers` gives to each added token, which must be the one that the file states.
pub(super) fn check_ids(tokens: &[AddedToken], ids: &FxHashMap<&str, u32>) -> Result<()> {
    let mut next = ids.len() as u32;
    let mut seen: FxHashMap<&str, usize> = FxHashMap::default();
    for (i, token) in tokens.iter().enumerate() {
        if token.content.is_empty() {
            continue;
        }
        if let Some(first) = seen.insert(&token.content, i) {
            if tokens[first] == *token {
                continue;
            }
            return Err(Error::unsupported(format!("added_tokens[{i}].content"), "listed twice with different flags"));
        }
        let given = ids.get(token.content.as_str()).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        if given != token.id {
            let reason = format!("{:?} is stated as {} but loads as {given}", token.content, token.id);
            return Err(Error::unsupported(format!("added_tokens[{i}].id"), reason));
        }
    }
    Ok(())
}

/// Builds the matchers. `has_prefix`: a dummy prefix exists, which `tokenizers` puts before every piece between added tokens.
pub(super) fn build(tokens: &[AddedToken], normalizer: &Normalizer, has_prefix: bool) -> Result<AddedTokens> {
    let (mut raw, mut normalized) = (Vec::new(), Vec::new());
    let (mut seen, mut alike) = (FxHashMap::default(), FxHashMap::default());
    for (i, token) in tokens.iter().enumerate() {
        if token.content.is_empty() || seen.insert(token.content.as_str(), i).is_some() {
            continue;
        }
        if !token.special {
            check_plain(token, i, normalizer, has_prefix)?;
        }
        let needle =
            if token.normalized { normalizer.apply(&token.content).into_owned() } else { token.content.clone() };
        if needle.is_empty() {
            continue;
        }
        if token.normalized
            && let Some(first) = alike.insert(needle.clone(), i)
            && !(token.special && tokens[first].special)
        {
            // `tokenizers` finds the one or the other, by the order of a hash map.
            let reason = format!("normalized, it is the same as added_tokens[{first}].content");
            return Err(Error::unsupported(format!("added_tokens[{i}].content"), reason));
        }
        let content = match normalizer.replace {
            Some(marker) if token.normalized => needle.replace(marker, " "),
            _ => needle.clone(),
        };
        let pattern = AddedPattern { content: content.into_bytes(), id: token.id, special: token.special };
        if token.normalized { &mut normalized } else { &mut raw }.push((needle, pattern));
    }
    Ok(AddedTokens { raw: Stage::new(raw), normalized: Stage::new(normalized) })
}

/// Flags and combinations that change how a matched token cuts the text.
fn check_plain(token: &AddedToken, i: usize, normalizer: &Normalizer, has_prefix: bool) -> Result<()> {
    let refuse = |flag: &str, reason: &str| {
        Err(Error::unsupported(format!("added_tokens[{i}].{flag}"), format!("{reason} ({:?})", token.content)))
    };
    for (flag, set) in [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)] {
        if set {
            return refuse(flag, "not supported for a token that is not special");
        }
    }
    if has_prefix {
        return refuse("special", "a token that is not special is not supported together with a prefix space");
    }
    if normalizer.strip_left || normalizer.strip_right {
        return refuse("special", "a token that is not special is not supported together with the normalizer Strip");
    }
    Ok(())
}

/// A byte trie. Scanning restarts at every byte: added tokens are short, and few bytes start one.
#[derive(Debug)]
struct Trie {
    nodes: Vec<Node>,
    /// Children of the root, for the test that nearly every byte fails.
    first: [bool; 256],
}

#[derive(Debug, Default)]
struct Node {
    /// By byte, sorted.
    children: Vec<(u8, u32)>,
    /// The pattern that ends here.
    pattern: Option<u32>,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], first: [false; 256] }
    }
}

impl Trie {
    fn insert(&mut self, needle: &[u8], pattern: u32) {
        let mut node = 0;
        for &byte in needle {
            let fresh = self.nodes.len() as u32;
            let children = &mut self.nodes[node].children;
            node = match children.binary_search_by_key(&byte, |&(b, _)| b) {
                Ok(at) => children[at].1 as usize,
                Err(at) => {
                    children.insert(at, (byte, fresh));
                    self.nodes.push(Node::default());
                    fresh as usize
                }
            };
        }
        self.first[usize::from(needle[0])] = true;
        self.nodes[node].pattern = Some(pattern);
    }

    /// End and pattern of the longest match that starts at `at`.
    fn longest(&self, text: &[u8], at: usize) -> Option<(usize, u32)> {
        if !self.first[usize::from(text[at])] {
            return None;
        }
        let (mut node, mut found) = (0, None);
        for (i, byte) in text.iter().enumerate().skip(at) {
            let children = &self.nodes[node].children;
            let Ok(child) = children.binary_search_by_key(byte, |&(b, _)| b) else { break };
            node = children[child].1 as usize;
            if let Some(pattern) = self.nodes[node].pattern {
                found = Some((i + 1, pattern));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, content: &str, special: bool) -> AddedToken {
        AddedToken {
            id,
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special,
        }
    }

    /// Leftmost, then longest, by trying every pattern at every place.
    fn naive(tokens: &[AddedToken], text: &str) -> Vec<(String, Option<u32>)> {
        let (mut out, mut open, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            let here = tokens.iter().filter(|t| text[at..].starts_with(&t.content)).max_by_key(|t| t.content.len());
            let Some(t) = here else {
                at += 1;
                continue;
            };
            if !t.special {
                if open < at {
                    out.push((text[open..at].to_owned(), None));
                }
                out.push((t.content.clone(), Some(t.id)));
                open = at + t.content.len();
            }
            at += t.content.len();
        }
        if open < text.len() {
            out.push((text[open..].to_owned(), None));
        }
        out
    }

    #[test]
    fn cuts_equal_the_naive_search() {
        let tokens: Vec<_> = ["ab", "abc", "bc", "c", "aab", "ca"]
            .iter()
            .enumerate()
            .map(|(i, content)| token(i as u32, content, i % 3 == 1))
            .collect();
        let added = build(&tokens, &Normalizer::default(), false).expect("plain tokens");
        for n in 0..3_usize.pow(7) {
            let text: String = (0..7).map(|i| ['a', 'b', 'c'][n / 3_usize.pow(i) % 3]).collect();
            let mut cut = Vec::new();
            added.raw.cut(&text, |range, id| cut.push((text[range].to_owned(), id)));
            assert_eq!(cut, naive(&tokens, &text), "{text}");
        }
    }

    #[test]
    fn special_tokens_alone_cut_nothing() {
        let added = build(&[token(0, "<s>", true)], &Normalizer::default(), true).expect("special");
        assert!(!added.has_effect());
        let mut cut = Vec::new();
        added.raw.cut("a<s>b", |range, id| cut.push((range, id)));
        assert_eq!(cut, [(0..5, None)]);
    }

    #[test]
    fn contents_that_normalize_alike_are_refused() {
        let normalizer = Normalizer { nfc: true, ..Normalizer::default() };
        let two = |special| {
            ["\u{e9}", "e\u{301}"]
                .map(|content| AddedToken { normalized: true, ..token(content.len() as u32, content, special) })
        };
        assert!(build(&two(true), &normalizer, false).is_ok());
        match build(&two(false), &normalizer, false) {
            Err(Error::Unsupported { field, .. }) => assert_eq!(field, "added_tokens[1].content"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stated_ids_must_be_those_that_load() {
        let ids = FxHashMap::from_iter([("a", 0), ("b", 1)]);
        assert!(check_ids(&[token(1, "b", true), token(2, "x", true), token(3, "y", true)], &ids).is_ok());
        assert!(check_ids(&[token(5, "x", true)], &ids).is_err());
    }
}
