//! Which relation two tokenizers have (docs/mathematics.md, section 6).

use rustc_hash::{FxHashMap, FxHashSet};

use crate::tokenizer::added::Stage;
use crate::tokenizer::{Symbols, TokenKind, Tokenizer};

/// What can be computed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// Both encode every text alike (ids may differ).
    Same,
    /// The student's merges are the first merges of the teacher's.
    Subset,
    /// Anything else.
    General,
}

impl Regime {
    /// As Python has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Subset => "subset",
            Self::General => "general",
        }
    }
}

/// A regime with the reason for it.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub regime: Regime,
    pub reason: String,
}

/// Finds the regime, from what the files hold.
pub fn compare(teacher: &Tokenizer, student: &Tokenizer) -> Verdict {
    match related(teacher, student) {
        Ok((regime, reason)) => Verdict { regime, reason },
        Err(reason) => Verdict { regime: Regime::General, reason },
    }
}

/// "same" or "subset" with the reason; otherwise the first difference found.
fn related(teacher: &Tokenizer, student: &Tokenizer) -> Result<(Regime, String), String> {
    same_surroundings(teacher, student)?;
    if let Some(id) = merged_special(student) {
        return Err(format!("merges make the student's special token {id}"));
    }
    let (kept, of) = common_merges(teacher, student)?;
    if whole_has_effect(student) {
        let alike = kept == of && same_whole(teacher, student);
        if !alike {
            return Err("the student's ignore_merges has an effect".into());
        }
        return Ok((Regime::Same, "all merges and the same look-up of whole pretokens".into()));
    }
    let same = kept == of && !whole_has_effect(teacher);
    if !same && has_two_spellings(teacher) {
        return Err("a special token can hide an added token, which merges then spell otherwise".into());
    }
    if same {
        Ok((Regime::Same, format!("all {of} merges in the same order")))
    } else {
        Ok((Regime::Subset, format!("the student has the first {kept} of the teacher's {of} merges")))
    }
}

/// Everything but the merges.
fn same_surroundings(teacher: &Tokenizer, student: &Tokenizer) -> Result<(), String> {
    if alphabet(teacher) != alphabet(student) {
        return Err("the pieces that no merge makes, or the byte fallback, differ".into());
    }
    if teacher.normalizer != student.normalizer {
        return Err("the normalizers differ".into());
    }
    if teacher.layers != student.layers {
        return Err("the pretokenizers differ".into());
    }
    if teacher.dummy != student.dummy {
        return Err("the dummy prefixes differ".into());
    }
    let stages = [(&teacher.added.raw, &student.added.raw), (&teacher.added.normalized, &student.added.normalized)];
    for (ours, theirs) in stages {
        if contents(ours, false) != contents(theirs, false) {
            return Err("the added tokens that are not special differ".into());
        }
        let hidden = !hiding(ours).is_empty() || !hiding(theirs).is_empty();
        if hidden && contents(ours, true) != contents(theirs, true) {
            return Err("special tokens differ, and some overlap added tokens".into());
        }
    }
    Ok(())
}

/// A special (or the unknown) token that merging makes of a text's symbols: texts that hold it are not admissible.
fn merged_special(tokenizer: &Tokenizer) -> Option<u32> {
    let refused = |&id: &u32| matches!(tokenizer.kind[id as usize], TokenKind::Special | TokenKind::Unk);
    let made = |&id: &u32| tokenizer.bpe.reachable.get(id as usize) == Some(&true);
    (0..tokenizer.vocab_size as u32).find(|id| refused(id) && made(id))
}

/// What the symbols of a tokenizer stand for.
#[derive(PartialEq, Eq)]
struct Alphabet {
    byte_level: bool,
    marker: Option<char>,
    /// Bytes of each piece, and whether it is a fallback byte.
    pieces: FxHashSet<(Vec<u8>, bool)>,
}

fn alphabet(tokenizer: &Tokenizer) -> Alphabet {
    let pieces = match &tokenizer.symbols {
        Symbols::Bytes { .. } => {
            (0..=u8::MAX).filter(|&b| tokenizer.symbols.spells_byte(b)).map(|b| (vec![b], false)).collect()
        }
        Symbols::Chars { piece, fallback, .. } => {
            let chars = piece.keys().map(|c| (c.to_string().into_bytes(), false));
            let bytes = fallback.iter().flat_map(|table| {
                (0..=u8::MAX).filter(|&b| table[usize::from(b)] != u32::MAX).map(|b| (vec![b], true))
            });
            chars.chain(bytes).collect()
        }
    };
    Alphabet { byte_level: tokenizer.symbols.is_bytes(), marker: tokenizer.symbols.marker(), pieces }
}

fn contents(stage: &Stage, special: bool) -> FxHashSet<&[u8]> {
    stage.patterns.iter().filter(|p| p.special == special).map(|p| p.content.as_slice()).collect()
}

/// Special tokens that can hide an added token by overlapping it in a text.
fn hiding(stage: &Stage) -> FxHashSet<&[u8]> {
    let plain = contents(stage, false);
    let mut special = contents(stage, true);
    special.retain(|s| plain.iter().any(|p| overlap(s, p)));
    special
}

/// Whether some added token is matched in one text and, hidden by a special token, merged or looked up whole in another:
/// in a student's tokens the two differ.
fn has_two_spellings(teacher: &Tokenizer) -> bool {
    let merged = |id: u32| {
        let reached = teacher.bpe.reachable.get(id as usize) == Some(&true);
        reached || teacher.whole_pretoken(teacher.bytes.get(id)) == Some(id)
    };
    [&teacher.added.raw, &teacher.added.normalized]
        .into_iter()
        .any(|stage| !hiding(stage).is_empty() && stage.patterns.iter().any(|p| !p.special && merged(p.id)))
}

fn overlap(a: &[u8], b: &[u8]) -> bool {
    let ends_into = |a: &[u8], b: &[u8]| (1..=a.len().min(b.len())).any(|n| a[a.len() - n..] == b[..n]);
    let within = |a: &[u8], b: &[u8]| a.windows(b.len().max(1)).any(|w| w == b);
    ends_into(a, b) || ends_into(b, a) || within(a, b) || within(b, a)
}

/// Own merges of the student, if they are the teacher's up to some rank (less those whose parts it lacks): how many there
/// are, and how many the teacher has.
fn common_merges(teacher: &Tokenizer, student: &Tokenizer) -> Result<(usize, usize), String> {
    let of_student = Meanings::new(student);
    let theirs = own_merges(student);
    let ours = own_merges(teacher);
    let mut next = 0;
    for &(token, left, right) in &ours {
        let (Some(l), Some(r)) = (of_student.find(teacher, left), of_student.find(teacher, right)) else { continue };
        let Some(&(t, sl, sr)) = theirs.get(next) else { break };
        if (sl, sr) != (l, r) || student.bytes.get(t) != teacher.bytes.get(token) {
            return Err(format!("merge {} of the student is not the teacher's", next + 1));
        }
        next += 1;
    }
    if next < theirs.len() {
        return Err(format!("merge {} of the student is not the teacher's", next + 1));
    }
    Ok((theirs.len(), ours.len()))
}

/// (token, left, right) of every token that merges reach, in the order of rank.
fn own_merges(tokenizer: &Tokenizer) -> Vec<(u32, u32, u32)> {
    let mut all: Vec<(u32, u32)> = (0..tokenizer.bpe.own.len() as u32)
        .filter(|&t| !tokenizer.bpe.own[t as usize].is_none())
        .map(|t| (tokenizer.bpe.own[t as usize].rank, t))
        .collect();
    all.sort_unstable();
    all.into_iter()
        .map(|(_, t)| {
            let own = tokenizer.bpe.own[t as usize];
            (t, own.left, own.right)
        })
        .collect()
}

/// Tokens that merging can produce, by their bytes.
struct Meanings<'a>(FxHashMap<(&'a [u8], bool), u32>);

impl<'a> Meanings<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let reachable =
            (0..tokenizer.vocab_size as u32).filter(|&t| tokenizer.bpe.reachable.get(t as usize) == Some(&true));
        Self(reachable.map(|t| ((tokenizer.bytes.get(t), is_fallback(tokenizer, t)), t)).collect())
    }

    fn find(&self, tokenizer: &Tokenizer, token: u32) -> Option<u32> {
        self.0.get(&(tokenizer.bytes.get(token), is_fallback(tokenizer, token))).copied()
    }
}

fn is_fallback(tokenizer: &Tokenizer, token: u32) -> bool {
    tokenizer.kind[token as usize] == TokenKind::Fallback
}

/// Pretokens that are looked up whole and that merging would spell otherwise.
fn looked_up(tokenizer: &Tokenizer) -> FxHashSet<&[u8]> {
    if !tokenizer.ignore_merges {
        return FxHashSet::default();
    }
    let differs = |id: u32| {
        let mut symbols = tokenizer.symbols_of(id);
        tokenizer.bpe.merge(&mut symbols);
        symbols != [id]
    };
    tokenizer.whole.iter().filter(|&(_, &id)| differs(id)).map(|(bytes, _)| bytes.as_ref()).collect()
}

fn whole_has_effect(tokenizer: &Tokenizer) -> bool {
    !looked_up(tokenizer).is_empty()
}

fn same_whole(teacher: &Tokenizer, student: &Tokenizer) -> bool {
    looked_up(teacher) == looked_up(student)
}
