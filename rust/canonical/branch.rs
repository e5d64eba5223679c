//! One way to read a canonical prefix: all guesses made, all parts of the conjunction in their states.

use smallvec::SmallVec;

use super::Canonical;
use super::added::AddedState;
use super::nfc::{self, Tail};
use super::partial::{Fed, Partial};
use super::shape::{Use, class_of};
use super::whole::WholeState;
use crate::bpe::NONE;
use crate::pretoken::boundaries::{Boundaries, State as PretokenState, Step};
use crate::tokenizer::{Dummy, Symbols, TokenKind};

/// The state of every part after a token sequence, under one set of guesses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Branch {
    /// The last token of the open pretoken, or [`NONE`] where the pretokenizer starts afresh.
    pub(crate) last: u32,
    pub(crate) pretok: PretokenState,
    /// Bytes of an unfinished character.
    pub(crate) partial: Partial,
    /// What was decided about the boundary before that character.
    pub(crate) step: Step,
    pub(crate) whole: WholeState,
    pub(crate) phase: Phase,
    pub(crate) added: AddedState,
    /// What NFC may still change; empty without NFC.
    pub(crate) tail: Tail,
    /// The text ends in whitespace that a stripping normalizer would take away.
    pub(crate) stripped: bool,
}

/// The start of a text, where a dummy prefix stands and a stripping normalizer bites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Past the start.
    Open,
    /// The next character is the dummy prefix.
    Dummy,
    /// The next character is the first of the text; `after_dummy`: there must be one.
    First { after_dummy: bool },
}

/// Branches of one prefix; nearly always one or two.
pub type Branches = SmallVec<[Branch; 1]>;

impl Canonical {
    pub(super) fn first_branch(&self, start: bool) -> Branch {
        let normalizer = &self.tokenizer.normalizer;
        let phase = match (start, self.tokenizer.dummy) {
            (true, Some(_)) => Phase::Dummy,
            _ if normalizer.strip_left => Phase::First { after_dummy: false },
            _ => Phase::Open,
        };
        Branch { phase, ..Self::neutral(Boundaries::START) }
    }

    /// A branch in which nothing but the pretokenizer's state matters.
    pub(super) fn neutral(pretok: PretokenState) -> Branch {
        Branch {
            last: NONE,
            pretok,
            partial: Partial::NONE,
            step: Step::Join,
            whole: WholeState::FRESH,
            phase: Phase::Open,
            added: AddedState::default(),
            tail: Tail::new(),
            stripped: false,
        }
    }

    /// Whether the text may end here.
    pub(super) fn branch_complete(&self, branch: &Branch) -> bool {
        self.piece_may_end(branch)
            && !matches!(branch.phase, Phase::First { after_dummy: true })
            && !branch.stripped
            && self.added.as_ref().is_none_or(|added| added.complete(&branch.added))
    }

    /// Whether the input of the pretokenizer may end here: at the end of the text or before an added token.
    pub(super) fn piece_may_end(&self, branch: &Branch) -> bool {
        branch.partial.is_empty()
            && (branch.last == NONE || (self.boundaries.complete(branch.pretok) && self.whole.may_end(branch.whole)))
    }

    /// Every branch after one more token; not all of them need have a continuation.
    pub(super) fn push_branch(&self, branch: &Branch, token: u32) -> Branches {
        let mut out = Branches::new();
        let Some(&shape) = self.shapes.get(token) else { return out };
        if shape.matched {
            out.extend(self.push_matched(branch, token));
        }
        if shape.usable == Use::Never {
            return out;
        }
        let continues = !branch.partial.is_empty();
        if continues != (shape.lead > 0) {
            return out;
        }
        if branch.last == NONE && !continues {
            self.read_token(branch, token, Join::Fresh, &mut out);
            return out;
        }
        if shape.usable == Use::Merged && branch.whole != WholeState::CLOSED && self.pair_valid(branch.last, token) {
            self.read_token(branch, token, Join::Inside, &mut out);
        }
        if !continues && self.whole.may_end(branch.whole) {
            self.read_token(branch, token, Join::Boundary, &mut out);
        }
        out
    }

    fn pair_valid(&self, left: u32, right: u32) -> bool {
        self.tokenizer.bpe.pair_valid(left, right)
    }

    /// The added token `token`, matched in the text.
    fn push_matched(&self, branch: &Branch, token: u32) -> Option<Branch> {
        if !self.piece_may_end(branch) || branch.phase != Phase::Open {
            return None;
        }
        let mut after =
            Branch { added: branch.added.clone(), tail: branch.tail.clone(), ..Self::neutral(Boundaries::START) };
        if self.tokenizer.normalizer.nfc {
            let content = std::str::from_utf8(self.tokenizer.bytes.get(token)).ok()?;
            if !content.chars().all(|c| nfc::feed(&mut after.tail, c)) {
                return None;
            }
        }
        self.added.as_ref()?.claim(&mut after.added, token).then_some(after)
    }

    /// Reads the bytes of an ordinary token. The pair has been tested.
    pub(super) fn read_token(&self, branch: &Branch, token: u32, join: Join, out: &mut Branches) {
        let shape = self.shapes.shape[token as usize];
        let mut after = branch.clone();
        after.whole = match (shape.usable, join) {
            (Use::Whole, _) => WholeState::CLOSED,
            (_, Join::Inside) => self.whole.step(branch.whole, token),
            _ => self.whole.step(WholeState::FRESH, token),
        };
        after.last = token;
        let bytes = self.tokenizer.bytes.get(token);
        if let Some(added) = &self.added
            && !added.read(&mut after.added, bytes)
        {
            return;
        }
        if branch.partial.is_empty() {
            after.step = if join == Join::Boundary { Step::Cut } else { Step::Join };
        }
        let mut pretok: SmallVec<[PretokenState; 2]> = SmallVec::from_slice(&[branch.pretok]);
        for &byte in bytes {
            match after.partial.feed(byte) {
                Fed::Invalid => return,
                Fed::More(partial) => after.partial = partial,
                Fed::Char(c) => {
                    after.partial = Partial::NONE;
                    if !self.read_char(&mut after, &mut pretok, c, token) {
                        return;
                    }
                }
            }
        }
        if !after.partial.is_empty() {
            // Only a quick refusal: whether the vocabulary completes the character is for the witness to say.
            let classes = self.completions.classes(after.partial);
            pretok.retain(|state| self.boundaries.possible(*state, after.step).meets(&classes));
        }
        for state in pretok {
            out.push(Branch { pretok: state, ..after.clone() });
        }
    }

    /// Adds a whole character to every part; `false` if one of them forbids it.
    fn read_char(&self, branch: &mut Branch, pretok: &mut SmallVec<[PretokenState; 2]>, c: char, token: u32) -> bool {
        let tokenizer = &self.tokenizer;
        if tokenizer.kind[token as usize] == TokenKind::Fallback && !self.falls_back(c) {
            return false;
        }
        if branch.phase != Phase::Open && !self.read_first(branch, c) {
            return false;
        }
        if tokenizer.normalizer.nfc && !nfc::feed(&mut branch.tail, c) {
            return false;
        }
        branch.stripped = tokenizer.normalizer.strip_right && c.is_whitespace();
        let class = class_of(tokenizer, c);
        let mut next = SmallVec::new();
        for &state in pretok.iter() {
            for &after in self.boundaries.step(state, branch.step, class) {
                if !next.contains(&after) {
                    next.push(after);
                }
            }
        }
        *pretok = next;
        branch.step = Step::Join;
        !pretok.is_empty()
    }

    /// The first characters of a text that starts a document.
    fn read_first(&self, branch: &mut Branch, c: char) -> bool {
        if branch.phase == Phase::Dummy {
            branch.phase = Phase::First { after_dummy: true };
            return c == ' ';
        }
        branch.phase = Phase::Open;
        let doubled = self.tokenizer.dummy == Some(Dummy::UnlessSpace) && c == ' ';
        !(doubled || self.tokenizer.normalizer.strip_left && c.is_whitespace())
    }

    /// Whether `c` is spelled with fallback bytes: it has no piece of its own.
    fn falls_back(&self, c: char) -> bool {
        match &self.tokenizer.symbols {
            Symbols::Bytes { .. } => false,
            Symbols::Chars { piece, marker, .. } => {
                !piece.contains_key(&c) && marker.is_none_or(|m| c != m && c != ' ')
            }
        }
    }
}

/// How a token joins what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Join {
    /// Nothing is before it in this input of the pretokenizer.
    Fresh,
    /// The same pretoken goes on (or the same character).
    Inside,
    /// A pretoken ends before it.
    Boundary,
}
