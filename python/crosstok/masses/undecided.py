"""What rows leave undecided, entry by entry, the heaviest first: kept while the rows stream by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from crosstok.masses.aggregator import Aggregator, Block, expand, log_sum
from crosstok.masses.nodes import GIVEN_UP, LIKELY, UNLIKELY, Nodes
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray

# Entries with this share of a position's probability are decided one by one: by the student's readings, and where these
# leave them undecided by both tokenizers. Of a row, those are looked at that may be such.
HEAVY = 1e-4
ROW_FLOOR = HEAVY / 10
# A difference of masses below this share of them may be rounding: they are sums of exponentials in the rows' own type.
_ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-13}


@dataclass(frozen=True, eq=False)
class Undecided:
    """Undecided tokens after nodes, by slot: a slot is a node with a position that is undecided after it.

    [slots]: node, depth (the position), int64; ptr: int64 [slots + 1], each slot's entries. mass: float64 [slots, 2],
    log of the likely and of the unlikely mass after the node; unseen: what of it no entry has. [entries], falling by
    mass in each slot: token, int64; kind, int8; log_mass, float64, log q(token | node).
    """

    node: IntArray
    depth: IntArray
    ptr: IntArray
    mass: FloatArray
    unseen: FloatArray
    token: IntArray
    kind: npt.NDArray[np.int8]
    log_mass: FloatArray

    @classmethod
    def join(cls, parts: Sequence[Undecided]) -> Undecided:
        """Several one after the other; at least one."""
        sizes = np.concatenate([[0], *(np.diff(part.ptr) for part in parts)])
        return cls(
            node=np.concatenate([part.node for part in parts]),
            depth=np.concatenate([part.depth for part in parts]),
            ptr=np.cumsum(sizes).astype(np.int64),
            mass=np.concatenate([part.mass for part in parts]),
            unseen=np.concatenate([part.unseen for part in parts]),
            token=np.concatenate([part.token for part in parts]),
            kind=np.concatenate([part.kind for part in parts]),
            log_mass=np.concatenate([part.log_mass for part in parts]),
        )

    @classmethod
    def none(cls) -> Undecided:
        """No slot."""
        ids, pairs = np.zeros(0, dtype=np.int64), np.zeros((0, 2))
        ptr, kind = np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int8)
        return cls(ids, ids, ptr, pairs, pairs, ids, kind, np.zeros(0))


class Decide(Protocol):
    """What nodes with one more token each say of s_1..s_depth, as `Plan.decide`."""

    def __call__(
        self, node: IntArray, token: IntArray, depth: IntArray, quick: bool
    ) -> npt.NDArray[np.int8]: ...


@dataclass(frozen=True, eq=False)
class Inside:
    """Entries that turned out to be in, [entries]: their slots, int64; log_mass, float64, log q(token | node)."""

    slot: IntArray
    log_mass: FloatArray


@dataclass(frozen=True, eq=False)
class Known:
    """What has come of a plan's undecided ranges: what is left of them, and what of them is in."""

    undecided: Undecided
    inside: Inside

    @classmethod
    def of(cls, found: Undecided, log_share: FloatArray, decide: Decide, light: float = HEAVY) -> Known:
        """Decide those entries that weigh something.

        log_share: float64 [entries], log of each one's share of its position's probability, about. light: from this
        share on by the student's readings alone.
        """
        slot = np.repeat(np.arange(len(found.node)), np.diff(found.ptr))
        verdict = np.zeros(len(slot), dtype=np.int8)
        for share, quick in ((light, True), (HEAVY, False)):
            with np.errstate(divide="ignore"):
                which = np.flatnonzero((log_share >= np.log(share)) & (verdict == 0))
            if len(which):
                at = slot[which]
                verdict[which] = decide(found.node[at], found.token[which], found.depth[at], quick=quick)
        inside = np.flatnonzero(verdict == 1)
        left = np.flatnonzero((verdict == 0) | (verdict == GIVEN_UP))
        of = slot[left]
        mass = _by_kind(of, found.kind[left], found.log_mass[left], len(found.node))
        undecided = replace(
            found,
            ptr=np.searchsorted(of, np.arange(len(found.node) + 1)).astype(np.int64),
            mass=np.logaddexp(found.unseen, mass),
            token=found.token[left],
            kind=found.kind[left],
            log_mass=found.log_mass[left],
        )
        return cls(undecided, Inside(slot[inside], found.log_mass[inside]))


class UndecidedTap:
    """Keeps a slot's entries with at least ``floor`` of its undecided mass, the ``most`` largest; sums up the others.

    floor: a share, 0 for all entries that have mass. row_floor: entries below this share of the row are not kept
    either. most: None for any number.
    """

    def __init__(self, nodes: Nodes, floor: float, most: int | None, row_floor: float = 0.0) -> None:
        self.nodes, self.most = nodes, most
        with np.errstate(divide="ignore"):
            self._log_floor, self._log_row_floor = np.log([floor, row_floor]).tolist()
        self._places: IntArray | None = None
        self._parts = [Undecided.none()]

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        slots = _Slots.of(aggregator, block, self.nodes)
        if slots is None:
            return
        total = np.logaddexp(slots.mass[:, 0], slots.mass[:, 1])
        floor = np.maximum(total + self._log_floor, self._log_row_floor)
        rows, token = _candidates(block, slots.row, floor)
        log_mass = log_masses(block, rows, token)
        entry, slot, kind = slots.find(rows, self._place(aggregator.plan, block)[token])
        log_mass, token = log_mass[entry], token[entry]
        heavy = np.flatnonzero((log_mass >= floor[slot]) & (log_mass > -np.inf))
        order: IntArray = heavy[np.lexsort((-log_mass[heavy], slot[heavy]))]
        complete = np.full(len(total), self._log_floor == self._log_row_floor == -np.inf)
        if self.most is not None:
            rank = np.arange(len(order)) - np.searchsorted(slot[order], slot[order])
            complete[slot[order[rank >= self.most]]] = False
            order = order[rank < self.most]
        slot, kind, log_mass, token = slot[order], kind[order], log_mass[order], token[order]
        unseen, doubtful = _rest(slots.mass, _by_kind(slot, kind, log_mass, len(total)), block.share.dtype)
        unseen[complete] = -np.inf
        again = np.flatnonzero(doubtful & ~complete)
        unseen[again] = slots.unseen(again, aggregator.plan, block, slot, token)
        self._parts.append(
            Undecided(
                node=slots.node,
                depth=slots.depth,
                ptr=np.searchsorted(slot, np.arange(len(total) + 1)).astype(np.int64),
                mass=slots.mass,
                unseen=unseen,
                token=token,
                kind=kind,
                log_mass=log_mass,
            )
        )

    def finish(self) -> Undecided:
        """All that was kept; slots in the order in which their rows came."""
        return Undecided.join(self._parts)

    def _place(self, plan: Plan, block: Block) -> IntArray:
        """int64 [V]: where each entry of a row stands in the order, −1 for those that do not."""
        if self._places is None:
            self._places = np.full(block.share.shape[1], -1)
            self._places[plan.order] = np.arange(len(plan.order))
        return self._places


@dataclass(frozen=True, eq=False)
class _Slots:
    """The slots of a block. [slots], by row: row, node, depth, int64; mass: float64 [slots, 2].

    [ranges], by slot and place: their slot, first and last places, int64; kind, int8.
    """

    row: IntArray
    node: IntArray
    depth: IntArray
    mass: FloatArray
    slot: IntArray
    first: IntArray
    last: IntArray
    kind: npt.NDArray[np.int8]

    @classmethod
    def of(cls, aggregator: Aggregator, block: Block, nodes: Nodes) -> _Slots | None:
        at = block.nodes - nodes.first
        rows, ranges = expand(nodes.range_ptr[at], nodes.range_ptr[at + 1])
        kind = nodes.range_kind[ranges]
        chosen = np.flatnonzero((kind == LIKELY) | (kind == UNLIKELY))
        if not len(chosen):
            return None
        depth = nodes.range_depth[ranges]
        chosen = chosen[np.lexsort((nodes.range_first[ranges[chosen]], depth[chosen], rows[chosen]))]
        rows, ranges, kind, depth = rows[chosen], ranges[chosen], kind[chosen], depth[chosen]
        heads = np.flatnonzero(np.diff(rows, prepend=-1) | np.diff(depth, prepend=-1))
        slot = np.cumsum(np.bincount(heads, minlength=len(rows))) - 1
        return cls(
            row=rows[heads],
            node=nodes.range_node[ranges[heads]],
            depth=depth[heads],
            mass=_by_kind(slot, kind, aggregator.masses.ranges[ranges], len(heads)),
            slot=slot,
            first=nodes.range_first[ranges],
            last=nodes.range_last[ranges],
            kind=kind,
        )

    def find(self, rows: IntArray, places: IntArray) -> tuple[IntArray, IntArray, npt.NDArray[np.int8]]:
        """Which entries (row, place) are undecided for which slots: entry, slot, kind, of each such pair."""
        entry, slot = expand(np.searchsorted(self.row, rows), np.searchsorted(self.row, rows, side="right"))
        place, width = places[entry], int(self.last.max()) + 1
        at = np.searchsorted(self.slot * width + self.first, slot * width + place, side="right") - 1
        inside = (at >= 0) & (place >= 0) & (self.slot[at] == slot) & (place < self.last[at])
        return entry[inside], slot[inside], self.kind[at[inside]]

    def unseen(
        self, which: IntArray, plan: Plan, block: Block, slot: IntArray, token: IntArray
    ) -> FloatArray:
        """float64 [k, 2]: log of the likely and of the unlikely mass that slots ``which`` have, but for their tokens.

        Entry by entry. slot, token: int64 [entries], those that do not count.
        """
        of, ranges = expand(
            np.searchsorted(self.slot, which), np.searchsorted(self.slot, which, side="right")
        )
        owner, places = expand(self.first[ranges], self.last[ranges])
        of, kind, others = of[owner], self.kind[ranges][owner], plan.order[places]
        width = block.share.shape[1]
        new = ~np.isin(which[of] * width + others, slot * width + token)
        of, kind, others = of[new], kind[new], others[new]
        return _by_kind(of, kind, log_masses(block, self.row[which[of]], others), len(which))


def _candidates(block: Block, slot_row: IntArray, floor: FloatArray) -> tuple[IntArray, IntArray]:
    """Entries (row, token) of canonical tokens that some slot of their row may keep."""
    rows, heads = np.unique(slot_row, return_index=True)
    lowest = np.minimum.reduceat(floor, heads)
    device = block.share.device
    at = torch.from_numpy(rows).to(device)
    limit = torch.from_numpy(lowest).to(device) - block.log_scale[at]
    # From the logits, since exponentials may have been lost; a little lower, since the limit is rounded.
    logits = block.logits[at] - (block.log_norm + block.log_scale)[at, None].to(block.logits.dtype)
    hits = (block.mask[at] & (logits >= limit[:, None].to(logits.dtype) - 1e-5)).nonzero().cpu().numpy()
    return rows[hits[:, 0]], hits[:, 1]


def _rest(mass: FloatArray, kept: FloatArray, dtype: torch.dtype) -> tuple[FloatArray, BoolArray]:
    """float64 [slots, 2]: log of what is left of ``mass`` without ``kept``; bool [slots]: it may be rounding.

    dtype: of the exponentials that ``mass`` sums up.
    """
    top = mass.max(axis=1, keepdims=True)
    top[np.isneginf(top)] = 0.0
    whole = np.exp(mass - top)
    left = whole - np.exp(kept - top)
    close = ((left < _ROUNDING[dtype] * whole) & (whole > 0)).any(axis=1)
    with np.errstate(divide="ignore"):
        rest: FloatArray = np.log(np.maximum(left, 0.0)) + top
    return rest, close


def log_masses(block: Block, rows: IntArray, tokens: IntArray) -> FloatArray:
    """float64 [entries]: log q(token | node) of entries of rows, −inf where a token is not canonical."""
    flat = torch.from_numpy(rows * block.logits.shape[1] + tokens).to(block.logits.device)
    at = torch.from_numpy(rows).to(block.logits.device)
    log_mass = block.logits.reshape(-1)[flat].double() - block.log_norm[at]
    canonical = block.mask.reshape(-1)[flat]
    values: FloatArray = torch.where(canonical, log_mass, -torch.inf).cpu().numpy()
    return values


def _by_kind(slot: IntArray, kind: npt.NDArray[np.int8], log_mass: FloatArray, slots: int) -> FloatArray:
    """float64 [slots, 2]: log of the likely and of the unlikely mass of entries."""
    return log_sum(log_mass, slot * 2 + (kind == UNLIKELY), slots * 2).reshape(slots, 2)
