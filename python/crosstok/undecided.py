"""What rows leave undecided, entry by entry, the heaviest first: kept while the rows stream by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from crosstok.masses import Aggregator, Block, expand, log_sum
from crosstok.nodes import LIKELY, UNLIKELY, Nodes
from crosstok.pair import BoolArray
from crosstok.ragged import FloatArray, IntArray


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


class UndecidedTap:
    """Keeps a slot's entries with at least ``floor`` of its undecided mass, the ``most`` largest; sums up the others.

    floor: a share, 0 for all entries that have mass. most: None for any number.
    """

    def __init__(self, nodes: Nodes, floor: float, most: int | None) -> None:
        self.nodes, self.most = nodes, most
        self._log_floor = float(np.log(floor)) if floor > 0 else -np.inf
        self._parts = [Undecided.none()]

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        nodes, at = self.nodes, block.nodes - self.nodes.first
        rows, ranges = expand(nodes.range_ptr[at], nodes.range_ptr[at + 1])
        kind = nodes.range_kind[ranges]
        undecided = (kind == LIKELY) | (kind == UNLIKELY)
        rows, ranges, kind = rows[undecided], ranges[undecided], kind[undecided]
        if not len(ranges):
            return
        of_range, places = expand(nodes.range_first[ranges], nodes.range_last[ranges])
        token = aggregator.plan.order[places]
        log_mass = log_masses(block, rows[of_range], token)
        depth = nodes.range_depth[ranges]
        keys = nodes.range_node[ranges] * (int(depth.max()) + 1) + depth
        keys, heads, slot_of = np.unique(keys, return_index=True, return_inverse=True)
        slot, kind = slot_of[of_range], kind[of_range]
        kept = self._heaviest(slot, log_mass, len(keys))
        others: BoolArray = np.ones(len(slot), dtype=bool)
        others[kept] = False
        self._parts.append(
            Undecided(
                node=nodes.range_node[ranges[heads]],
                depth=depth[heads],
                ptr=np.searchsorted(slot[kept], np.arange(len(keys) + 1)).astype(np.int64),
                mass=_by_kind(slot, kind, log_mass, len(keys)),
                unseen=_by_kind(slot[others], kind[others], log_mass[others], len(keys)),
                token=token[kept],
                kind=kind[kept],
                log_mass=log_mass[kept],
            )
        )

    def _heaviest(self, slot: IntArray, log_mass: FloatArray, slots: int) -> IntArray:
        """Which entries are kept, by slot and falling."""
        floor = log_sum(log_mass, slot, slots) + self._log_floor
        heavy = np.flatnonzero((log_mass >= floor[slot]) & (log_mass > -np.inf))
        order: IntArray = heavy[np.lexsort((-log_mass[heavy], slot[heavy]))]
        if self.most is not None:
            rank = np.arange(len(order)) - np.searchsorted(slot[order], slot[order])
            order = order[rank < self.most]
        return order

    def finish(self) -> Undecided:
        """All that was kept; slots in the order in which their rows came."""
        return Undecided.join(self._parts)


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
