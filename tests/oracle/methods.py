"""What single teacher rows say of student tokens, by bytes: `method="strict_1to1"` and `"bpm"`, slow and obvious.

A student boundary and a teacher boundary are places in one byte string, the text with the dummy prefix that either
tokenizer may put before it. Where only one of them does, the other's first token begins behind it, and the two
beginnings are the same place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .brute import BruteTokenizer, Ids
from .scores import BrutePair, BruteScorer

Row = dict[int, float]
"""Probabilities of next student tokens, end-of-text among them."""


@dataclass
class ByteMethods:
    """One text (admissible for the scorer's pair), whose student tokens are to be scored.

    continued: the pair where texts continue something, without dummy prefixes.
    """

    scorer: BruteScorer
    text: str
    continued: BrutePair
    tau: Ids = field(init=False)
    sigma: Ids = field(init=False)

    def __post_init__(self) -> None:
        tau, sigma = self.teacher.encode(self.text), self.student.encode(self.text)
        assert tau is not None and sigma is not None
        self.tau, self.sigma = tau, sigma
        # What each has to be given, so that both spell the same bytes.
        missing = len(self.student.decode(sigma)) - len(self.teacher.decode(tau))
        self._of_teacher, self._of_student = b" " * max(missing, 0), b" " * max(-missing, 0)
        self._begin = abs(missing)

    @property
    def teacher(self) -> BruteTokenizer:
        """The teacher's tokenizer."""
        return self.scorer.pair.teacher

    @property
    def student(self) -> BruteTokenizer:
        """The student's tokenizer."""
        return self.scorer.pair.student

    def _theirs(self, count: int) -> bytes:
        return self._of_teacher + self.teacher.decode(self.tau[:count])

    def _ours(self, count: int) -> bytes:
        return self._of_student + self.student.decode(self.sigma[:count])

    def _at(self, data: bytes) -> int:
        return max(len(data), self._begin)

    def node(self, place: int) -> int:
        """How many teacher tokens end at the end of the first `place` student tokens or before it."""
        here = self._at(self._ours(place))
        return max(k for k in range(len(self.tau) + 1) if self._at(self._theirs(k)) <= here)

    def meets(self, place: int) -> bool:
        """Whether one of them ends right there."""
        return self._at(self._theirs(self.node(place))) == self._at(self._ours(place))

    def reach(self, place: int) -> float:
        """q of the teacher tokens up to there."""
        return self.scorer.q(self.tau[: self.node(place)])

    def next_bytes(self, place: int) -> list[tuple[bytes, float]]:
        """What the teacher's tokens add to the student's bytes, with their q; those that add nothing are left out."""
        here, node = self._ours(place), self.node(place)
        longer = [
            (self._theirs(node) + self.teacher.token_bytes[token], q)
            for token, q in self.scorer.node(self.tau[:node])[0].items()
        ]
        return [
            (data[len(here) :], q) for data, q in longer if data.startswith(here) and len(data) > len(here)
        ]

    def end(self, place: int) -> float:
        """q of end-of-text."""
        return self.scorer.node(self.tau[: self.node(place)])[1] if self.meets(place) else 0.0

    def token_of(self, data: bytes) -> int | None:
        """The student token with these bytes; of several one that texts begin with."""
        ids = [
            id
            for id, known in self.student.token_bytes.items()
            if known == data and id not in self.student.special
        ]
        texts = self.continued.texts_from(b"").values()
        used = [id for id in ids if any(sigma[:1] == (id,) for _, sigma in texts)]
        return min(used or ids, default=None)

    def prefixes(self, place: int) -> tuple[Row, float]:
        """Byte-prefix marginalisation: the row, and the mass that goes to no student token."""
        row, lost = {self.scorer.student_eos: self.end(place)}, 0.0
        for data, q in self.next_bytes(place):
            sizes = range(len(data), 0, -1)
            token = next((t for size in sizes if (t := self.token_of(data[:size])) is not None), None)
            if token is None:
                lost += q
            else:
                row[token] = row.get(token, 0.0) + q
        whole = 1.0 if self.meets(place) else math.fsum([*row.values(), lost])
        if whole == 0.0:
            return {}, 1.0
        return {token: q / whole for token, q in row.items()}, lost / whole

    def shared(self, place: int) -> Row:
        """The mass of tokens that both have, not normalised; nothing where their tokens do not end together."""
        if not self.meets(place):
            return {}
        row = {self.scorer.student_eos: self.end(place)}
        for data, q in self.next_bytes(place):
            if (token := self.token_of(data)) is not None:
                row[token] = row.get(token, 0.0) + q
        return row

    def one_to_one(self, position: int) -> float | None:
        """q of the teacher token that a student token is; None if there is none."""
        if position == len(self.sigma):
            return self.end(position)
        node = self.node(position)
        if not (self.meets(position) and self.meets(position + 1) and self.node(position + 1) == node + 1):
            return None
        return self.scorer.node(self.tau[:node])[0].get(self.tau[node], 0.0)
