"""The nodes whose rows are read, with what each row is split into: a plan's, or those that an extension adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crosstok.pair import BoolArray, Plan
from crosstok.ragged import IntArray

if TYPE_CHECKING:
    from crosstok.pair import Extension

# What the tokens of a range are for the position they cover (docs/mathematics.md, 10): in; undecided, where the text
# cut after them counts as in, or as out; out, listed only where the rest of a row is in.
IN, LIKELY, UNLIKELY, OUT = range(4)
# What `Plan.decide` says of a prefix that may be in, where nobody knows; its row must not take its place (fact 23).
GIVEN_UP = 2


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes numbered from ``first`` on, in the numbering of their plan; see `Plan` for the arrays.

    parent, text: int64 [nodes]. complete: bool [nodes]. range_*: [ranges], sorted by node. whole_*: [wholes], sorted
    by node: the position ``whole_depth`` is undecided at the node, and of the node's row all that no range with this
    node and depth lists is in, end-of-text only where ``whole_end``.
    """

    plan: Plan
    first: int
    parent: IntArray
    text: IntArray
    complete: BoolArray
    range_node: IntArray
    range_first: IntArray
    range_last: IntArray
    range_depth: IntArray
    range_kind: npt.NDArray[np.int8]
    whole_node: IntArray
    whole_depth: IntArray
    whole_end: BoolArray

    @classmethod
    def of(cls, plan: Plan, extension: Extension | None = None) -> Nodes:
        """The nodes of a plan, or those of its extension."""
        own = plan if extension is None else extension
        return cls(
            plan=plan,
            first=0 if extension is None else extension.first,
            parent=own.node_parent,
            text=own.node_text,
            complete=own.node_complete,
            range_node=own.range_node,
            range_first=own.range_first,
            range_last=own.range_last,
            range_depth=own.range_depth,
            range_kind=own.range_kind,
            whole_node=own.whole_node,
            whole_depth=own.whole_depth,
            whole_end=own.whole_end,
        )

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.parent)

    @cached_property
    def children(self) -> tuple[IntArray, IntArray]:
        """The nodes below each node, int64 [nodes that are no root], and where each node's begin, int64 [nodes + 1].

        An extension's nodes have none: whoever adds a node knows its probability from its parent's row already.
        """
        order = np.argsort(self.parent, kind="stable") if self.first == 0 else np.zeros(0, dtype=np.int64)
        below = order[np.searchsorted(self.parent[order], 0) :]
        return below, np.searchsorted(self.parent[below], np.arange(len(self) + 1))

    @cached_property
    def range_ptr(self) -> IntArray:
        """int64 [nodes + 1]: where each node's ranges begin."""
        return self._ptr(self.range_node)

    @cached_property
    def whole_ptr(self) -> IntArray:
        """int64 [nodes + 1]: where each node's whole rows begin."""
        return self._ptr(self.whole_node)

    def _ptr(self, node: IntArray) -> IntArray:
        return np.searchsorted(node, self.first + np.arange(len(self) + 1)).astype(np.int64)

    @cached_property
    def range_whole(self) -> IntArray:
        """int64 [ranges]: the whole row that a range is part of, −1 for a range that stands for itself."""
        if not len(self.whole_node):
            return np.full(len(self.range_node), -1)
        base = 1 + max(int(self.whole_depth.max()), int(self.range_depth.max(initial=0)))
        keys = self.whole_node * base + self.whole_depth
        order = np.argsort(keys, kind="stable")
        wanted = self.range_node * base + self.range_depth
        at = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
        return np.where(keys[at] == wanted, at, -1)
