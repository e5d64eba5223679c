"""From a plan to its masses: the teacher reads the plan's trees, and its rows are reduced as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from crosstok.masses import Aggregator, Block
from crosstok.pair import Plan
from crosstok.results import Timings
from crosstok.teacher.protocol import RowBlock, Teacher, TokenTree, rows_per_block, stream_rows

# On a CPU rows are reduced in pieces of about this size: they and their exponentials stay in the cache, and their
# memory is recycled instead of being mapped anew. One thread needs 0.2 ms a row of 49,152 entries, in 64 MB 0.9 ms.
CPU_BYTES = 8 << 20


class Tap(Protocol):
    """Whoever needs more of a block than its masses, before its rows are dropped."""

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows, whose masses the aggregator has."""


@dataclass(frozen=True)
class Reading:
    """How rows are read: canonical, "renormalize" or "mask"; temperature; threads for the masks, 0 for all cores."""

    teacher: Teacher
    canonical: str
    temperature: float
    num_threads: int
    timings: Timings

    def read(
        self, plan: Plan, prompts: Sequence[tuple[int, ...]], tap: Tap | None = None, exact: bool = False
    ) -> Aggregator:
        """Run the teacher over the plan's trees. prompts: teacher ids before each text.

        exact: exponentials in float64 whatever the rows are; sums are in float64 anyway.

        Raises TeacherError, naming the text where it is about one.
        """
        aggregator = Aggregator(plan, self.canonical, self.temperature, self.num_threads)
        rows = stream_rows(self.teacher, trees_of(plan, prompts))
        start = perf_counter()
        for read in rows:
            came = perf_counter()
            self.timings.teacher += came - start
            _reduce(read, aggregator, tap, exact)
            del read  # so that the next rows do not come on top of these
            start = perf_counter()
            self.timings.aggregation += start - came
        self.timings.teacher += perf_counter() - start
        return aggregator


def _reduce(rows: RowBlock, aggregator: Aggregator, tap: Tap | None, exact: bool) -> None:
    for part in _pieces(rows):
        nodes = aggregator.plan.node_ptr[part.tree] + part.node
        block = aggregator.add(nodes, part.logits.detach(), exact)
        if tap is not None:
            tap.add(aggregator, block)


def _pieces(block: RowBlock) -> Iterator[RowBlock]:
    """The block in pieces that are reduced fastest."""
    step = max(1, len(block.node))  # a teacher may have nothing to say at times
    if block.logits.device.type == "cpu":
        step = rows_per_block(block.logits.shape[1], CPU_BYTES)
    for lo in range(0, len(block.node), step):
        part = slice(lo, lo + step)
        yield RowBlock(block.tree[part], block.node[part], block.logits[part])


def trees_of(plan: Plan, prompts: Sequence[tuple[int, ...]]) -> list[TokenTree]:
    """The tree of each text, as the teacher takes it."""
    bounds = plan.node_ptr
    trees = []
    for text, prompt in enumerate(prompts):
        nodes = slice(int(bounds[text]), int(bounds[text + 1]))
        parent = np.maximum(plan.node_parent[nodes] - bounds[text], -1)
        trees.append(TokenTree(prompt, plan.node_token[nodes], parent))
    return trees
