"""Explicit covers: every way in which the teacher's tokens may begin with given student tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosstok import _core
from crosstok.pair import Pair
from crosstok.ragged import IntArray, Ragged, whole_number


@dataclass(frozen=True, eq=False)
class CoverBatch:
    """Relative covers of every prefix of several student sequences, as index arrays (docs/mathematics.md, 1 and 6).

    node_token, node_parent: int64 [nodes], a text's first node is its root: token −1, parent −1. cover_node,
    cover_token: int64 [covers], a node with one more token; −1 is the node itself, the teacher's first end-of-text id
    ends a complete text. position_ptr: int64 [positions + 1], into covers; a text has one position for each of
    s_1..s_i, i = 0..n (end-of-text counted). text_ptr: int64 [texts + 1], into positions. status: int8 [covers], 1 in,
    0 undecided (in the regimes "same" and "subset" none is). In the general regime covers are those of the bytes of
    s_1..s_i that are not out; undecided are also those that take too many steps to decide.
    """

    node_token: IntArray
    node_parent: IntArray
    cover_node: IntArray
    cover_token: IntArray
    position_ptr: IntArray
    text_ptr: IntArray
    status: npt.NDArray[np.int8]

    def paths(self, position: int) -> list[IntArray]:
        """The covers of a position (numbered from 0 through all texts) as explicit id arrays, int64 [tokens] each.

        Raises IndexError for a position that there is not.
        """
        if not 0 <= position < len(self.position_ptr) - 1:
            raise IndexError(f"position {position} of {len(self.position_ptr) - 1}")
        covers = range(int(self.position_ptr[position]), int(self.position_ptr[position + 1]))
        return [self._path(cover) for cover in covers]

    def _path(self, cover: int) -> IntArray:
        path = [int(self.cover_token[cover])] if self.cover_token[cover] >= 0 else []
        node = int(self.cover_node[cover])
        while self.node_parent[node] >= 0:
            path.append(int(self.node_token[node]))
            node = int(self.node_parent[node])
        return np.asarray(path[::-1], dtype=np.int64)


def enumerate_covers(
    pair: Pair,
    student_ids: Ragged | Sequence[Sequence[int] | IntArray],
    max_covers: int | None = None,
    num_threads: int = 0,
) -> CoverBatch:
    """List the relative covers of every prefix s_1..s_i, i = 0..n, of every sequence, in parallel.

    A last id that ends a text asks for the complete texts there. Texts continue something (``start=False``).
    A prefix that no text has, or with an id that the student does not have, has no covers. Raises PlanError where
    there are more than ``max_covers``, ValueError for a negative id, limit or number of threads, TypeError
    for what is no Pair.
    """
    if not isinstance(pair, Pair):
        raise TypeError(f"pair must be a Pair, not {type(pair).__name__}")
    whole_number("max_covers", max_covers, 0)
    whole_number("num_threads", num_threads, 0)
    ids = Ragged.of(student_ids)
    core = _core.enumerate_covers(pair._core, ids.values, ids.offsets, max_covers, num_threads)
    arrays = (core.node_token, core.node_parent, core.cover_node, core.cover_token)
    return CoverBatch(*arrays, core.position_ptr, core.text_ptr, core.status)
