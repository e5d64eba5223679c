"""From a plan to its masses: the teacher reads the plan's trees, and its rows are reduced as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from crosstok.errors import TeacherError
from crosstok.masses.aggregator import Aggregator, Block, Masses, Workspace
from crosstok.masses.nodes import Nodes
from crosstok.masses.prefixes import Prefixes, gather, tightened
from crosstok.masses.undecided import HEAVY, ROW_FLOOR, Known, Undecided, UndecidedTap
from crosstok.pair import Plan
from crosstok.ragged import IntArray
from crosstok.results import Timings
from crosstok.scores.refine import Further, Goal, refine
from crosstok.teacher.protocol import RowBlock, Teacher, TokenTree, rows_per_block, stream_rows
from crosstok.teacher.session import Session, open_session

if TYPE_CHECKING:
    from crosstok.pair import Extension

# On a CPU rows are reduced in pieces of about this size: they and their exponentials stay in the cache, and their
# memory is recycled instead of being mapped anew. One thread needs 0.2 ms a row of 49,152 entries, in 64 MB 0.9 ms.
CPU_BYTES = 8 << 20


class Tap(Protocol):
    """Whoever needs more of a block than its masses, before its rows are dropped."""

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows, whose masses the aggregator has."""


@dataclass(frozen=True)
class Taps:
    """Several that see the same blocks."""

    taps: tuple[Tap, ...]

    def add(self, aggregator: Aggregator, block: Block) -> None:
        for tap in self.taps:
            tap.add(aggregator, block)


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
        aggregator = self.aggregator(Nodes.of(plan))
        rows = stream_rows(self.teacher, trees_of(plan, prompts))
        self.reduce(rows, aggregator, lambda part: plan.node_ptr[part.tree] + part.node, tap, exact)
        return aggregator

    def prefixes(
        self,
        plan: Plan,
        prompts: Sequence[tuple[int, ...]],
        ended: Sequence[bool],
        goal: Goal | None,
    ) -> Prefixes:
        """Read a plan's rows, and those further ones that the goal asks for where something is undecided.

        ended: for each text whether end-of-text follows it. Raises what `read` does.
        """
        if not len(plan.whole_node) and not plan.range_kind.any():
            return gather(plan, self.read(plan, prompts).masses)
        nodes = Nodes.of(plan)
        if goal is None or goal.max_rows == 0:
            tap = UndecidedTap(nodes, 0.0, None, ROW_FLOOR)
            aggregator = self.read(plan, prompts, tap)
            return tightened(self._decided(plan, aggregator.masses, tap.finish())[0])
        with open_session(self.teacher, trees_of(plan, prompts)) as session:
            aggregator, tap = self.aggregator(nodes), UndecidedTap(nodes, goal.floor, goal.kept)
            rows = session.stream()
            self.reduce(rows, aggregator, lambda part: plan.node_ptr[part.tree] + part.node, tap)
            growth = _Goals(self, plan, session, goal, aggregator.space)
            prefixes, found = self._decided(plan, aggregator.masses, tap.finish(), goal.light)
            return tightened(refine(plan, prefixes, found, goal, ended, growth))

    def bounded(
        self,
        plan: Plan,
        prompts: Sequence[tuple[int, ...]],
        watch: Tap,
        session: Session | None = None,
        exact: bool = False,
    ) -> Prefixes:
        """What `prefixes` gives without a goal, while ``watch`` sees the plan's rows as well.

        session: that reads them, of the plan's trees. exact: as in `read`.
        """
        tap = UndecidedTap(Nodes.of(plan), 0.0, None, ROW_FLOOR)
        aggregator = self.aggregator(Nodes.of(plan))
        rows = stream_rows(self.teacher, trees_of(plan, prompts)) if session is None else session.stream()
        taps = Taps((tap, watch))
        self.reduce(rows, aggregator, lambda part: plan.node_ptr[part.tree] + part.node, taps, exact)
        if not len(plan.whole_node) and not plan.range_kind.any():
            return gather(plan, aggregator.masses)
        return tightened(self._decided(plan, aggregator.masses, tap.finish())[0])

    def _decided(
        self, plan: Plan, masses: Masses, found: Undecided, light: float = HEAVY
    ) -> tuple[Prefixes, Undecided]:
        """What a plan's rows amount to once the heavy ones among the undecided tokens are decided one by one."""
        first = gather(plan, masses)
        slot = np.repeat(np.arange(len(found.node)), np.diff(found.ptr))
        position = first.first[plan.node_text[found.node]] + found.depth
        possible = (first.log_q[found.node] > -np.inf) & (first.upper[position] > -np.inf)
        of_slot = np.full(len(found.node), -np.inf)
        of_slot[possible] = first.log_q[found.node[possible]] - first.upper[position[possible]]
        decide = partial(plan.decide, num_threads=self.num_threads)
        known = Known.of(found, of_slot[slot] + found.log_mass, decide, light)
        return gather(plan, masses, known), known.undecided

    def aggregator(self, nodes: Nodes, space: Workspace | None = None) -> Aggregator:
        """What reduces the rows of nodes; space: memory of another one that is done."""
        return Aggregator(nodes, self.canonical, self.temperature, self.num_threads, space)

    def reduce(
        self,
        rows: Iterable[RowBlock],
        aggregator: Aggregator,
        nodes_of: Callable[[RowBlock], IntArray],
        tap: Tap | None = None,
        exact: bool = False,
    ) -> None:
        """Hand rows on to whoever sums them. nodes_of: the numbers of a block's nodes in the plan."""
        start = perf_counter()
        for read in rows:
            came = perf_counter()
            self.timings.teacher += came - start
            for part in _pieces(read):
                _reduce(nodes_of(part), part, aggregator, tap, exact)
            del read  # so that the next rows do not come on top of these
            start = perf_counter()
            self.timings.aggregation += start - came
        self.timings.teacher += perf_counter() - start


class Growth:
    """Extends a plan, and reads the new rows in the session that has read the plan."""

    def __init__(
        self, reading: Reading, plan: Plan, session: Session, space: Workspace | None = None
    ) -> None:
        self.reading, self.plan, self.session, self.space = reading, plan, session, space
        # The session counts a tree's nodes as they come: of each node its number there (−1: it was refused), and of
        # each number the node.
        self._number = np.arange(len(plan.node_token)) - plan.node_ptr[plan.node_text]
        bounds = zip(plan.node_ptr[:-1].tolist(), plan.node_ptr[1:].tolist(), strict=True)
        self._nodes = [list(range(first, last)) for first, last in bounds]
        # Of each tree: paths of this length, prompt included, and longer ones are refused.
        self._too_long = np.full(len(self._nodes), np.iinfo(np.int64).max)

    def read(
        self, node: IntArray, token: IntArray, tap: Tap | Callable[[Nodes], Tap]
    ) -> tuple[Nodes, Masses]:
        """Read the rows of new nodes, but for those whose paths are too long for the teacher: they are not seen."""
        extension = self.plan.extend(node, token, self.reading.num_threads)
        nodes = Nodes.of(self.plan, extension)
        aggregator = self.reading.aggregator(nodes, self.space)
        self.space = aggregator.space
        tap = tap(nodes) if callable(tap) else tap
        self.reading.reduce(self._rows(extension), aggregator, self._nodes_of, tap)
        return nodes, aggregator.masses

    def _rows(self, extension: Extension) -> Iterator[RowBlock]:
        tree, token = extension.node_text, extension.node_token
        parent = self._number[extension.node_parent]
        length = self._lengths(tree, parent)
        while True:
            chosen = np.flatnonzero(length < self._too_long[tree])
            try:
                rows = self.session.extend(tree[chosen], parent[chosen], token[chosen])
                break
            except TeacherError as error:  # nothing was read, nor appended
                if error.index is None:
                    raise
                # Which path it was is not said: one of the longest of this tree, or they are refused as well.
                self._too_long[error.index] = length[chosen[tree[chosen] == error.index]].max()
        number = np.full(len(tree), -1)
        for k in chosen.tolist():
            number[k] = len(self._nodes[tree[k]])
            self._nodes[tree[k]].append(extension.first + k)
        self._number = np.concatenate([self._number, number])
        return rows

    def _lengths(self, tree: IntArray, parent: IntArray) -> IntArray:
        """int64 [k]: tokens from the start of the prompt to new nodes below ``parent``."""
        each = zip(tree.tolist(), parent.tolist(), strict=True)
        return np.array([self.session.trees[t].length(above) + 1 for t, above in each], dtype=np.int64)

    def _nodes_of(self, part: RowBlock) -> IntArray:
        found = [self._nodes[t][n] for t, n in zip(part.tree.tolist(), part.node.tolist(), strict=True)]
        return np.array(found, dtype=np.int64)


class _Goals(Growth):
    """As `refine` needs it."""

    def __init__(self, reading: Reading, plan: Plan, session: Session, goal: Goal, space: Workspace) -> None:
        super().__init__(reading, plan, session, space)
        self.goal = goal

    def decide(
        self, node: IntArray, token: IntArray, depth: IntArray, quick: bool = False
    ) -> npt.NDArray[np.int8]:
        """As `Plan.decide`."""
        return self.plan.decide(node, token, depth, quick, self.reading.num_threads)

    def grow(self, node: IntArray, token: IntArray) -> Further:
        """Read the rows of new nodes, with what they leave undecided."""
        taps: list[UndecidedTap] = []

        def tap_of(nodes: Nodes) -> UndecidedTap:
            taps.append(UndecidedTap(nodes, self.goal.floor, self.goal.kept))
            return taps[0]

        nodes, masses = self.read(node, token, tap_of)
        return Further(nodes, masses, taps[0].finish())


def _reduce(nodes: IntArray, part: RowBlock, aggregator: Aggregator, tap: Tap | None, exact: bool) -> None:
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
