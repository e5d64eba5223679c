"""P(s_1..s_i) between two bounds, found without `Scorer`, `Pair.plan` and what they decide with.

A frontier of teacher prefixes, all that spell the bytes of s_1..s_i, each with its probability by plain forwards
(`forwards.py`). One is in or out where the characters alone say so (`decisions.py`); the others are expanded, heaviest
first, by one row each, until next to nothing is undecided or so many rows are read. What is lost to every student
prefix on the way counts for the upper bound only: a prefix that is in counts whole, whatever comes after it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from .along import Along
from .decisions import IN, LOST, UNDECIDED, Target
from .forwards import Forwards, Path
from .vocabulary import IntArray, Vocabulary

# Undecided share of P at which a position is done, tokens looked at in one go, prefixes expanded in one go.
CLOSED, CHUNK, TOGETHER = 1e-4, 256, 16
# Prefixes that are looked at once more when the rows are spent.
LAST_LOOKS = 4_000


@dataclass(frozen=True)
class Interval:
    """log P lies between these. rows: prefixes that were expanded."""

    lower: float
    upper: float
    rows: int

    @property
    def undecided(self) -> float:
        """The share of P that is not known to be in."""
        return max(0.0, -float(np.expm1(self.lower - self.upper))) if self.upper > -np.inf else 0.0

    @property
    def closed(self) -> bool:
        """Whether next to nothing is undecided."""
        return self.undecided <= CLOSED


@dataclass(frozen=True, eq=False)
class Prefix:
    """An undecided teacher prefix. over: its bytes beyond s_1..s_i."""

    path: Path
    over: bytes


@dataclass(frozen=True, eq=False)
class Rest:
    """Tokens after a prefix that nobody has looked at, with falling masses; ``skip`` of their bytes are in s_1..s_i."""

    prefix: Prefix
    tokens: IntArray
    masses: npt.NDArray[np.float64]
    skip: int


class Frontier:
    """The expansion of one position."""

    def __init__(self, forwards: Forwards, vocabulary: Vocabulary, target: Target) -> None:
        self._forwards, self._vocabulary, self._target = forwards, vocabulary, target
        # Minus the mass, a number that settles ties, what has it.
        self._open: list[tuple[float, int, Prefix | Rest]] = []
        self._sure = self._undecided = self._lost = 0.0
        self._numbers = count()

    def run(self, along: Along, size: int, max_rows: int) -> Interval:
        """Expand until it is closed or ``max_rows`` prefixes were. size: bytes of s_1..s_i."""
        self._begin(along, size)
        rows = 0
        while chosen := self._heaviest(min(TOGETHER, max_rows - rows)):
            rows += len(chosen)
            self._forwards.prepare(prefix.path for _, prefix in chosen)
            for mass, prefix in chosen:
                self._expand(mass, prefix)
            # A running sum keeps the rounding errors of all that has left it.
            self._undecided = -sum(weight for weight, _, _ in self._open)
        self._settle_rest()
        with np.errstate(divide="ignore"):
            lower, upper = np.log([self._sure, self._sure + self._undecided + self._lost])
        return Interval(float(lower), float(upper), rows)

    def _closed(self) -> bool:
        return self._undecided <= CLOSED * (self._sure + self._undecided)

    def _begin(self, along: Along, size: int) -> None:
        """Put all ways to spell the bytes on the frontier; there are none where s_1..s_i is a dummy prefix alone."""
        if size == 0:
            self._keep(Prefix((), b""), 1.0)
        ways = along.crossing(size)
        self._forwards.prepare(path[:k] for path, _, _ in ways for k in range(len(path) + 1))
        for path, at, tokens in ways:
            before = sum(float(self._forwards(path[:k]).tokens[path[k]]) for k in range(len(path)))
            self._push(Prefix(path, b""), before, tokens, size - at)

    def _expand(self, mass: float, prefix: Prefix) -> None:
        """Put what follows a prefix in its place: end-of-text and tokens."""
        row = self._forwards(prefix.path)
        if row.end > -np.inf:
            self._settled(self._target.ended(prefix.over), mass * float(np.exp(row.end)))
        self._push(prefix, float(np.log(mass)), np.flatnonzero(row.tokens > -np.inf), 0)

    def _push(self, prefix: Prefix, before: float, tokens: IntArray, skip: int) -> None:
        """Add tokens after a prefix, not looked at. before: log q of the prefix."""
        masses = np.exp(before + self._forwards(prefix.path).tokens[tokens].astype(np.float64))
        order = np.argsort(-masses)
        self._keep(Rest(prefix, tokens[order], masses[order], skip), float(masses.sum()))

    def _keep(self, item: Prefix | Rest, mass: float) -> None:
        if mass > 0:
            heapq.heappush(self._open, (-mass, next(self._numbers), item))
            self._undecided += mass

    def _settled(self, decision: int, mass: float) -> None:
        """Count mass that is decided on. What is lost may belong to a prefix that was in, and was expanded."""
        self._sure += mass * (decision == IN)
        self._lost += mass * (decision == LOST)

    def _heaviest(self, most: int) -> list[tuple[float, Prefix]]:
        """Take the heaviest prefixes off the frontier: at most so many, and no more than it takes to close it."""
        chosen: list[tuple[float, Prefix]] = []
        while self._open and len(chosen) < most and not self._closed():
            weight, _, item = heapq.heappop(self._open)
            self._undecided += weight
            if isinstance(item, Rest):
                self._look(item)
            elif (decision := self._target.settle(item.over)) == UNDECIDED:
                chosen.append((-weight, item))
            elif decision == IN:
                self._sure -= weight
        return chosen

    def _settle_rest(self) -> None:
        """When no row is left: what is known without any, for the heaviest."""
        entries = sorted(self._open, key=lambda entry: entry[:2])
        self._open = entries[LAST_LOOKS:]
        for weight, number, item in entries[:LAST_LOOKS]:
            if isinstance(item, Rest) or (decision := self._target.settle(item.over)) == UNDECIDED:
                self._open.append((weight, number, item))
                continue
            self._undecided += weight
            if decision == IN:
                self._sure -= weight

    def _look(self, rest: Rest) -> None:
        """Decide on the heaviest of these tokens."""
        for token, mass in zip(rest.tokens[:CHUNK].tolist(), rest.masses[:CHUNK].tolist(), strict=True):
            over = rest.prefix.over + self._vocabulary.bytes_of[token][rest.skip :]
            decision = self._target.decide(over)
            if decision != LOST or not rest.skip:  # before s_1..s_i is spelled nothing is in
                self._settled(decision, mass)
            if decision == UNDECIDED:
                self._keep(Prefix((*rest.prefix.path, token), over), mass)
        left = Rest(rest.prefix, rest.tokens[CHUNK:], rest.masses[CHUNK:], rest.skip)
        self._keep(left, float(left.masses.sum()))
