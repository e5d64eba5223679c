//! Text that NFC leaves alone, character by character.
//!
//! Substrings of NFC text are NFC, and a character with combining class 0 that never composes with what is before it starts
//! afresh. Of the marks after such a starter only the highest combining class matters: a mark below it would be moved, one
//! of that class is kept from the starter (blocked), and one above it meets the starter as if nothing stood between. So the
//! starter and one mark of that class stand for all that was read, and they are normalised with each character that follows.

use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::iter::once;
use unicode_normalization_alignments::char::canonical_combining_class;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The last starter and a mark of the highest combining class after it: what a following character may still change or be
/// moved before.
pub type Tail = SmallVec<[char; 2]>;

/// Adds a character; `false` if NFC would rewrite the text.
pub fn feed(tail: &mut Tail, c: char) -> bool {
    if starts_afresh(c) {
        tail.clear();
        tail.push(c);
        return true;
    }
    let stable = tail.iter().copied().chain(once(c)).eq(tail.iter().copied().chain(once(c)).nfc().map(|(c, _)| c));
    if stable {
        keep(tail, c);
    }
    stable
}

/// Makes `c`, which NFC leaves where it is, part of the tail.
fn keep(tail: &mut Tail, c: char) {
    let class = canonical_combining_class(c);
    if class == 0 {
        tail.clear();
    } else if let Some(&last) = tail.last() {
        match canonical_combining_class(last) {
            0 => {}
            before if before == class => return, // blocked alike; this mark itself might not be, next to the starter
            _ => drop(tail.pop()),
        }
    }
    tail.push(c);
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
            prop_assert!(tail.len() <= 2);
        }

        #[test]
        fn marks_of_many_classes(
            text in r"[a가ᄀ\u{9c7}]?[\u{300}\u{301}\u{327}\u{323}\u{345}\u{5b0}\u{93c}\u{94d}\u{9be}\u{1161}\u{11a8}\u{302a}\u{1d165}\u{308}\u{313}]{0,7}"
        ) {
            let mut tail = Tail::new();
            let fed = text.chars().all(|c| feed(&mut tail, c));
            let whole: String = text.nfc().map(|(c, _)| c).collect();
            prop_assert_eq!(fed, whole == text);
        }
    }
}
