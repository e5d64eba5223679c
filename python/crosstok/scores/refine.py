"""Tighter bounds for further teacher rows: undecided entries are decided or replaced by the row after them.

Every position is refined by itself, the heaviest entry first, so that its numbers depend on nothing else in the batch
and a larger budget goes on where a smaller one stopped; rows are shared (docs/mathematics.md, 10).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from crosstok.masses.aggregator import Masses, log_sum, shares
from crosstok.masses.nodes import GIVEN_UP, Nodes
from crosstok.masses.prefixes import THIN, Prefixes, tightened
from crosstok.masses.undecided import HEAVY, Known, Undecided
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.scores.frontier import Entry, Frontier, Slot, Sums, Trust
from crosstok.scores.labels import conditionals

# With tolerance 0 a position is done when no more of it is undecided.
LOSSLESS = 1e-12
# Entries below this share of what a row leaves undecided, times the tolerance, are not looked at one by one.
_FLOOR = 1e-3
# For each row of its budget a position may look at so many entries.
LOOKED = 32
# Entries of a slot that are kept at most where a budget bounds those that are looked at.
_KEPT = 2048


@dataclass(frozen=True)
class Goal:
    """When a position is done: no label that it is part of is wider than ``tolerance`` (as a probability).

    max_rows: rows beyond the plan's that a position may use, None: any number.
    """

    tolerance: float
    max_rows: int | None

    @property
    def floor(self) -> float:
        """What `UndecidedTap` takes."""
        return self.tolerance * _FLOOR

    @property
    def light(self) -> float:
        """Which share of a position is worth a look at what decides it."""
        return min(HEAVY, self.floor)

    @property
    def most(self) -> int | None:
        """How many entries a position may look at, decided ones included."""
        return None if self.max_rows is None else LOOKED * self.max_rows

    @property
    def kept(self) -> int | None:
        """How many entries of a slot may be kept before they are decided."""
        return None if self.most is None else max(_KEPT, self.most)


class Further(NamedTuple):
    """An extension after its rows were read."""

    nodes: Nodes
    masses: Masses
    undecided: Undecided


class Growth(Protocol):
    """What a plan and a teacher say of further teacher prefixes: nodes with one more token each, int64 [k] both."""

    def decide(
        self, node: IntArray, token: IntArray, depth: IntArray, quick: bool = False
    ) -> npt.NDArray[np.int8]:
        """What they say of s_1..s_depth, as `Plan.decide`."""

    def grow(self, node: IntArray, token: IntArray) -> Further:
        """Read the rows after them. Those that the teacher refuses are not seen."""


def refine(
    plan: Plan, prefixes: Prefixes, found: Undecided, goal: Goal, ended: Sequence[bool], growth: Growth
) -> Prefixes:
    """Refine all positions of a plan until the goal is met, the budget spent, or nothing is left to look at.

    found: what the plan's own rows left undecided. ended: for each text whether its end-of-text is a label. An entry
    whose row the teacher refuses (its path is too long) stays undecided; its position goes on with the others.
    """
    limits = _limits(prefixes, goal, ended)
    rounds = _Rounds(prefixes, goal, growth, _frontiers(plan, prefixes, found, limits))
    rounds.run()
    return _updated(prefixes, rounds.frontiers)


def _limits(prefixes: Prefixes, goal: Goal, ended: Sequence[bool]) -> FloatArray:
    """float64 [positions]: which gap, (upper − lower) / upper, is small enough.

    With c_i an upper bound of label i's probability, its width is at most c_i·(gap_i + gap_i-1).
    """
    limits = np.full(len(prefixes.upper), LOSSLESS)
    if goal.tolerance == 0:
        return limits
    tight = tightened(prefixes)
    _, low, high = conditionals(tight.lower, tight.estimate, tight.upper)
    top, width = np.append(0.0, np.exp(high)), np.append(0.0, np.exp(high) - np.exp(low))
    # Not labels: the step from one text to the next, and end-of-text where it does not follow.
    none = [*prefixes.first[:-1], *(prefixes.first[1:] - 1)[~np.asarray(ended, dtype=bool)]]
    top[none] = width[none] = 0.0
    weight = np.maximum(top, np.append(top[1:], 0.0))
    limits = np.full(len(weight), np.inf)
    np.divide(goal.tolerance / 2, weight, out=limits, where=weight > 0)
    limits[np.maximum(width, np.append(width[1:], 0.0)) <= goal.tolerance] = np.inf
    return limits


def _frontiers(plan: Plan, prefixes: Prefixes, found: Undecided, limits: FloatArray) -> list[Frontier]:
    """The frontiers of all positions that are not done."""
    position = prefixes.first[plan.node_text[found.node]] + found.depth
    masses = [
        np.bincount(
            position,
            shares(prefixes.log_q[found.node] + found.mass[:, kind], prefixes.upper[position]),
            len(limits),
        )
        for kind in (0, 1)
    ]
    inside = shares(prefixes.lower, prefixes.upper)
    counted = shares(prefixes.estimate, prefixes.upper)
    undecided = masses[0] + masses[1]
    with np.errstate(invalid="ignore"):  # no limit times no mass
        wanted = undecided > limits * (inside + undecided)
    frontiers: dict[int, Frontier] = {}
    for slot in np.lexsort((found.node, position)).tolist():
        p, node = int(position[slot]), int(found.node[slot])
        if not wanted[p]:
            continue
        if p not in frontiers:
            removed, weak = prefixes.noncanonical[p] * counted[p], prefixes.weak_share[p] * counted[p]
            sums = Sums(*(float(x) for x in (inside[p], masses[0][p], masses[1][p], removed, weak)))
            unit, limit = float(prefixes.upper[p]), float(limits[p])
            frontiers[p] = Frontier(p, int(found.depth[slot]), unit, limit, sums)
        frontiers[p].add_slot(Slot.of(found, slot, float(prefixes.log_q[node])))
    return list(frontiers.values())


class _Rounds:
    """Rounds over all open frontiers at once, so that the teacher reads many rows together."""

    def __init__(self, prefixes: Prefixes, goal: Goal, growth: Growth, frontiers: list[Frontier]) -> None:
        self.prefixes, self.goal, self.growth = prefixes, goal, growth
        self.frontiers = frontiers
        # Of rows read beyond the plan's: the node of each entry, −1 for one that was not read; what is known of a
        # node; what a node's row is for a position: log of what is in, and the rest.
        self._node_of: dict[tuple[int, int], int] = {}
        self._trust: dict[int, Trust] = {}
        self._split: dict[tuple[int, int], tuple[float, Undecided | None, int]] = {}

    def run(self) -> None:
        """Until every frontier is closed."""
        left = self.frontiers
        while left := [frontier for frontier in left if not self._is_done(frontier)]:
            self._round(left)

    def _is_done(self, frontier: Frontier) -> bool:
        goal = self.goal
        spent = goal.max_rows is not None and frontier.rows >= goal.max_rows
        looked = goal.most is not None and frontier.looked >= goal.most
        return frontier.closed or spent or looked or frontier.gap <= frontier.limit

    def _round(self, frontiers: list[Frontier]) -> None:
        """Each frontier's heaviest entries: decided without a row, or replaced by their rows."""
        taken = [(frontier, entry) for frontier in frontiers for entry in self._take(frontier)]
        if not taken:
            return
        node, token, depth = np.array(
            [(entry.node, entry.token, frontier.depth) for frontier, entry in taken], dtype=np.int64
        ).T.copy()
        verdicts = self.growth.decide(node, token, depth).tolist()
        wanted = []
        for (frontier, entry), verdict in zip(taken, verdicts, strict=True):
            if verdict == GIVEN_UP:  # what is in must not be replaced: behind it mass may be lost
                frontier.put_back(entry)
            elif verdict:
                frontier.decide(entry, verdict > 0, self._trust_of(entry.node))
            else:
                wanted.append((frontier, entry))
        granted = self._within_budget(wanted)
        self._read(granted)
        for frontier, entry in granted:
            self._expand(frontier, entry)

    def _take(self, frontier: Frontier) -> list[Entry]:
        taken = frontier.take()
        frontier.closed = not taken
        return taken

    def _within_budget(self, wanted: list[tuple[Frontier, Entry]]) -> list[tuple[Frontier, Entry]]:
        """Those whose rows may be read; a frontier whose budget ends here is done, a larger one goes on from there."""
        if self.goal.max_rows is None:
            return wanted
        granted, used = [], dict.fromkeys((frontier for frontier, _ in wanted), 0)
        for frontier, entry in wanted:
            if frontier.rows + used[frontier] < self.goal.max_rows:
                used[frontier] += 1
                granted.append((frontier, entry))
            else:
                frontier.put_back(entry)
        return granted

    def _read(self, granted: list[tuple[Frontier, Entry]]) -> None:
        """Have the rows after entries read, those that are not known yet."""
        # Of each row the largest share that it has of a position that asks for it.
        new: dict[tuple[int, int], float] = {}
        for frontier, entry in granted:
            if (key := (entry.node, entry.token)) not in self._node_of:
                new[key] = max(new.get(key, -math.inf), entry.log_mass - frontier.log_unit)
        if not new:
            return
        node, token = np.array(list(new), dtype=np.int64).T.copy()
        further = self.growth.grow(node, token)
        masses, first = further.masses, further.nodes.first
        for k, key in enumerate(new):
            self._node_of[key] = first + k if masses.seen[k] else -1
            weak = bool(masses.kept[k] < THIN) or self._trust_of(key[0]).weak
            self._trust[first + k] = Trust(1.0 - float(masses.kept[k]), weak)
        nodes = further.nodes
        wholes = zip(
            nodes.whole_node.tolist(), nodes.whole_depth.tolist(), masses.whole.tolist(), strict=True
        )
        for n, depth, log_in in wholes:
            self._split[n, depth] = (log_in, None, 0)
        found = further.undecided
        row = np.repeat(found.node - first, np.diff(found.ptr))
        log_share = np.array(list(new.values()))[row] + found.log_mass
        known = Known.of(found, log_share, self.growth.decide, self.goal.light)
        found = known.undecided
        inside = log_sum(known.inside.log_mass, known.inside.slot, len(found.node)).tolist()
        for slot, at in enumerate(zip(found.node.tolist(), found.depth.tolist(), strict=True)):
            self._split[at] = (float(np.logaddexp(self._split[at][0], inside[slot])), found, slot)

    def _expand(self, frontier: Frontier, entry: Entry) -> None:
        node = self._node_of[entry.node, entry.token]
        split = self._split.get((node, frontier.depth))
        if node < 0 or split is None:  # its row cannot be read, or says nothing of the position
            frontier.put_back(entry)
            return
        log_in, found, number = split
        slot = None if found is None else Slot.of(found, number, entry.log_mass)
        frontier.expand(entry, self._trust_of(entry.node), log_in, slot, self._trust[node])

    def _trust_of(self, node: int) -> Trust:
        if node in self._trust:
            return self._trust[node]
        return Trust(1.0 - float(self.prefixes.masses.kept[node]), bool(self.prefixes.weak[node]))


def _updated(prefixes: Prefixes, frontiers: list[Frontier]) -> Prefixes:
    """What frontiers have come to, in place of what they began with."""
    names = ("lower", "estimate", "upper", "noncanonical", "weak_share", "further")
    new = {name: getattr(prefixes, name).copy() for name in names}
    for frontier in frontiers:
        if not frontier.looked:
            continue
        sums, p = frontier.finish(), frontier.position
        counted = sums.inside + sums.likely
        # Never wider than before, not even by rounding.
        lower = max(float(prefixes.lower[p]), _log(sums.inside, frontier))
        upper = max(lower, min(float(prefixes.upper[p]), _log(counted + sums.unlikely, frontier)))
        if sums.likely + sums.unlikely == 0.0:
            upper = lower
        new["lower"][p], new["upper"][p] = lower, upper
        new["estimate"][p] = min(max(_log(counted, frontier), lower), upper)
        new["noncanonical"][p] = sums.removed / counted if counted > 0 else 0.0
        new["weak_share"][p] = sums.weak / counted if counted > 0 else 0.0
        new["further"][p] = frontier.rows
    return replace(prefixes, **new)


def _log(mass: float, frontier: Frontier) -> float:
    return math.log(mass) + frontier.log_unit if mass > 0 else -math.inf
