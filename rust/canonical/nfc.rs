//! Text that NFC leaves alone, character by character.
//!
//! Substrings of NFC text are NFC, and a character with combining class 0 that never composes with what is before it starts
//! afresh. So it is enough to keep the characters since the last such one, and to normalise them with each that follows.

use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::iter::once;
use unicode_normalization_alignments::char::canonical_combining_class;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The characters that a following one may still change or be moved before.
pub type Tail = SmallVec<[char; 2]>;

/// Adds a character; `false` if NFC would rewrite the text.
pub fn feed(tail: &mut Tail, c: char) -> bool {
    if starts_afresh(c) {
        tail.clear();
        tail.push(c);
        return true;
    }
    tail.push(c);
    tail.iter().copied().eq(tail.iter().collect::<String>().nfc().map(|(c, _)| c))
}

/// Whether NFC treats `c` alike whatever comes before it.
pub fn starts_afresh(c: char) -> bool {
    c.is_ascii() || (canonical_combining_class(c) == 0 && is_nfc_quick(once(c)) == IsNormalized::Yes)
}

/// The unfinished characters that may turn out as one of those that do not start afresh.
pub fn doubtful_beginnings() -> FxHashSet<Vec<u8>> {
    let mut all = FxHashSet::default();
    let mut buffer = [0; 4];
    for c in ('\u{80}'..=char::MAX).filter(|&c| !starts_afresh(c)) {
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        all.extend((1..bytes.len()).map(|end| bytes[..end].to_vec()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fed_one_by_one_as_normalised_at_once(
            text in r"([aeou]|[\u{300}-\u{328}]|[\u{1100}-\u{1112}\u{1161}-\u{1175}\u{11a8}-\u{11c2}가각]|é|\u{212b}|\u{f73}){0,8}"
        ) {
            let mut tail = Tail::new();
            let fed = text.chars().all(|c| feed(&mut tail, c));
            let whole: String = text.nfc().map(|(c, _)| c).collect();
            prop_assert_eq!(fed, whole == text);
        }
    }
}
