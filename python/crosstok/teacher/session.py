"""Sessions: token trees whose rows are read, and which then grow, so that only the new nodes are read.

A packing model keeps the keys and values of everything it has read (kept.py). A new node becomes a column at the
end of its run: its position is its depth, and it sees its ancestors and itself, in the pack by the interval rule
from the column it hangs below, among appended columns one by one. Any other teacher gets whole paths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch

from crosstok.errors import CrosstokError, PlanError, TeacherError
from crosstok.ragged import IntArray
from crosstok.teacher.kept import Kept
from crosstok.teacher.packed import Pack, appended_ancestors, appended_mask, packs
from crosstok.teacher.protocol import (
    RowBlock,
    Teacher,
    TokenTree,
    check_rows,
    node_blocks,
    path_blocks,
    stream_rows,
)
from crosstok.teacher.runner import Runner

# Refuses, with TeacherError, (ids, tokens of the longest path, tokens of the prompt) that a model cannot read.
Check = Callable[[Sequence[int], int, int], None]


class SessionTeacher(Teacher, Protocol):
    """A teacher that has a session of its own."""

    def open_session(self, trees: Sequence[TokenTree]) -> Session:
        """A session for these trees."""


def open_session(teacher: Teacher, trees: Sequence[TokenTree]) -> Session:
    """A session for any teacher: by `teacher.open_session` if there is one, else by paths to `teacher.rows`.

    Raises TeacherError where the teacher refuses a tree.
    """
    if hasattr(teacher, "open_session"):
        return cast(SessionTeacher, teacher).open_session(trees)
    return PathSession(teacher, trees)


class Grown:
    """A token tree and the nodes appended to it, numbered from len(tree) on."""

    def __init__(self, tree: TokenTree) -> None:
        self.tree = tree
        self._token: list[int] = []
        self._parent: list[int] = []
        self._depth: list[int] = tree.depths().tolist()

    def __len__(self) -> int:
        """Number of nodes, appended ones included."""
        return len(self._depth)

    def append(self, parent: int, token: int) -> int:
        """The number of a new node below `parent`. Raises PlanError where there is no such parent."""
        if not 0 <= parent < len(self):
            raise PlanError(f"session: parent {parent} of a tree with {len(self)} nodes so far")
        self._token.append(token)
        self._parent.append(parent)
        self._depth.append(self._depth[parent] + 1)
        return len(self) - 1

    def crop(self, length: int) -> None:
        """Forget the nodes from `length` on, all of them appended."""
        appended = length - len(self.tree)
        del self._token[appended:], self._parent[appended:], self._depth[length:]

    def longest(self) -> int:
        """Tokens from the start of the prompt to the deepest node."""
        return len(self.tree.prompt) + max(self._depth)

    def parent(self, node: int) -> int:
        """The parent of an appended node."""
        return self._parent[node - len(self.tree)]

    def token(self, node: int) -> int:
        """The token of an appended node."""
        return self._token[node - len(self.tree)]

    def length(self, node: int) -> int:
        """Tokens from the start of the prompt to `node`, both included."""
        return len(self.tree.prompt) + self._depth[node]

    def path(self, node: int) -> tuple[int, ...]:
        """The ids from the start of the prompt to `node`, both included."""
        tail: list[int] = []
        while node >= len(self.tree):
            tail.append(self.token(node))
            node = self.parent(node)
        return self.tree.path(node) + tuple(reversed(tail))


class Session(ABC):
    """Trees that are read once, by `stream`, and then grow by `extend`, any number of times.

    Iterators must be read to their end before the next call: later rows rest on what earlier forwards left
    behind. `close`, or leaving a `with` block, frees that.
    """

    def __init__(self, trees: Sequence[TokenTree], check: Check | None = None) -> None:
        self.trees = [Grown(tree) for tree in trees]
        self._check = check
        self._state = "new"  # then "reading" and "ready" in turn, "closed" at the end

    def stream(self) -> Iterator[RowBlock]:
        """The rows of all nodes of the trees, as `stream_rows` gives them; once.

        Raises TeacherError as the teacher does, and where the trees were read before.
        """
        self._require("new")
        return self._reading(self._stream())

    def extend(self, tree: IntArray, parent: IntArray, token: IntArray) -> Iterator[RowBlock]:
        """Append nodes, and give the rows of exactly these, in any order.

        tree, parent, token: int64 [k]: node i is `token[i]` below node `parent[i]` of tree `tree[i]`. Numbers go
        on after those that the tree has, in the order given; a parent may be an appended node, also of this call
        if it comes before.

        Raises, before any forward and with nothing appended: PlanError for nodes without such a parent,
        TeacherError, with the tree's index, for what the teacher cannot read. Later TeacherError for what is no
        row. TeacherError, too, where an earlier iterator was not read to its end.
        """
        self._require("ready")
        tree, parent, token = (np.asarray(x, dtype=np.int64) for x in (tree, parent, token))
        if tree.ndim != 1 or not tree.shape == parent.shape == token.shape:
            raise PlanError(
                f"session: tree {tree.shape}, parent {parent.shape}, token {token.shape}; all must be [nodes]"
            )
        node = self._append(tree, parent, token)
        return self._reading(self._extend(tree, node)) if node.size else iter(())

    def close(self) -> None:
        """Free what was kept between calls. No further calls."""
        self._state = "closed"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def _stream(self) -> Iterator[RowBlock]:
        """The rows of the trees."""

    @abstractmethod
    def _extend(self, tree: IntArray, node: IntArray) -> Iterator[RowBlock]:
        """The rows of appended nodes, int64 [k] each, which `trees` has and the teacher can read."""

    def _require(self, state: str) -> None:
        if self._state == state:
            return
        reasons = {
            "new": "read the rows of stream() first",
            "reading": "the rows of the last call were not read to their end",
            "ready": "stream() was read before",
            "closed": "it was closed",
        }
        raise TeacherError(f"session: {reasons[self._state]}")

    def _reading(self, found: Iterator[RowBlock]) -> Iterator[RowBlock]:
        self._state = "reading"
        return self._until_read(found)

    def _until_read(self, found: Iterator[RowBlock]) -> Iterator[RowBlock]:
        for block in found:
            yield block
            del block  # or the next would come on top of it
            self._require("reading")
        self._state = "ready"

    def _append(self, tree: IntArray, parent: IntArray, token: IntArray) -> IntArray:
        """The numbers of the new nodes, int64 [k]."""
        before = [len(grown) for grown in self.trees]
        entries = zip(tree.tolist(), parent.tolist(), token.tolist(), strict=True)
        try:
            return np.asarray([self._append_one(*entry) for entry in entries], dtype=np.int64)
        except CrosstokError:
            for grown, length in zip(self.trees, before, strict=True):
                grown.crop(length)
            raise

    def _append_one(self, tree: int, parent: int, token: int) -> int:
        if not 0 <= tree < len(self.trees):
            raise PlanError(f"session: tree {tree} of {len(self.trees)}")
        grown = self.trees[tree]
        node = grown.append(parent, token)
        if self._check is not None:
            try:
                self._check((token,), grown.length(node), len(grown.tree.prompt))
            except TeacherError as error:
                raise TeacherError(error.reason, tree) from None
        return node


class PathSession(Session):
    """A session for any teacher: every new node is a path to `teacher.rows`. It keeps no more than the trees."""

    def __init__(self, teacher: Teacher, trees: Sequence[TokenTree], check: Check | None = None) -> None:
        super().__init__(trees, check)
        self._teacher = teacher

    def _stream(self) -> Iterator[RowBlock]:
        return stream_rows(self._teacher, [grown.tree for grown in self.trees])

    def _extend(self, tree: IntArray, node: IntArray) -> Iterator[RowBlock]:
        nodes = zip(tree.tolist(), node.tolist(), strict=True)
        return node_blocks(self._teacher, nodes, lambda t, n: self.trees[t].path(n))


class PackedSession(Session):
    """A session over packed forwards: new nodes are read over the keys and values of all before them.

    Its memory, beyond a forward's, is the keys and values of every column it has read, of all runs: 2 x layers
    x key-value heads x head width numbers a column, with a column for each node and one for each token of the
    prompts, those that runs have in common at their start once. A call of `extend` is one forward for each run
    that it touches, or more where new nodes fill more than one block. A forward sees the pack and, of the appended
    columns, those above its own, so that its cost does not grow with what was read before.

    longest: tokens up to which a path may share a forward with others (None: any); beyond, it is read alone.
    """

    def __init__(
        self, teacher: Teacher, runner: Runner, trees: Sequence[TokenTree], check: Check, longest: int | None
    ) -> None:
        super().__init__(trees, check)
        self._teacher = teacher
        self._runner = runner
        self._longest = longest
        self._run_of: dict[int, _Run] = {}

    def close(self) -> None:
        """Free the keys and values. No further calls."""
        super().close()
        self._run_of = {}

    def _stream(self) -> Iterator[RowBlock]:
        trees = [grown.tree for grown in self.trees]
        alone = [t for t, grown in enumerate(self.trees) if self._is_long(grown.longest())]
        packable = sorted(set(range(len(trees))).difference(alone))
        kept = Kept()
        for pack, shared in packs(trees, packable, self._runner.batch_tokens):
            kept = kept.head(shared)
            cache = kept.cache()
            yield from self._runner.run_pack(pack, cache, shared)
            kept.add(cache)
            del cache
            run = _Run(pack, kept, self._runner)
            self._run_of.update(dict.fromkeys(run.column_of, run))
        yield from path_blocks(self._teacher, trees, alone)

    def _extend(self, tree: IntArray, node: IntArray) -> Iterator[RowBlock]:
        alone: list[tuple[int, int]] = []
        touched: dict[_Run, list[tuple[int, int]]] = {}
        for t, n in zip(tree.tolist(), node.tolist(), strict=True):
            run, grown = self._run_of.get(t), self.trees[t]
            if run is None or self._is_long(grown.length(n)):
                alone.append((t, n))
            else:
                run.append(t, grown.parent(n), n, grown.token(n))
                touched.setdefault(run, []).append((t, n))
        for run, nodes in touched.items():
            yield from run.read(np.asarray(nodes, dtype=np.int64))
        yield from node_blocks(self._teacher, alone, lambda t, n: self.trees[t].path(n))

    def _is_long(self, length: int) -> bool:
        return self._longest is not None and length > self._longest


class _Run:
    """A pack, the columns appended to it, and the keys and values of both.

    column_of: for each of its trees, the column of each node, counted through pack and appended ones.
    """

    def __init__(self, pack: Pack, kept: Kept, runner: Runner) -> None:
        self._runner = runner
        self._kept, self._appended = kept, Kept()
        self._end = torch.from_numpy(pack.end).to(runner.device)
        self._depth: list[int] = pack.depth.tolist()
        # Of appended columns: token, lowest column of the pack above, appended column right above or -1.
        self._token: list[int] = []
        self._anchor: list[int] = []
        self._above: list[int] = []
        order = np.lexsort((pack.row_node, pack.row_tree))
        trees, first = np.unique(pack.row_tree[order], return_index=True)
        columns = np.split(pack.row_col[order], first[1:])
        self.column_of = {
            t: dict(enumerate(part.tolist())) for t, part in zip(trees.tolist(), columns, strict=True)
        }

    def append(self, tree: int, parent: int, node: int, token: int) -> None:
        """A column for `node`, below `parent`, which has one. `read` is to follow."""
        packed = self._end.numel()
        columns = self.column_of[tree]
        column = columns[parent]
        above = column - packed
        columns[node] = len(self._depth)
        self._depth.append(self._depth[column] + 1)
        self._token.append(token)
        self._anchor.append(column if above < 0 else self._anchor[above])
        self._above.append(max(above, -1))

    def read(self, nodes: IntArray) -> Iterator[RowBlock]:
        """The rows of the columns appended last, whose tree and node are the rows of `nodes`, int64 [k, 2]."""
        runner = self._runner
        size = min(runner.block_columns, runner.max_rows)
        first, stop = len(self._token) - len(nodes), len(self._token)
        for lo in range(first, stop, size):
            hi = min(lo + size, stop)
            tree, node = nodes[lo - first : hi - first].T.copy()
            logits = self._step(lo, hi)
            check_rows(logits, hi - lo, runner.vocab_size, runner.name, tree)
            yield from runner.pieces(tree, node, logits, np.arange(hi - lo))
            del logits  # or the next forward's would come on top of them

    def _step(self, lo: int, hi: int) -> torch.Tensor:
        """Logits [hi - lo, vocab_size] of the appended columns [lo, hi); their keys and values are kept.

        Of appended columns a forward gets only those above its own: what it costs does not grow with what was read.
        """
        device, packed = self._runner.device, self._end.numel()
        query, above = appended_ancestors(self._above, lo, hi)
        columns = np.unique(above)  # [lo, hi) are the last of them
        before = columns[columns < lo]
        cache = self._kept.cache(self._appended.take(before))
        depth = [*self._depth[:packed], *(self._depth[packed + column] for column in columns.tolist())]
        ids, depths, anchor = (
            torch.tensor(values, dtype=torch.long, device=device)
            for values in (self._token[lo:hi], depth, self._anchor[lo:hi])
        )
        seen = torch.from_numpy(np.stack([query, np.searchsorted(columns, above)])).to(device)
        mask = partial(appended_mask, self._end, depths, anchor, seen, self._runner.dtype)
        logits = self._runner.step(ids, depths[packed + len(before) :], mask, cache, np.arange(hi - lo))
        self._appended.add(cache, packed + len(before))
        return logits
