"""Where a student certainly cuts a text, whatever follows: reasoned from characters and its list of tokens alone.

A cut between two characters is certain if every text that goes on in whatever way has a token boundary there, and has
before it the tokens that the text known so far has before it. Nothing here asks the library for more than whole
encodings and the bytes of tokens. A cut is certain

* for a student that splits nothing (SentencePiece) between two characters that no token joins, not even a part of the
  one to a part of the other: nothing is merged across;
* for a student with one of today's patterns (Qwen, Llama 3, DeepSeek) between such characters too, if neither is a
  space: what is split before such a place does not depend on what comes after it;
* for these also between a letter, digit or sign and a space, at most other changes of kind (`_CHANGES`), and in a run
  of spaces and line feeds that has ended: after its last line feed, and before its last space if that goes to a letter
  or sign. No branch of the patterns spans such a place, and none looks ahead but at the end of a run of spaces. An
  added token must not join the two characters.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import crosstok as ct

# L letter, N digit, P sign, S space, B line feed. A sign may belong to the letters after it, a space to whatever
# follows, and line feeds to the signs before them.
_CHANGES = frozenset(["LS", "LN", "LP", "LB", "NL", "NS", "NP", "NB", "PS", "PN"])
_KINDS = {"L": "L", "N": "N", "P": "P", "S": "P"}
# DeepSeek splits these off first, the signs among them too.
_KANA, _CJK = range(0x3040, 0x3100), range(0x4E00, 0x9FA6)
# What a token holds on both sides of a place between two characters, of its first and last one maybe a part.
Joined = set[tuple[bytes, bytes]]


class Cuts(Protocol):
    """Whether there is a certain cut before the character ``at`` of a text (neither its first nor beyond its end).

    looks_ahead: whether what is split before a place may depend on spaces after it.
    """

    looks_ahead: bool

    def __call__(self, text: str, at: int) -> bool: ...

    def afresh(self, text: str, at: int) -> bool:
        """Whether the text from there is encoded, too, as if nothing were before it."""


def cuts_of(tokenizer: ct.Tokenizer) -> Cuts:
    """The rule for a tokenizer. Raises ValueError for one whose pretokenizer is none of those above."""
    file = json.loads(tokenizer.to_json())
    special = set(tokenizer.special_ids.tolist())
    ids = (id for id in range(tokenizer.vocab_size) if id not in special)
    apart = _apart(tokenizer.token_bytes(id) for id in ids)
    pretokenizer = file["pre_tokenizer"]
    parts = (pretokenizer or {}).get("pretokenizers", [pretokenizer] if pretokenizer else [])
    patterns = [part["pattern"] for part in parts if part["type"] == "Split"]
    if not parts or patterns == [{"String": " "}]:  # Gemma's has no effect: its normalizer leaves no space
        return Unsplit(apart)
    if not any(r"\p{L}" in pattern.get("Regex", "") for pattern in patterns):
        raise ValueError(f"no rule for the cuts of {tokenizer}")
    added = (token["content"].encode() for token in file["added_tokens"] if not token["special"])
    return Split(apart, _apart(added))


@dataclass
class Unsplit:
    """Of a student without a pretokenizer. apart: whether no token joins two characters."""

    apart: Callable[[str, str], bool]
    looks_ahead: bool = False

    def __call__(self, text: str, at: int) -> bool:
        """See `Cuts`."""
        return self.apart(text[at - 1], text[at])

    def afresh(self, text: str, at: int) -> bool:
        """See `Cuts`."""
        return self(text, at)


@dataclass
class Split:
    """Of a student with a pattern. apart, not_added: whether no token, no added token joins two characters."""

    apart: Callable[[str, str], bool]
    not_added: Callable[[str, str], bool]
    looks_ahead: bool = True

    def __call__(self, text: str, at: int) -> bool:
        """See `Cuts`."""
        left, right = text[at - 1], text[at]
        if self.afresh(text, at):
            return True
        return not left.isspace() and not right.isspace() and self.apart(left, right)

    def afresh(self, text: str, at: int) -> bool:
        """See `Cuts`. Where no token joins two characters they may still be in one piece, on which the next depends."""
        left, right = text[at - 1], text[at]
        found = _in_run(text, at) if left in " \n" else _kind(left) + _kind(right) in _CHANGES
        return found and self.not_added(left, right)


def _in_run(text: str, at: int) -> bool:
    """Whether a cut after a space or line feed is one of those in their run, which must have ended."""
    after_line = text[at - 1] == "\n" and text[at] != "\n"
    before_last = text[at] == " " and at + 1 < len(text) and text[at + 1] not in " \n"
    if not (after_line or before_last):
        return False
    first, last = at - 1, at  # the run is text[first:last]
    while first and text[first - 1] in " \n":
        first -= 1
    while last < len(text) and text[last] in " \n":
        last += 1
    after = _kind(text[last]) if last < len(text) else "?"
    if after == "?" or (first and text[first - 1].isspace()):
        return False
    if after_line and "\n" not in text[at:last]:
        return True
    split_off = ord(text[last]) in _KANA or ord(text[last]) in _CJK
    return before_last and after in "LP" and not split_off


@lru_cache(1 << 16)
def _kind(character: str) -> str:
    """One of the letters of `_CHANGES`, or "?" for what nothing is said of."""
    if character in " \n":
        return "S" if character == " " else "B"
    kind = _KINDS.get(unicodedata.category(character)[0], "?")
    return "?" if kind == "P" and ord(character) in _KANA else kind


def _apart(tokens: Iterable[bytes]) -> Callable[[str, str], bool]:
    """Whether no token holds the end of one character and the beginning of another."""
    joined: Joined = {place for token in tokens for place in _places(token)}

    @lru_cache(1 << 16)
    def apart(left: str, right: str) -> bool:
        first, second = left.encode(), right.encode()
        ends = (first[a:] for a in range(len(first)))
        return not any((end, second[:b]) in joined for end in ends for b in range(1, len(second) + 1))

    return apart


def _places(token: bytes) -> Iterator[tuple[bytes, bytes]]:
    begins = [at for at, byte in enumerate(token) if byte & 0xC0 != 0x80]
    for number, at in enumerate(begins):
        before = begins[number - 1] if number else 0
        after = begins[number + 1] if number + 1 < len(begins) else len(token)
        if at:
            yield token[before:at], token[at:after]
