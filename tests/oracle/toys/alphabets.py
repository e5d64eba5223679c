"""Alphabets that make the branches of the patterns matter. One is drawn, then sometimes a character is added."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from .reading import byte_alphabet, spellable

Alphabet = Sequence[str] | None
"""The characters that a toy must be made over; None: it draws its own."""

CEDILLA, ACUTE = "\u0327", "\u0301"

BRANCHY = (
    ("a", " ", "1"),
    ("a", " ", "\n"),
    ("a", " ", "!"),
    ("'", "s", "a"),
    ("'", "l", " "),
    ("'", "s", " ", "1"),
    ("a", " ", "1", "\n"),
    ("a", " ", "!", "\n"),
    ("a", "\n", "!"),
    ("1", " ", "!"),
    (" ", "\n", "é"),
    ("a", " ", "\u3000"),
    ("a", " ", "\u00a0"),
    ("a", "1", "½"),
    ("é", " ", "佽"),
    ("a", "𝝝", " "),
    ("é", "½", " "),
    ("a", " ", "\r", "\n"),
)

LETTERS = (
    ("a", "b", "é"),
    ("a", "b"),
    ("a", "b", " "),
    ("a", "佽"),
    ("a", "b", "c"),
    ("é", "½"),
    ("a", "𝝝"),
)

CJK = (
    ("佽", "a", " "),
    ("佽", "1", " "),
    ("佽", "ぁ", "a"),
    ("佽", "!", "a"),
    ("1", " ", "a"),
    ("!", "a", "\n"),
    ("佽", " ", "\n"),
    ("ぁ", "!", " "),
    ("1", "佽", "½"),
)

DIGITS = (
    ("1", " ", "a"),
    ("1", "2", " "),
    ("1", "½", "a"),
    ("1", " ", "\n"),
    ("1", "'", "s"),
    ("½", " ", "!"),
    ("1", " ", "'", "l"),
)

COMBINING = (
    ("a", CEDILLA, ACUTE),
    ("a", "e", CEDILLA, ACUTE),
    ("e", "é", ACUTE),
    ("e", ACUTE, " "),
    ("c", CEDILLA, ACUTE),
)

SPACED = (
    ("a", "b", " "),
    ("a", " ", "é"),
    ("a", " ", "\n"),
    ("a", " ", "佽"),
    ("a", "b", " ", "1"),
    ("a", " ", "𝝝"),
)
"""For SentencePiece-style toys: every one has the space."""

MARKED = (("<", "a", ">", "b"), ("a", "b", " "), ("<", "a", ">"), ("a", "b", "é"), ("a", " ", "1"))
"""For toys with added tokens."""


def byte_pieces(chars: Iterable[str], rng: random.Random, drop: float = 0.2) -> tuple[list[str], list[str]]:
    """The byte alphabet of `chars` and the closed list of characters.

    With probability `drop` one byte is left out of the vocabulary: the characters that need it stay in the
    list, cannot be spelled, and so can never be the witness of a prefix.
    """
    wanted = list(chars)
    pool = {byte for char in wanted for byte in char.encode()}
    if len(wanted) > 2 and rng.random() < drop:
        pool.discard(rng.choice(sorted(pool)))
    closed = wanted + [char for char in spellable(pool) if char not in wanted]
    alphabet = byte_alphabet()
    return [alphabet[byte] for byte in sorted(pool)], closed


def draw(pool: tuple[tuple[str, ...], ...], rng: random.Random, given: Alphabet = None) -> list[str]:
    """An alphabet, sometimes with one more character; never more than five once closed. Or the given one."""
    if given is not None:
        return list(given)
    while True:
        chars = list(rng.choice(pool))
        if rng.random() < 0.3:
            extra = rng.choice(("b", " ", "\n", "1", "!", "é", "佽", "s"))
            chars += [extra] if extra not in chars else []
        if len(spellable({byte for char in chars for byte in char.encode()})) <= 5 and len(chars) <= 4:
            return chars
