"""The distribution over one next student token between bounds, in the regime "general" (docs/mathematics.md, 10).

Rows along the text and behind it are looked at entry by entry: an entry has one next student token, or some of which it
is not known which; the heaviest of these are decided exactly, or replaced by the row after them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import torch

from crosstok import _core
from crosstok.errors import TeacherError, ZeroProbabilityError
from crosstok.masses.aggregator import Aggregator, Block, expand, log_sum, shares
from crosstok.masses.nodes import Nodes
from crosstok.masses.prefixes import gather
from crosstok.masses.undecided import log_masses
from crosstok.pair import BoolArray, Pair, Plan
from crosstok.ragged import FloatArray, IntArray, Ragged
from crosstok.reading import Reading, trees_of
from crosstok.results import NextToken
from crosstok.scores.frontier import ROUND, ROUND_SHARE
from crosstok.scores.refine import LOSSLESS, Goal
from crosstok.teacher.session import Session, open_session

# What `Plan.following` says of a text ended at a node.
_AT_END = -2


def bounded(
    reading: Reading,
    pair: Pair,
    width: int,
    ids: IntArray,
    prompt: Sequence[int] | None,
    goal: Goal | None,
) -> NextToken:
    """What `next_token` returns in the regime "general", and raises."""
    start, end_rows = np.array([prompt is None]), np.array([True])
    plan = pair.plan_ids(Ragged.of([ids]), start, end_rows, True, reading.num_threads)
    student = _Student(plan, pair.student.canonical_next(ids, prompt is None), width, pair.student_eos[0])
    try:
        with open_session(reading.teacher, trees_of(plan, [pair.prompt_ids(prompt)])) as session:
            following = _Following(reading, plan, session, student)
            following.read()
            if goal is not None:
                following.refine(goal)
    except TeacherError as error:  # there is no list of texts to count in
        raise TeacherError(error.reason) from None
    found = following.finish()
    if found is None:
        raise ZeroProbabilityError(f"the teacher gives the student prefix {ids.tolist()} no probability")
    return found


class _Student:
    """The student tokens that may come next: ``before[p]`` of those in the student's order stand before place p."""

    def __init__(self, plan: Plan, canonical: BoolArray, width: int, eos: int) -> None:
        self.order, self.width, self.eos = plan.student_order, width, eos
        self.canonical = canonical[self.order]
        self.before = np.concatenate([[0], np.cumsum(self.canonical)]).astype(np.int64)


class _Outcomes:
    """Outcomes of a `_core.Following`; arrays [outcomes].

    tokens: how many next tokens are possible. only: the one token where it is certain, else −1. inside, bool: all texts
    start with the student tokens, and there is one. closing: what the estimate takes, −1 for none. splits, bool: a row
    may take its place.
    """

    def __init__(self, core: _core.Following, student: _Student) -> None:
        self.student, self.ptr, self.label = student, core.label_ptr, core.label
        self.first, self.last = core.longer_first, core.longer_last
        labels, longer = np.diff(self.ptr), student.before[self.last] - student.before[self.first]
        self.tokens = labels + longer
        self.inside = core.sure & ~core.outside & (self.tokens > 0)
        self.splits = core.splits
        # A token that is not read to its end is not there yet: rows on the way to it may lose mass.
        certain = self.inside & (self.tokens == 1) & (labels == 1)
        self.only = np.full(len(labels), -1)
        self.only[certain] = self.label[self.ptr[:-1][certain]]
        self.closing = np.where(self.only >= 0, self.only, core.closing)

    def spread(self, mass: FloatArray, possible: FloatArray) -> None:
        """Add each outcome's mass, float64 [outcomes], to all tokens that it leaves possible, float64 [width]."""
        student = self.student
        np.add.at(possible, self.label, np.repeat(mass, np.diff(self.ptr)))
        some = mass * (self.last > self.first)
        steps = np.zeros(len(student.order) + 1)
        np.add.at(steps, self.first, some)
        np.add.at(steps, self.last, -some)
        # Differences of sums leave dust where nothing is possible.
        covered = np.zeros(len(student.order) + 1, dtype=np.int64)
        np.add.at(covered, self.first, some > 0)
        np.add.at(covered, self.last, -(some > 0).astype(np.int64))
        where = student.canonical & (np.cumsum(covered)[:-1] > 0)
        possible[student.order[where]] += np.maximum(np.cumsum(steps)[:-1][where], 0.0)


@dataclass(eq=False)
class _Slot:
    """Undecided entries, falling by mass, from ``at`` on; mass as a share of the unit.

    counted: the node's texts all start with the student tokens, so that its mass is in P(s) whatever becomes of it.
    rest: what is left of the mass from each entry on.
    """

    outcomes: _Outcomes
    node: IntArray
    token: IntArray
    mass: FloatArray
    outcome: IntArray
    counted: BoolArray
    rest: FloatArray
    at: int = 0

    @property
    def left(self) -> float:
        return float(self.rest[self.at]) if self.at < len(self.rest) else 0.0


@dataclass(frozen=True)
class _Entry:
    node: int
    token: int
    mass: float
    counted: bool
    outcomes: _Outcomes
    outcome: int


class _RowTap:
    """Keeps the entries of rows that have mass: node, token, outcome, log of the mass after the node."""

    def __init__(self, core: _core.Following, nodes: Nodes) -> None:
        self.core, self.nodes = core, nodes
        self.ptr = np.searchsorted(core.run_node, nodes.first + np.arange(len(nodes) + 1)).astype(np.int64)
        self._parts: list[tuple[IntArray, IntArray, IntArray, FloatArray]] = []

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        at = block.nodes - self.nodes.first
        rows, runs = expand(self.ptr[at], self.ptr[at + 1])
        of_run, places = expand(self.core.run_first[runs], self.core.run_last[runs])
        token = aggregator.plan.order[places]
        log_mass = log_masses(block, rows[of_run], token)
        kept = np.flatnonzero(log_mass > -np.inf)
        node, outcome = self.core.run_node[runs][of_run[kept]], self.core.run_outcome[runs][of_run[kept]]
        self._parts.append((node, token[kept], outcome, log_mass[kept]))

    def finish(self) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        """All of them."""
        none = np.zeros(0, dtype=np.int64)
        node, token, outcome, log_mass = zip((none, none, none, np.zeros(0)), *self._parts, strict=True)
        return np.concatenate(node), np.concatenate(token), np.concatenate(outcome), np.concatenate(log_mass)


class _Following:
    """What is known of the next token. All masses are shares of a unit, the largest that P(s) could be at first."""

    def __init__(self, reading: Reading, plan: Plan, session: Session, student: _Student) -> None:
        self.reading, self.plan, self.session, self.student = reading, plan, session, student
        self._exact = np.zeros(student.width)
        self._prefix = 0.0
        self._slots: list[_Slot] = []
        self._heap: list[tuple[float, int, _Slot]] = []
        self._given_up: list[_Entry] = []
        self._too_long: float = math.inf  # paths of so many tokens, prompt included, are refused
        self._perhaps = 0.0
        self._rows = self._looked = 0

    def read(self) -> None:
        """Read the plan's rows."""
        plan, nodes = self.plan, Nodes.of(self.plan)
        core = plan.following(0, np.arange(len(nodes)))
        tap, aggregator = _RowTap(core, nodes), self.reading.aggregator(nodes)
        self.reading.reduce(self.session.stream(), aggregator, lambda part: part.node, tap, exact=True)
        prefixes = gather(plan, aggregator.masses)
        self._space = aggregator.space
        log_q = prefixes.log_q
        node, token, outcome, log_mass = tap.finish()
        log_mass = log_mass + log_q[node]
        ends = log_q + aggregator.masses.eos
        kept = np.concatenate([log_mass, ends[core.end != -1], log_q[core.inside]])
        self._unit = float(log_sum(kept, np.zeros(len(kept), dtype=np.int64), 1)[0])
        counted = shares(log_q, np.full(len(log_q), self._unit))[core.inside]
        self._prefix = math.fsum(counted.tolist())
        # Nodes that may be in, of which nobody knows: their rows may lose mass that is P(s)'s.
        perhaps = shares(log_q, np.full(len(log_q), self._unit))[core.given_up]
        self._perhaps = math.fsum(perhaps.tolist())
        self._add_ends(core.end, ends, core.inside)
        self._add(_Outcomes(core, self.student), node, token, outcome, log_mass, core.inside[node])

    def refine(self, goal: Goal) -> None:
        """Until the goal is met, the budget spent, or nothing is left to look at."""
        limit = LOSSLESS if goal.tolerance == 0 else goal.tolerance / 2
        while self._heap and math.fsum(slot.left for slot in self._slots) > limit * self._prefix:
            budget = None if goal.max_rows is None else goal.max_rows - self._rows
            if budget == 0 or (goal.most is not None and self._looked >= goal.most):
                return
            open_entries = self._decide(self._take())
            granted = open_entries if budget is None else open_entries[:budget]
            self._given_up += open_entries[len(granted) :]
            if granted:
                self._expand(granted)

    def finish(self) -> NextToken | None:
        """The distribution, or None where P(s) is zero."""
        exact, possible, estimate = self._exact, np.zeros(self.student.width), self._exact.copy()
        lower = counted = self._prefix
        upper = self._prefix + self._perhaps
        for slot in [*self._slots, *map(_as_slot, self._given_up)]:
            outcomes, rest = slot.outcomes, slice(slot.at, None)
            count, of = len(outcomes.tokens), slot.outcome[rest]
            mass = _sums(of, slot.mass[rest], count)
            free = _sums(of, slot.mass[rest] * ~slot.counted[rest], count)
            outcomes.spread(mass, possible)
            named = outcomes.closing >= 0
            np.add.at(estimate, outcomes.closing[named], mass[named])
            lower += float(free[outcomes.inside].sum())
            upper += float(free.sum())
            counted += float(free[named].sum() - (mass - free)[~named].sum())
        if upper <= 0.0:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            low = exact / upper
            high = np.minimum((exact + possible) / lower, 1.0) if lower > 0 else 1.0 * (exact + possible > 0)
            middle = np.clip(estimate / counted if counted > 0 else low, low, np.maximum(low, high))
            logs = [torch.from_numpy(np.log(row)) for row in (middle, low, np.maximum(low, high))]
        return NextToken(*logs)

    def _add_ends(self, end: IntArray, log_mass: FloatArray, counted: BoolArray) -> None:
        """Texts that end at nodes; end: as in `Plan.following`."""
        some = end != -1
        token, counted = np.where(end[some] == _AT_END, self.student.eos, end[some]), counted[some]
        mass = shares(log_mass[some], np.full(len(token), self._unit))
        np.add.at(self._exact, token, mass)
        self._prefix += float(mass[~counted].sum())

    def _add(
        self,
        outcomes: _Outcomes,
        node: IntArray,
        token: IntArray,
        outcome: IntArray,
        log_mass: FloatArray,
        counted: BoolArray,
    ) -> None:
        """Take in entries of rows: those that are decided for good, the others to be looked at."""
        mass = shares(log_mass, np.full(len(log_mass), self._unit))
        only = outcomes.only[outcome]
        sure = only >= 0
        np.add.at(self._exact, only[sure], mass[sure])
        self._prefix += float(mass[sure & ~counted].sum())
        left = np.flatnonzero(~sure & (outcomes.tokens[outcome] > 0) & (mass > 0))
        left = left[np.argsort(-mass[left], kind="stable")]
        if not len(left):
            return
        rest = np.cumsum(mass[left][::-1])[::-1]
        slot = _Slot(outcomes, node[left], token[left], mass[left], outcome[left], counted[left], rest)
        self._slots.append(slot)
        self._push(slot, len(self._slots))

    def _push(self, slot: _Slot, order: int) -> None:
        if slot.at < len(slot.mass):
            heappush(self._heap, (-float(slot.mass[slot.at]), order, slot))

    def _take(self) -> list[_Entry]:
        """The heaviest entries, for one round."""
        taken: list[_Entry] = []
        while self._heap and len(taken) < ROUND:
            if taken and -self._heap[0][0] < taken[0].mass * ROUND_SHARE:
                break
            _, order, slot = heappop(self._heap)
            k = slot.at
            numbers = (int(slot.node[k]), int(slot.token[k]), float(slot.mass[k]), bool(slot.counted[k]))
            taken.append(_Entry(*numbers, slot.outcomes, int(slot.outcome[k])))
            slot.at += 1
            self._push(slot, order)
        self._looked += len(taken)
        return taken

    def _decide(self, entries: list[_Entry]) -> list[_Entry]:
        """Those of the entries that stay undecided, as they then are, and may be replaced by their rows."""
        node = np.array([entry.node for entry in entries], dtype=np.int64)
        token = np.array([entry.token for entry in entries], dtype=np.int64)
        outcomes = _Outcomes(self.plan.following(0, node, token), self.student)
        left: list[_Entry] = []
        for k, entry in enumerate(entries):
            if outcomes.only[k] >= 0:
                self._exact[outcomes.only[k]] += entry.mass
                self._prefix += 0.0 if entry.counted else entry.mass
            elif outcomes.tokens[k] > 0:
                inside = bool(outcomes.inside[k])
                self._prefix += entry.mass if inside and not entry.counted else 0.0
                counted = entry.counted or inside
                undecided = _Entry(entry.node, entry.token, entry.mass, counted, outcomes, k)
                (left if outcomes.splits[k] else self._given_up).append(undecided)
        return left

    def _expand(self, entries: list[_Entry]) -> None:
        """Read the rows after entries, which take their place; those whose paths the teacher refuses are given up."""
        plan, length = self.plan, [self.session.trees[0].length(entry.node) for entry in entries]
        self._given_up += [e for e, n in zip(entries, length, strict=True) if n >= self._too_long]
        entries = [e for e, n in zip(entries, length, strict=True) if n < self._too_long]
        if not entries:
            return
        node = np.array([entry.node for entry in entries], dtype=np.int64)
        token = np.array([entry.token for entry in entries], dtype=np.int64)
        try:  # a session counts the nodes of its one tree as the plan does
            rows = self.session.extend(np.zeros(len(node), dtype=np.int64), node, token)
        except TeacherError:  # which path it was is not said: one of the longest, or they are refused as well
            self._too_long = max(n for n in length if n < self._too_long)
            return self._expand(entries)
        extension = plan.extend(node, token, self.reading.num_threads)
        nodes = Nodes.of(plan, extension)
        number = extension.first + np.arange(len(node))
        core = plan.following(0, number)
        tap, aggregator = _RowTap(core, nodes), self.reading.aggregator(nodes, self._space)
        self.reading.reduce(rows, aggregator, lambda part: part.node, tap, exact=True)
        self._rows += len(node)
        mass = np.array([entry.mass for entry in entries])
        before = np.array([entry.counted for entry in entries])
        counted = before | core.inside
        self._prefix += float(mass[counted & ~before].sum())
        log_q = np.log(mass) + self._unit
        self._add_ends(core.end, log_q + aggregator.masses.eos, counted)
        at, token, outcome, log_mass = tap.finish()
        at -= extension.first
        outcomes = _Outcomes(core, self.student)
        self._add(outcomes, at + extension.first, token, outcome, log_mass + log_q[at], counted[at])


def _sums(group: IntArray, values: FloatArray, groups: int) -> FloatArray:
    return np.bincount(group, values, groups).astype(np.float64, copy=False)


def _as_slot(entry: _Entry) -> _Slot:
    """An entry that will not be looked at again."""
    node, token, outcome = (np.array([x], dtype=np.int64) for x in (entry.node, entry.token, entry.outcome))
    mass, counted = np.array([entry.mass]), np.array([entry.counted])
    return _Slot(entry.outcomes, node, token, mass, outcome, counted, mass)
