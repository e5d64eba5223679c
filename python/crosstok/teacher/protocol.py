"""What a teacher is: rows for token paths, or a stream of rows for whole token trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch

from crosstok.errors import PlanError, TeacherError
from crosstok.ragged import IntArray

# One block of rows as float32: large enough for full speed of the reductions that follow, small enough that
# several copies (softmax, gathers) do not matter beside a model.
BLOCK_BYTES = 64 << 20
# Paths are Python tuples; with a tiny vocabulary the byte limit alone would build millions at a time.
MAX_PATHS = 1024


class Teacher(Protocol):
    """Rows for token paths. Everything else in crosstok needs no more than this."""

    @property
    def vocab_size(self) -> int:
        """Width of a row, padding of the LM head included."""

    def rows(self, paths: list[tuple[int, ...]]) -> torch.Tensor:
        """Natural log-probabilities [len(paths), vocab_size] after each path, prompt ids first."""


@runtime_checkable
class TreeTeacher(Teacher, Protocol):
    """A teacher that reads whole token trees, sharing the work of common prefixes."""

    def stream(self, trees: Sequence[TokenTree]) -> Iterator[RowBlock]:
        """Each node of each tree exactly once, in any order, in blocks of about BLOCK_BYTES as float32."""


@dataclass(frozen=True, eq=False)
class TokenTree:
    """The token paths of one text, as a tree below its prompt.

    prompt: ids the teacher sees first. token: int64 [nodes], token[0] = -1: the root, which is the end of the
    prompt. parent: int64 [nodes], parent[0] = -1, and every parent comes before its children.

    Raises PlanError if the arrays are not such a tree.
    """

    prompt: tuple[int, ...]
    token: IntArray
    parent: IntArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", tuple(int(t) for t in self.prompt))
        object.__setattr__(self, "token", np.asarray(self.token, dtype=np.int64))
        object.__setattr__(self, "parent", np.asarray(self.parent, dtype=np.int64))
        n = self.token.size
        if self.token.shape != self.parent.shape or self.token.ndim != 1 or n == 0:
            shapes = f"token {self.token.shape}, parent {self.parent.shape}"
            raise PlanError(f"token tree: {shapes}; both must be [nodes]")
        above = self.parent[1:]
        if self.token[0] != -1 or self.parent[0] != -1:
            raise PlanError("token tree: node 0 must be the root, token -1 and parent -1")
        if np.any(above < 0) or np.any(above >= np.arange(1, n)):
            raise PlanError("token tree: every parent must come before its children")

    def __len__(self) -> int:
        """Number of nodes, the root included."""
        return int(self.token.size)

    def depths(self) -> IntArray:
        """int64 [nodes]: tokens below the prompt, 0 at the root."""
        parent = self.parent.tolist()
        depth = [0] * len(parent)
        for node in range(1, len(parent)):
            depth[node] = depth[parent[node]] + 1
        return np.asarray(depth, dtype=np.int64)

    def path(self, node: int) -> tuple[int, ...]:
        """The ids from the start of the prompt to `node`, both included."""
        tail: list[int] = []
        while node > 0:
            tail.append(int(self.token[node]))
            node = int(self.parent[node])
        return self.prompt + tuple(reversed(tail))


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows of some nodes: the tokens that may follow them.

    tree, node: int64 [k], indices into the trees given and into their nodes. logits: [k, vocab_size] of any
    float dtype on the teacher's device; a row is fixed only up to an additive constant, natural logarithm.
    """

    tree: IntArray
    node: IntArray
    logits: torch.Tensor


def rows_per_block(vocab_size: int, nbytes: int = BLOCK_BYTES) -> int:
    """How many float32 rows of `vocab_size` fit into `nbytes`; at least one."""
    return max(1, nbytes // (4 * max(1, vocab_size)))


def check_rows(
    rows: torch.Tensor, count: int, vocab_size: int, what: str, trees: IntArray | None = None
) -> None:
    """Raise TeacherError unless `rows` is a float tensor [count, vocab_size] without NaN and +inf.

    A row of nothing but -inf passes: a table may have a dead end. The row maximum carries NaN and +inf, so
    one reduction finds both. trees: int64 [count], the tree of each row, which the error then names.
    """
    if not isinstance(rows, torch.Tensor) or not rows.is_floating_point():
        raise TeacherError(f"{what}: rows must be a tensor of floats, not {_describe(rows)}")
    if tuple(rows.shape) != (count, vocab_size):
        raise TeacherError(f"{what}: rows have shape {tuple(rows.shape)}, expected {(count, vocab_size)}")
    if count == 0:
        return
    top = rows.amax(dim=-1)
    bad = torch.isnan(top) | (top == float("inf"))
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        culprit = "NaN" if bool(top[first].isnan()) else "+inf"
        index = None if trees is None else int(trees[first])
        raise TeacherError(f"{what}: row {first} of {count} has {culprit}", index)


def _describe(value: object) -> str:
    return str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__


def path_blocks(teacher: Teacher, trees: Sequence[TokenTree], which: Iterable[int]) -> Iterator[RowBlock]:
    """The rows of the trees numbered `which`, one path at a time through `teacher.rows`."""
    wanted = ((t, node) for t in which for node in range(len(trees[t])))
    return node_blocks(teacher, wanted, lambda t, node: trees[t].path(node))


def node_blocks(
    teacher: Teacher, nodes: Iterable[tuple[int, int]], path: Callable[[int, int], tuple[int, ...]]
) -> Iterator[RowBlock]:
    """The rows of (tree, node) pairs through `teacher.rows`; path(tree, node): the ids down to a node, prompt first."""
    size = min(MAX_PATHS, rows_per_block(teacher.vocab_size))
    coming = iter(nodes)
    while chunk := list(islice(coming, size)):
        rows = teacher.rows([path(t, node) for t, node in chunk])
        index = np.asarray(chunk, dtype=np.int64)
        check_rows(rows, len(chunk), teacher.vocab_size, type(teacher).__name__, index[:, 0])
        yield RowBlock(index[:, 0].copy(), index[:, 1].copy(), rows)


def stream_rows(teacher: Teacher, trees: Sequence[TokenTree]) -> Iterator[RowBlock]:
    """Each node of each tree exactly once, in any order: by `teacher.stream` if there is one, else by paths.

    Raises TeacherError where the teacher refuses a tree, or returns what are no rows.
    """
    if hasattr(teacher, "stream"):
        return cast(TreeTeacher, teacher).stream(trees)
    return path_blocks(teacher, trees, range(len(trees)))
