"""The frontier of one student prefix: what is in, and what is still undecided, the heaviest first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from crosstok.masses.nodes import LIKELY
from crosstok.masses.undecided import Undecided

# Entries that a round takes from a frontier: no more than this, none lighter than this share of the heaviest.
ROUND = 8
ROUND_SHARE = 0.5
# What is left of a running sum below this share of the most that it has been is rounding: of so many masses, each right
# to as many units in the last place as its exponent has.
_DUST = 64 * np.finfo(np.float64).eps


class Entry(NamedTuple):
    """An undecided teacher prefix: a node with one more token. log_mass: log q of it."""

    log_mass: float
    node: int
    token: int
    kind: int


class Trust(NamedTuple):
    """What reading a node's row lost, 1 − κ, and whether it or one above it has next to no canonical mass."""

    lost: float
    weak: bool


@dataclass(eq=False)
class Slot:
    """The undecided entries of one node for one position that are left: from ``at`` to ``stop``, falling.

    found, number: where they are kept; log_q: log q of the node.
    """

    found: Undecided
    number: int
    log_q: float
    at: int
    stop: int

    @classmethod
    def of(cls, found: Undecided, number: int, log_q: float) -> Slot:
        """A slot with all its entries."""
        return cls(found, number, log_q, int(found.ptr[number]), int(found.ptr[number + 1]))

    def head(self) -> Entry:
        """The heaviest entry left."""
        found, at = self.found, self.at
        log_mass = self.log_q + float(found.log_mass[at])
        return Entry(log_mass, int(found.node[self.number]), int(found.token[at]), int(found.kind[at]))


@dataclass
class Sums:
    """Masses of a frontier over its unit: in, likely, unlikely (docs/mathematics.md, 10).

    removed, weak: of what is in or likely, Σ mass · (1 − κ) and the mass that comes through weak nodes (`Prefixes`).
    """

    inside: float
    likely: float
    unlikely: float
    removed: float
    weak: float


class Frontier:
    """Where P(s_1..s_i) of one text stands; all masses are relative to the upper bound that it began with.

    position: its number in `Prefixes`. depth: i. log_unit: log of the first upper bound. limit: the gap that is small
    enough. rows: teacher rows used so far. looked: entries taken so far. closed: there is no more to be done.
    """

    def __init__(self, position: int, depth: int, log_unit: float, limit: float, sums: Sums) -> None:
        self.position, self.depth, self.log_unit, self.limit = position, depth, log_unit, limit
        self.sums, self.rows, self.looked, self.closed = sums, 0, 0, False
        self._slots: list[tuple[float, int, Slot]] = []
        self._unseen = [0.0, 0.0]
        self._most = (sums.removed, sums.weak)
        self._added = 0

    @property
    def gap(self) -> float:
        """Share of the upper bound that is undecided."""
        undecided = max(self.sums.likely + self.sums.unlikely, 0.0)
        return undecided / (self.sums.inside + undecided) if undecided > 0 else 0.0

    def add_slot(self, slot: Slot) -> None:
        """Take in entries, and what is undecided beside them without being seen; both are in the sums already."""
        for which, log_mass in enumerate(slot.found.unseen[slot.number].tolist()):
            self._unseen[which] += self._share(slot.log_q + log_mass)
        self._added += 1
        self._push(slot, self._added)

    def take(self) -> list[Entry]:
        """The heaviest entries, for one round."""
        taken: list[Entry] = []
        while self._slots and len(taken) < ROUND:
            entry = self._slots[0][2].head()
            if taken and entry.log_mass < taken[0].log_mass + math.log(ROUND_SHARE):
                break
            _, order, slot = heappop(self._slots)
            slot.at += 1
            self._push(slot, order)
            taken.append(entry)
        self.looked += len(taken)
        return taken

    def put_back(self, entry: Entry) -> None:
        """An entry stays undecided and will not be looked at again."""
        self._unseen[entry.kind != LIKELY] += self._share(entry.log_mass)

    def decide(self, entry: Entry, inside: bool, trust: Trust) -> None:
        """An entry turned out to be in, or out. trust: of its node."""
        mass = self._leave(entry, trust)
        if inside:
            self.sums.inside += mass
            self._count(mass, trust)

    def expand(self, entry: Entry, above: Trust, log_in: float, slot: Slot | None, trust: Trust) -> None:
        """The row after an entry takes its place. log_in: log of the mass of it that is in, given the entry.

        slot: what of it is undecided. above, trust: of the entry's node, and of the new one.
        """
        self._leave(entry, above)
        self.rows += 1
        inside = self._share(entry.log_mass + log_in)
        self.sums.inside += inside
        self._count(inside, trust)
        if slot is not None:
            likely, unlikely = (
                self._share(slot.log_q + mass) for mass in slot.found.mass[slot.number].tolist()
            )
            self.sums.likely += likely
            self.sums.unlikely += unlikely
            self._count(likely, trust)
            self.add_slot(slot)

    def finish(self) -> Sums:
        """The sums, with what is undecided added up afresh: nothing is left of it by rounding."""
        likely, unlikely = [self._unseen[0]], [self._unseen[1]]
        for _, _, slot in self._slots:
            masses = np.exp(slot.log_q - self.log_unit + slot.found.log_mass[slot.at : slot.stop])
            is_likely = slot.found.kind[slot.at : slot.stop] == LIKELY
            likely.append(float(masses[is_likely].sum()))
            unlikely.append(float(masses[~is_likely].sum()))
        removed, weak = (
            mass if mass > _DUST * (1.0 + abs(self.log_unit)) * most else 0.0
            for mass, most in zip((self.sums.removed, self.sums.weak), self._most, strict=True)
        )
        counted = self.sums.inside + math.fsum(likely)
        kept = min(removed, counted), min(weak, counted)
        return Sums(self.sums.inside, math.fsum(likely), math.fsum(unlikely), *kept)

    def _push(self, slot: Slot, order: int) -> None:
        if slot.at < slot.stop and slot.log_q > -math.inf:
            heappush(self._slots, (-slot.head().log_mass, order, slot))

    def _share(self, log_mass: float) -> float:
        return math.exp(log_mass - self.log_unit) if log_mass > -math.inf else 0.0

    def _leave(self, entry: Entry, trust: Trust) -> float:
        """An entry is no longer undecided; gives its mass."""
        mass = self._share(entry.log_mass)
        if entry.kind == LIKELY:
            self.sums.likely -= mass
            self._count(-mass, trust)
        else:
            self.sums.unlikely -= mass
        return mass

    def _count(self, mass: float, trust: Trust) -> None:
        self.sums.removed += mass * trust.lost
        self.sums.weak += mass * trust.weak
        self._most = max(self._most[0], self.sums.removed), max(self._most[1], self.sums.weak)
