"""Leaves replaced by the rows after them: for nothing where the plan has read them, else for further teacher rows.

A leaf is a teacher prefix beyond s_1..s_i whose next student token is not certain. The row after it splits its mass
among longer prefixes; what is too light to be looked up stays with the leaf's own closing (docs/mathematics.md, 12).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from crosstok.distributions.closing import LOST, NO_TOKEN, ROW_SHARE, Heavy, Leaves, look_up
from crosstok.distributions.estimates import accounts
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.scores.refine import LOSSLESS

ORDERS = ("mass", "longer", "flips")
# Rows that a position may ask for in one round (or that part of those that it has used: 1,000 rows are 22 rounds), and
# how much lighter than its first choice they may be.
_ROUND, _ROUND_PART, _ROUND_SHARE = 4, 4, 0.25
# How often closings flip that nothing is known about, and how many observations that is worth.
_PRIOR, _WEIGHT = 0.1, 0.05
_BUCKETS = 20
# Where light tokens keep a position above the tolerance those are looked up that are so much lighter, again and again;
# this share of the tolerance may stay.
_FINER, _LIGHT_LEFT = 1 / 16, 1 / 8
# With a budget of rows no more tokens are looked up than with this tolerance.
_LEAST = 1e-4
# Leaves from this share of the tolerance on are worth a search; with less than that left to gain a position is done.
_EXACT = 1e-2
# The token of leaves that stay as they are: the teacher refuses their rows, or their rows have no lighter token.
REFUSED, LIGHTEST = -2, -3
# A difference of masses below this share of them is rounding.
_DUST = 1e-13


@dataclass(frozen=True, eq=False)
class Rows:
    """What rows say: arrays [nodes], numbered from ``first``; heavy: their heavy tokens, by node.

    total: float64, what a row's canonical tokens and end-of-text sum to: 1, less without renormalisation, 0 for a row
    without any. eos: float64, of end-of-text. seen: bool, the row was read.
    """

    first: int
    heavy: Heavy
    total: FloatArray
    eos: FloatArray
    seen: BoolArray


class Grower(Protocol):
    """Reads further rows: those after (node, token), int64 [k] both, in one go."""

    def __call__(self, node: IntArray, token: IntArray) -> Rows:
        """Their rows; what the teacher refuses is not seen."""


def expand(
    plan: Plan,
    leaves: Leaves,
    child: IntArray,
    rows: Rows,
    depth: IntArray,
    threads: int,
    light: FloatArray | float = ROW_SHARE,
    exact_from: float = np.inf,
) -> Leaves:
    """What leaves become: ``child``, int64 [leaves], is the node of each, whose row is among ``rows``.

    depth: int64 [leaves], i of each one's position. light: of each leaf, or of all: tokens with less mass become no
    leaves of their own. exact_from: see `look_up`.
    """
    at = child - rows.first
    owner, token, mass = rows.heavy.shares(child, leaves.mass, np.broadcast_to(light, len(child)))
    node = child[owner]
    position, inside = leaves.position[owner], leaves.inside[owner]
    longer = look_up(plan, node, token, depth[owner], position, mass, exact_from, threads, inside)
    none, sure = np.full(len(child), -1), np.ones(len(child), dtype=bool)
    eos = leaves.mass * rows.eos[at]
    # A text that the student does not read as it is has no next token.
    label = np.where(leaves.reads, leaves.label, NO_TOKEN)
    ended = replace(leaves, node=child, token=none, label=label, certain=sure, mass=eos)
    left = leaves.mass * rows.total[at] - eos - np.bincount(owner, mass, len(child))
    left[left <= _DUST * leaves.mass] = 0.0
    rest = replace(leaves, node=child, token=none, mass=left)
    gone = replace(ended, label=np.full(len(child), NO_TOKEN), mass=leaves.mass * (1.0 - rows.total[at]))
    found = Leaves.join([longer, ended, rest, gone])
    of = np.concatenate([owner, *[np.arange(len(child))] * 3])
    some = np.flatnonzero(found.mass > 0)
    return _lost(plan, leaves, found.where(some), of[some], depth, threads)


def _lost(plan: Plan, leaves: Leaves, found: Leaves, of: IntArray, depth: IntArray, threads: int) -> Leaves:
    """What has become of leaves, with what has no next token lost where its leaf, ``of``, is in.

    Not for certain: a leaf that was replaced although all its texts go on alike counts in full for what comes next.
    """
    inside = leaves.inside.copy()
    asked = np.flatnonzero(~inside)
    if len(asked):
        verdict = plan.decide(leaves.node[asked], leaves.token[asked], depth[asked], False, threads)
        inside[asked] = verdict > 0
    return _lost_inside(found, inside[of])


def _lost_inside(found: Leaves, inside: BoolArray) -> Leaves:
    """As `_lost`; inside: bool [leaves], whether the leaf that each has come from is in."""
    lost = found.certain & (found.label == NO_TOKEN) & inside | (found.label == LOST)
    label = np.where(lost, LOST, found.label)
    token = np.where(lost, -1, found.token)  # no row changes that
    return replace(found, token=token, label=label, certain=found.certain & ~lost, inside=inside)


def expand_known(
    plan: Plan,
    leaves: Leaves,
    rows: Rows,
    depth_of: IntArray,
    threads: int,
    light: float = ROW_SHARE,
    exact_from: float = np.inf,
) -> Leaves:
    """Replace leaves whose rows the plan has, until none is left. depth_of: int64 [positions], i of each."""
    base = int(plan.order.max(initial=0)) + 2
    below = np.flatnonzero(plan.node_parent >= 0)
    keys = plan.node_parent[below] * base + plan.node_token[below]
    order = np.argsort(keys)
    keys, below = keys[order], below[order]
    done, left = [leaves.where(np.zeros(0, dtype=np.int64))], leaves
    while len(left.node) and len(keys):
        wanted = np.where(left.token >= 0, left.node * base + left.token, -1)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        known = (keys[at] == wanted) & ~left.certain
        known[known] = ~_made_certain(plan, left, np.flatnonzero(known), depth_of, threads)
        done.append(left.where(~known))
        child = below[at[known]]
        left = left.where(known)
        left = expand(plan, left, child, rows, depth_of[left.position], threads, light, exact_from)
    return Leaves.join([*done, left])


def _made_certain(plan: Plan, leaves: Leaves, which: IntArray, depth_of: IntArray, threads: int) -> BoolArray:
    """bool: those leaves ``which`` that both tokenizers are certain of, and which are now so (in place)."""
    node, token, depth = leaves.node[which], leaves.token[which], depth_of[leaves.position[which]]
    label, certain, _ = plan.closings(node, token, depth, exact=True, num_threads=threads)
    sure = which[certain]
    lost = leaves.inside[sure] & (label[certain] == NO_TOKEN)
    leaves.label[sure] = np.where(lost, LOST, label[certain])
    leaves.token[sure] = np.where(lost, -1, leaves.token[sure])
    leaves.certain[sure] = ~lost  # see `_lost`
    return certain


class Flips:
    """How often the closing of a leaf is not what comes of it, by how many student tokens are longer than it.

    Each text has numbers of its own.
    """

    def __init__(self, longer: IntArray, texts: int) -> None:
        self._bucket = np.minimum(np.ceil(np.log2(longer + 1)).astype(np.int64) + 1, _BUCKETS - 1)
        self._seen = np.full(texts * _BUCKETS, _WEIGHT)
        self._flipped = self._seen * _PRIOR

    def _at(self, text: IntArray, label: IntArray) -> IntArray:
        """Where leaves are counted, by their closings; those without one are a bucket of their own."""
        return text * _BUCKETS + np.where(label >= 0, self._bucket[np.maximum(label, 0)], 0)

    def learn(self, text: IntArray, label: IntArray, mass: FloatArray, flipped: FloatArray) -> None:
        """Rows were read after leaves: mass of each, and how much of it then had another closing."""
        at = self._at(text, label)
        self._seen += np.bincount(at, mass, len(self._seen))
        self._flipped += np.bincount(at, flipped, len(self._seen))

    def rate(self, text: IntArray, label: IntArray) -> FloatArray:
        """float64: how likely leaves are to flip."""
        found: FloatArray = (self._flipped / self._seen)[self._at(text, label)]
        return found


@dataclass(frozen=True)
class Search:
    """When a position is done, and in which order its leaves are looked at: one of `ORDERS`.

    tolerance: of the undecided mass. max_rows: further rows a position, None: any number.
    """

    tolerance: float
    max_rows: int | None
    order: str = "mass"

    @classmethod
    def of(cls, tolerance: float | None, max_rows: int | None, /, **options: Any) -> Search:
        """From a `Scorer`'s arguments; raises ValueError for an option that it does not have, and for a wrong one."""
        for option in options:
            if option != "order":
                raise ValueError(f"method 'auto' has no option {option!r}, only 'order'")
        order = options.get("order", cls.order)
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(map(repr, ORDERS))}, not {order!r}")
        return cls(1.0 if tolerance is None else float(tolerance), max_rows, order)

    @property
    def row_share(self) -> float:
        """Tokens with this share of a row are looked up; all of them, where tolerance 0 is the only limit."""
        return (self.tolerance if self.max_rows is None else max(self.tolerance, _LEAST)) * ROW_SHARE

    @property
    def exact_from(self) -> float:
        """From this mass on both tokenizers are asked whether a closing is certain."""
        return self.tolerance * _EXACT


@dataclass(frozen=True, eq=False)
class Positions:
    """The distributions of a batch, n + 1 a text, arrays [positions].

    text, depth: int64, s_1..s_depth of which text. light: float64, mass of tokens that are not looked up, as a share
    of the upper bound of P(s_1..s_depth). hidden: float64, the same of what the rounding of sums may hide.
    """

    text: IntArray
    depth: IntArray
    light: FloatArray
    hidden: FloatArray

    def undecided(self, leaves: Leaves) -> FloatArray:
        """float64 [positions]: what leaves leave undecided."""
        return accounts(leaves, self.light, self.hidden)[2]


class Expansion:
    """Rounds over all positions of a batch: the best leaves of each, whose rows are then read together.

    A position's choices depend on nothing outside its text. rows: int64 [positions], further rows used so far; asked:
    the same with those that were refused.
    """

    def __init__(self, plan: Plan, positions: Positions, search: Search, threads: int) -> None:
        self.plan, self.positions, self.search, self.threads = plan, positions, search, threads
        self.rows, self.asked = np.zeros((2, len(positions.text)), dtype=np.int64)
        self._flips = Flips(plan.pair.longer_tokens, len(plan))
        self._node_of: dict[tuple[int, int], int] = {}
        self._read: list[Rows] = []
        # Of each position: what is light there. Of each leaf that was replaced, by (node, position): its mass, and what
        # was light then.
        self._light = np.full(len(positions.text), search.row_share)
        self._replaced: dict[tuple[int, int], tuple[float, float]] = {}

    def run(self, leaves: Leaves, grow: Grower) -> Leaves:
        """Until each position is done; what is left of the leaves."""
        while True:
            while len(chosen := self._choose(leaves)):
                leaves = self._round(leaves, chosen, grow)
            # Only here, so that it does not depend on how long other texts go on.
            if not len(light := self._light_leaves(leaves)):
                return leaves
            leaves = self._finer(leaves, light)

    def _round(self, leaves: Leaves, chosen: IntArray, grow: Grower) -> Leaves:
        asked = leaves.where(chosen)
        child = self._children(asked, grow)
        refused = replace(asked, token=np.full(len(asked.node), REFUSED)).where(child < 0)
        parts = [leaves.where(np.delete(np.arange(len(leaves.node)), chosen)), refused]
        for mine, rows in self._rows_of(child):
            parts.append(self._expand(asked.where(mine), child[mine], rows))
        self.rows += np.bincount(asked.position[child >= 0], minlength=len(self.rows))
        self.asked += np.bincount(asked.position, minlength=len(self.rows))
        return Leaves.join(parts)

    def _rows_of(self, child: IntArray) -> Iterator[tuple[IntArray, Rows]]:
        """Which of the nodes, int64 [k], −1 for none, have their rows where."""
        owner = np.searchsorted(np.array([rows.first for rows in self._read]), child, side="right") - 1
        for i in np.unique(owner[child >= 0]).tolist():
            yield np.flatnonzero((owner == i) & (child >= 0)), self._read[i]

    def _finer(self, leaves: Leaves, which: IntArray) -> Leaves:
        """Look up lighter tokens of further rows: of those leaves ``which`` that they are."""
        asked = leaves.where(which)
        self._light[np.unique(asked.position)] *= _FINER
        parts = [leaves.where(np.delete(np.arange(len(leaves.node)), which))]
        for mine, rows in self._rows_of(asked.node):
            parts.append(self._lighter(asked.where(mine), rows))
        return Leaves.join(parts)

    def _light_leaves(self, leaves: Leaves) -> IntArray:
        """Those leaves, light tokens of further rows, without which positions that are done meet the tolerance."""
        first = len(self.plan.node_parent)  # of the nodes that were read here
        light = ~leaves.certain & (leaves.token == -1) & (leaves.label != LOST) & (leaves.node >= first)
        open_ = leaves.where(light | ~leaves.certain & (leaves.token >= 0))
        gain = np.bincount(open_.position, open_.mass, len(self.rows))
        _, most, undecided = accounts(leaves, self.positions.light, self.positions.hidden)
        excess = (undecided - self.search.tolerance) * most
        may_stay = np.minimum(self.search.tolerance * _LIGHT_LEFT, (gain - excess) / 2)
        stuck = (excess > 0) & (may_stay >= 0)
        if self.search.max_rows is not None:
            stuck &= self.rows < self.search.max_rows
        which = np.flatnonzero(light)
        which = which[np.lexsort((leaves.node[which], leaves.mass[which], leaves.position[which]))]
        position, running = leaves.position[which], np.cumsum(leaves.mass[which])
        running -= np.append(0.0, running)[np.searchsorted(position, position)]
        found: IntArray = which[stuck[position] & (running > may_stay[position])]
        return found

    def _lighter(self, light: Leaves, rows: Rows) -> Leaves:
        """Leaves that are the light tokens of ``rows``, less those that are not so light any more, and these."""
        keys = zip(light.node.tolist(), light.position.tolist(), strict=True)
        mass, before = np.array([self._replaced[key] for key in keys]).T
        now = self._light[light.position]
        owner, token, weight = rows.heavy.shares(light.node, mass, np.zeros(len(mass)))
        self._note(light.node, light.position, mass)
        more = np.bincount(owner[(weight < now[owner]) & (weight > 0)], minlength=len(now)) > 0
        new = (weight < before[owner]) & (weight >= now[owner])
        owner, token, weight = owner[new], token[new], weight[new]
        position, inside = light.position[owner], light.inside[owner]
        at = light.node[owner], token, self.positions.depth[position], position
        found = look_up(self.plan, *at, weight, self.search.exact_from, self.threads, inside)
        left = light.mass - np.bincount(owner, weight, len(now))
        rest = replace(light, mass=left, token=np.where(more, -1, LIGHTEST))
        return Leaves.join([_lost_inside(found, inside), rest.where(left > _DUST * mass)])

    def _note(self, node: IntArray, position: IntArray, mass: FloatArray) -> None:
        """Keep what leaves weighed that rows have replaced, and which of their tokens are light."""
        keys = zip(node.tolist(), position.tolist(), strict=True)
        values = zip(mass.tolist(), self._light[position].tolist(), strict=True)
        self._replaced.update(zip(keys, values, strict=True))

    def _choose(self, leaves: Leaves) -> IntArray:
        """Which leaves are replaced in this round."""
        open_ = self.positions.undecided(leaves) > self.search.tolerance
        left = leaves.where(~leaves.certain & (leaves.token >= 0))
        gain = np.bincount(left.position, left.mass, len(open_))
        open_ &= gain > max(self.search.tolerance * _EXACT, LOSSLESS)
        budget = np.maximum(_ROUND, self.asked // _ROUND_PART)
        if self.search.max_rows is not None:
            budget = np.minimum(budget, self.search.max_rows - self.rows)
        which = np.flatnonzero(~leaves.certain & (leaves.token >= 0) & open_[leaves.position])
        position, value = leaves.position[which], self._value(leaves.where(which))
        order = np.lexsort((leaves.token[which], leaves.node[which], -value, position))
        which, position, value = which[order], position[order], value[order]
        first = np.searchsorted(position, position)
        rank = np.arange(len(which)) - first
        keep = (rank < budget[position]) & (value >= value[first] * _ROUND_SHARE) if len(which) else rank < 0
        return np.asarray(which[keep])

    def _value(self, leaves: Leaves) -> FloatArray:
        """float64 [leaves]: what decides which are first."""
        mass = leaves.mass
        if self.search.order == "mass":
            return mass
        if self.search.order == "longer":
            longer = self.plan.pair.longer_tokens[np.maximum(leaves.label, 0)]
            return np.asarray(mass * (1.0 + np.log2(1.0 + np.where(leaves.label >= 0, longer, 1 << 16))))
        return mass * self._flips.rate(self.positions.text[leaves.position], leaves.label)

    def _children(self, asked: Leaves, grow: Grower) -> IntArray:
        """The nodes of leaves, int64; −1 for one whose row the teacher refuses. Reads what is not known yet."""
        keys = list(zip(asked.node.tolist(), asked.token.tolist(), strict=True))
        new = list(dict.fromkeys(key for key in keys if key not in self._node_of))
        if new:
            node, token = np.array(new, dtype=np.int64).T.copy()
            rows = grow(node, token)
            for k, key in enumerate(new):
                self._node_of[key] = rows.first + k if rows.seen[k] else -1
            self._read.append(rows)
        return np.array([self._node_of[key] for key in keys], dtype=np.int64)

    def _expand(self, asked: Leaves, child: IntArray, rows: Rows) -> Leaves:
        depth = self.positions.depth[asked.position]
        light = self._light[asked.position]
        self._note(child, asked.position, asked.mass)
        found = expand(self.plan, asked, child, rows, depth, self.threads, light, self.search.exact_from)
        if self.search.order == "flips":
            self._learn(asked, child, found)
        return found

    def _learn(self, asked: Leaves, child: IntArray, found: Leaves) -> None:
        """Notes how much of each leaf's mass got another closing."""
        count = len(self.positions.text)
        keys, wanted = child * count + asked.position, found.node * count + found.position
        order = np.argsort(keys)
        of = order[np.searchsorted(keys[order], wanted)]
        flips = found.mass * (found.label != asked.label[of])
        flipped = np.bincount(of, flips, len(child)).astype(np.float64)
        self._flips.learn(self.positions.text[asked.position], asked.label, asked.mass, flipped)
