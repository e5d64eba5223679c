"""Whether text that starts with certain bytes has a student encoding that starts with s_1..s_i, from strings alone.

Two rules, both conservative. A *certain cut* (`cuts.py`) at or after the end of s_i settles it: encode up to there. And
where no space matters to the pretokenizer, one canonical prefix at most ends at each byte b of the text known so far,
y: the encoding of y[:b]. In every text that goes on from y a token ends with y, or some token v crosses the end of y,
from some b on; then v begins with y[b:] and the encoding of y[:b] and v together ends with v. So the places from which
a token can cross are found by encoding, and it is settled where the encodings up to all of these agree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import crosstok as ct

from .cuts import Cuts, cuts_of
from .vocabulary import Vocabulary

# LOST: no text that goes on so is admissible. What a prefix before has of it counts if that one is in, else not.
IN, UNDECIDED, OUT, LOST = 1, 0, -1, 2


@dataclass
class Student:
    """A student with its certain cuts.

    dummy: bytes of its dummy prefix, which the encoding of a document spells. whole: tokens that no merge makes, which
    stand for a whole piece of text only (``ignore_merges``): what is encoded so now may not be when text is added.
    """

    tokenizer: ct.Tokenizer
    vocabulary: Vocabulary
    cuts: Cuts
    dummy: int
    whole: frozenset[int]

    @classmethod
    def of(cls, tokenizer: ct.Tokenizer) -> Student:
        """Find out what is needed. Raises ValueError for one whose cuts there is no rule for."""
        dummy = len(tokenizer.decode(tokenizer.encode("a", start=True))) - 1
        vocabulary = Vocabulary(tokenizer)
        whole: frozenset[int] = frozenset()
        if json.loads(tokenizer.to_json())["model"].get("ignore_merges"):
            long = (id for id, spelled in enumerate(vocabulary.bytes_of) if len(spelled) > 1)
            whole = frozenset(id for id in long if not tokenizer.merge_dag(id))
        return cls(tokenizer, vocabulary, cuts_of(tokenizer), dummy, whole)

    def ends(self, ids: list[int], start: bool) -> list[int]:
        """The byte of the text at which each token ends."""
        at = -self.dummy if start else 0
        return [at := at + len(self.tokenizer.token_bytes(id)) for id in ids]


@dataclass
class Target:
    """The student prefix s_1..s_i of a text, and decisions on teacher texts that begin with its bytes.

    Only a window is encoded, which begins where the student starts afresh. window: its bytes up to the end of s_i; ids:
    the student's ids in it; start: whether it begins a document.
    """

    student: Student
    window: bytes
    ids: list[int]
    start: bool
    _known: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, student: Student, data: bytes, ids: list[int], start: bool) -> Target:
        """For a text's bytes and s_1..s_i. start: the text starts a document."""
        ends = student.ends(ids, start)
        known, _ = _decoded(data[: ends[-1]])
        for k in range(len(ids) - 1, 0, -1):
            before, part = _decoded(data[: ends[k - 1]])
            if not part and 0 < len(before) < len(known) and student.cuts.afresh(known, len(before)):
                return cls(student, data[ends[k - 1] : ends[-1]], ids[k:], False)
        return cls(student, data[: ends[-1]], ids, start and student.dummy > 0)

    def decide(self, over: bytes) -> int:
        """For texts with ``over`` after s_1..s_i: IN, OUT, LOST, or UNDECIDED without a certain cut beyond."""
        text, _ = _decoded(self.window + over)
        if not text.isascii() and self.student.tokenizer.normalize(text) != text:
            return LOST
        inside, part = _decoded(self.window)
        for at in range(max(1, len(inside) + bool(part)), len(text)):
            if self.student.cuts(text, at):
                beyond = next((k for k in range(at, len(text)) if not text[k].isspace()), len(text) - 1)
                return IN if self._starts(text[: beyond + 1]) else OUT
        return UNDECIDED

    def settle(self, over: bytes) -> int:
        """The same by the second rule, which takes longer; UNDECIDED also where it does not apply."""
        text, _ = _decoded(self.window + over)
        data = text.encode()
        # A token may begin with the dummy prefix, before the text's first byte.
        if self.start or len(data) < len(self.window) or (self.student.cuts.looks_ahead and _has_run(text)):
            return UNDECIDED
        starts = (self._encode(text[:end]) for end in range(1, len(text) + 1))
        if not all(self.student.whole.isdisjoint(ids) for ids in starts):
            return UNDECIDED
        found: list[set[bool]] = []
        for at in range(len(data) + 1):
            found.append(self._agreeing(data, at, found))
        outcome = found[-1]  # where a token ends with y
        others = (at for at in range(len(data)) if found[at] - outcome)
        if len(outcome) > 1 or any(self._crossed(data, at) for at in others):
            return UNDECIDED
        return IN if True in outcome else OUT

    def _agreeing(self, data: bytes, at: int, before: list[set[bool]]) -> set[bool]:
        """Whether canonical prefixes that end at a byte of the text known so far start with s_1..s_i: what may be."""
        text, part = _decoded(data[:at])
        if not part:
            return {self._starts(text)}
        # Inside a character there is nothing to encode: some token has to end there.
        spelled, size = self.student.vocabulary.spelled, len(self.window)
        begins = [a for a in range(at) if data[a:at] in spelled]
        return set().union(*(before[a] if a >= size else {False, at == size} for a in begins))

    def _crossed(self, data: bytes, at: int) -> bool:
        """Whether a token may begin at a byte of the text known so far and end beyond it."""
        spelled, known = self.student.vocabulary.bytes_of, data[at:]
        tokens = self.student.vocabulary.starting_with(known).tolist()
        longer = [token for token in tokens if len(spelled[token]) > len(known)]
        before, part = _decoded(data[:at])
        if part:
            return bool(longer)
        ids = self._encode(before)
        for token in longer:
            reached, rest = _decoded(data[:at] + spelled[token])
            after = self._encode(reached)
            if rest or after == [*ids, token] or not self.student.whole.isdisjoint(after):
                return True
        return False

    def ended(self, over: bytes) -> int:
        """IN, OUT or LOST: the complete text that ends with ``over`` after s_1..s_i."""
        text, part = _decoded(self.window + over)
        if part or self.student.tokenizer.normalize(text) != text:
            return LOST
        return IN if self._starts(text) else OUT

    def _starts(self, text: str) -> bool:
        return self._encode(text)[: len(self.ids)] == self.ids

    def _encode(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.student.tokenizer.encode(text, start=self.start).tolist()
        return self._known[text]


def _has_run(text: str) -> bool:
    """Whether there are two spaces in a row, or others than the usual one, where patterns look ahead."""
    return "  " in text or any(c.isspace() and c != " " for c in text)


def _decoded(data: bytes) -> tuple[str, bytes]:
    """Whole characters, and the bytes of an unfinished last one."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        return data[: error.start].decode(), data[error.start :]
