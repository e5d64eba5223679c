"""Which tokens after which nodes reach beyond s_1..s_i, without those that the plan knows to be out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosstok import _core
from crosstok.masses.aggregator import expand
from crosstok.masses.nodes import OUT
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import IntArray


@dataclass(frozen=True, eq=False)
class _Parts:
    """Places ``first..last`` of the plan's order, each of a range; arrays [parts]."""

    range: IntArray
    first: IntArray
    last: IntArray

    def joined(self, other: _Parts) -> _Parts:
        """Both, by range and place; parts that meet become one."""
        of, first, last = (
            np.append(getattr(self, name), getattr(other, name)) for name in ("range", "first", "last")
        )
        order = np.lexsort((first, of))
        of, first = of[order], first[order]
        width = int(last.max(initial=0)) + 1
        last = np.maximum.accumulate(of * width + last[order]) - of * width  # a part may lie within another
        meets = (of[1:] == of[:-1]) & (first[1:] <= last[:-1])
        begins, ends = np.append(True, ~meets)[: len(of)], np.append(~meets, True)[: len(of)]
        return _Parts(of[begins], first[begins], last[ends])

    def have(self, of: IntArray, place: IntArray) -> BoolArray:
        """bool [k]: whether places, int64 [k], are in parts of the ranges ``of``, int64 [k]. Parts are sorted."""
        if not len(self.range):
            return np.zeros(len(place), dtype=bool)
        width = int(max(self.last.max(), place.max(initial=0))) + 1
        at = np.searchsorted(self.range * width + self.first, of * width + place, side="right") - 1
        found: BoolArray = (at >= 0) & (self.range[at] == of) & (place < self.last[at])
        return found


@dataclass(frozen=True, eq=False)
class Ranges:
    """Tokens that reach beyond s_1..s_depth after nodes, and may be in.

    [ranges], by node: node, depth, int64; ptr: int64 [ranges + 1], into the parts of each. [parts]: places
    ``first..last`` in the plan's order, int64, rising, apart from each other.
    """

    node: IntArray
    depth: IntArray
    ptr: IntArray
    first: IntArray
    last: IntArray

    @classmethod
    def of(cls, plan: Plan, beyond: _core.Beyond) -> Ranges:
        """Those of all nodes: tokens that the plan lists for s_1..s_depth, and those that have rows of their own.

        Others are out. They may have many times the mass of those that are not: after "every", s_1..s_i may end with a
        space by itself, as it does before a digit, and most tokens that begin with a space are words.
        """
        listed = _listed(plan, beyond)
        parts = listed.joined(_children(plan, beyond, listed))
        ptr = np.searchsorted(parts.range, np.arange(len(beyond.node) + 1)).astype(np.int64)
        return cls(beyond.node, beyond.depth, ptr, parts.first, parts.last)

    def places(self, index: int) -> IntArray:
        """int64: the places of a range, rising."""
        parts = slice(int(self.ptr[index]), int(self.ptr[index + 1]))
        return expand(self.first[parts], self.last[parts])[1]


def _listed(plan: Plan, beyond: _core.Beyond) -> _Parts:
    """What the plan lists for s_1..s_depth, if not as out; before the first token it lists nothing, and all is in."""
    width = int(max(plan.range_depth.max(initial=0), beyond.depth.max(initial=0))) + 1
    keys = beyond.node * width + beyond.depth
    listed = np.flatnonzero(plan.range_kind != OUT)
    wanted = plan.range_node[listed] * width + plan.range_depth[listed]
    at = np.searchsorted(keys, wanted)
    there = np.append(keys, -1)[at] == wanted
    at, listed = at[there], listed[there]
    first = np.maximum(plan.range_first[listed], beyond.first[at])
    last = np.minimum(plan.range_last[listed], beyond.last[at])
    some = first < last
    all_ = np.flatnonzero(beyond.depth == 0)
    return _Parts(at[some], first[some], last[some]).joined(
        _Parts(all_, beyond.first[all_], beyond.last[all_])
    )


def _children(plan: Plan, beyond: _core.Beyond, listed: _Parts) -> _Parts:
    """What has rows of its own, and is not listed, each by itself."""
    place_of = np.zeros(int(plan.order.max(initial=0)) + 1, dtype=np.int64)
    place_of[plan.order] = np.arange(len(plan.order))
    child = np.flatnonzero(plan.node_parent >= 0)
    parent = plan.node_parent[child]
    lo, hi = (np.searchsorted(beyond.node, parent, side) for side in ("left", "right"))
    owner, at = expand(lo, hi)
    place = place_of[plan.node_token[child]][owner]
    new = (beyond.first[at] <= place) & (place < beyond.last[at]) & ~listed.have(at, place)
    return _Parts(at[new], place[new], place[new] + 1)
