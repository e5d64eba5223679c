"""Teacher tokens by their bytes, and the student tokens that they are taken for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from crosstok.ragged import IntArray
from crosstok.tokenizer import Tokenizer

# Moves that are kept: a student boundary inside a teacher token has its own, by the bytes that have begun.
KEPT = 256


class Move(NamedTuple):
    """Where the mass of teacher tokens goes; all others have no part in it. int64 [k] both.

    target: a student token, −1 where the method knows none.
    """

    token: IntArray
    target: IntArray


class Vocabulary:
    """The student's ordinary tokens by their bytes; of several with the same ones, one that texts begin with.

    Special tokens have no bytes of a text.
    """

    def __init__(self, student: Tokenizer) -> None:
        special = set(student.special_ids.tolist())
        self._ids: dict[bytes, int] = {}
        for id in range(student.vocab_size):
            data = b"" if id in special else student.token_bytes(id)
            if data and (data not in self._ids or _replaces(student, id, self._ids[data])):
                self._ids[data] = id
        self._longest = max(map(len, self._ids), default=0)

    def equal(self, data: bytes) -> int:
        """The token with just these bytes, −1 for none."""
        return self._ids.get(data, -1)

    def longest_prefix(self, data: bytes) -> int:
        """The longest token that ``data`` begins with, −1 for none."""
        for size in range(min(len(data), self._longest), 0, -1):
            id = self._ids.get(data[:size])
            if id is not None:
                return id
        return -1


def _replaces(student: Tokenizer, id: int, known: int) -> bool:
    """Whether encodings begin with a token, but not with the one with the same bytes that was found first."""
    return student.is_canonical([id]) and not student.is_canonical([known])


class Moves:
    """The moves of a method, made when they are first asked for.

    tokens: int64, teacher tokens that can stand in an encoding. find: what a method takes the bytes after a student
    boundary for, −1 for nothing.
    """

    def __init__(self, teacher: Tokenizer, tokens: Iterable[int], find: Callable[[bytes], int]) -> None:
        self._find = find
        self._tokens = sorted((teacher.token_bytes(id), id) for id in map(int, tokens))
        # The last student boundary may lie behind the teacher's (bytes have begun) or, by a dummy prefix, before it.
        self.of = lru_cache(KEPT)(self._of)

    def _of(self, lead: bytes, begun: bytes) -> Move:
        """The move of all tokens that, behind ``lead``, begin with ``begun`` and go on; at most one is not empty."""
        token, target = [], []
        for data, id in islice(self._tokens, bisect_left(self._tokens, (begun, -1)), None):
            if not data.startswith(begun):
                break  # they are sorted
            if len(data) > len(begun):
                token.append(id)
                target.append(self._find(lead + data[len(begun) :]))
        return Move(np.asarray(token, dtype=np.int64), np.asarray(target, dtype=np.int64))
