"""Random tiny pairs of tokenizers: a teacher of one kind, a student of another, or of the same with other merges.

Different kinds like different alphabets, and a student that cannot spell its teacher's texts has nothing to say about
them. So the student is made over the teacher's characters, and in half of the pairs the teacher over an alphabet on
which the *student's* kind shows its traps. Some students still lack something: a byte of their vocabulary, a character
that is left out on purpose, one that a special token hides, a text that their normalizer rewrites.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import toys
from .brute import BruteTokenizer
from .general import GeneralPair

MAX_TEXTS = 300
"""Texts that an enumeration may add to a stem of the teacher: three characters, or two, or four and short tokens."""

MAX_CHARS = 3

NEAR = 3
"""See `GeneralPair`: second witnesses further than this from the end of a teacher prefix that reaches far are rare."""


def student_kind(kind: str, number: int) -> str:
    """The student's kind for the `number`-th pair of a teacher's kind: every kind meets every other."""
    kinds = toys.KINDS
    return kinds[(kinds.index(kind) + number) % len(kinds)]


def two_toys(kind: str, other: str, rng: random.Random) -> tuple[toys.Toy, toys.Toy]:
    """A teacher and a student of two kinds."""
    alphabet = toys.alphabet_of(other, rng, MAX_CHARS) if rng.random() < 0.5 else None
    teacher = toys.make_toy(kind, rng, MAX_TEXTS, alphabet)
    chars = list(teacher.chars)
    if len(chars) > 2 and rng.random() < 0.15:
        chars.remove(rng.choice(chars))
    return teacher, toys.make_toy(other, rng, alphabet=None if rng.random() < 0.05 else chars)


def brute_pair(teacher: toys.Toy, student: toys.Toy, start: bool = False, more: int = 0) -> GeneralPair:
    """The oracle of two toys. `more`: how many characters further than needed all its enumerations go.

    What is needed is measured, not proved: in 1 of 2,000 pairs a teacher's token had its first witness one character
    past `Toy.ahead` (a token of three spaces, if a newline, a space and a newline come after it).
    """
    of_teacher = BruteTokenizer(teacher.spec, teacher.chars, teacher.ahead + more, start)
    # A student is only asked for the encodings of texts that the teacher has.
    of_student = BruteTokenizer(student.spec, teacher.chars, 0, start)
    return GeneralPair(of_teacher, of_student, student.ahead + more, NEAR + more)


def some_text(pair: GeneralPair, rng: random.Random, least: int = 8, size: int = 4) -> str | None:
    """One of the pair-admissible texts of at most `size` characters; None if there are less than `least`."""
    known: Sequence[str] = sorted(pair.texts(size))
    return rng.choice(known) if len(known) >= least else None
