"""Several token trees as one sequence: pure functions, no model.

The columns of a pack are the nodes of one forest in depth-first order: prompts that start alike share their
columns, and a tree's root is the last column of its prompt. A column q then sees exactly its ancestors and
itself, and in depth-first order those are the columns k with k <= q < end[k], where [k, end[k]) is the
subtree of k: a whole mask is two comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from crosstok.ragged import IntArray
from crosstok.teacher.protocol import TokenTree


@dataclass(frozen=True, eq=False)
class Pack:
    """One packed sequence. All arrays are int64.

    ids, depth, end: [columns]: token, position from the start of the prompt, end of the subtree (exclusive).
    row_tree, row_node, row_col: [rows], sorted by column: which tree's node reads which column. Trees with
    the same prompt read the same column for their roots.
    prompt: ids of the prompt that fills the first columns, for reuse of its keys and values.
    """

    ids: IntArray
    depth: IntArray
    end: IntArray
    row_tree: IntArray
    row_node: IntArray
    row_col: IntArray
    prompt: tuple[int, ...]

    def __len__(self) -> int:
        """Number of columns."""
        return int(self.ids.size)


@dataclass(frozen=True)
class MaskRule:
    """How a model wants its masks.

    window: sliding window in tokens, or None. per_layer: pass a dict of a full and a sliding mask (layers
    differ); otherwise one mask for all layers, windowed if there is a window.
    """

    window: int | None = None
    per_layer: bool = False


class UnpackableError(Exception):
    """Why a model cannot read a packed tree; caught by HFTeacher, which goes path by path."""


# Attention by column distance that a mask of ours would not replace. The probe is too short to notice.
_FOREIGN_WINDOWS = ("attention_chunk_size", "window_size", "attention_window", "attention_types")


# These choose one mask for all layers by config.sliding_window alone, whatever config.layer_types says.
_ONE_MASK = frozenset(
    ("blt", "doge", "ministral3", "mistral", "mixtral", "phi3", "phimoe", "qwen3_moe", "starcoder2")
)


def mask_rule(config: Any) -> MaskRule:
    """The rule for a (text) config. Raises UnpackableError for layers that no ancestor mask describes."""
    one_mask = getattr(config, "model_type", None) in _ONE_MASK
    layers = set() if one_mask else set(getattr(config, "layer_types", None) or ())
    foreign = sorted(layers - {"full_attention", "sliding_attention"})
    if foreign:
        raise UnpackableError(f"config.layer_types has {', '.join(map(str, foreign))}")
    for name in _FOREIGN_WINDOWS:
        if getattr(config, name, None):
            raise UnpackableError(f"config.{name} is set")
    window = getattr(config, "sliding_window", None)
    if layers and "sliding_attention" not in layers:
        window = None
    if not layers and getattr(config, "use_sliding_window", True) is False:
        window = None
    if "sliding_attention" in layers and window is None:
        raise UnpackableError("config.layer_types has sliding_attention without config.sliding_window")
    return MaskRule(None if window is None else int(window), "sliding_attention" in layers)


@dataclass
class _Builder:
    """Columns so far, and the open chain: the columns of the current prompt's tokens."""

    ids: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    rows: list[IntArray] = field(default_factory=list)
    prompt: tuple[int, ...] = ()
    chain: list[int] = field(default_factory=list)

    def open_prompt(self, prompt: tuple[int, ...]) -> None:
        """Keep the columns that `prompt` shares with the open chain, close the others, add the rest."""
        shared = common_prefix(self.prompt, prompt)
        self.close(shared)
        n = len(self.ids)
        self.chain.extend(range(n, n + len(prompt) - shared))
        self.ids.extend(prompt[shared:])
        self.depth.extend(range(shared, len(prompt)))
        self.end.extend([-1] * (len(prompt) - shared))
        self.prompt = prompt

    def close(self, keep: int) -> None:
        """No later column is below the chain's columns from the `keep`-th on."""
        for column in self.chain[keep:]:
            self.end[column] = len(self.ids)
        del self.chain[keep:]

    def add_tree(self, index: int, tree: TokenTree) -> None:
        """Put the tree's nodes, in depth-first order, below the open prompt."""
        place, size = preorder(tree.parent)
        n = len(self.ids)
        order = np.argsort(place)[1:]
        self.ids.extend(tree.token[order].tolist())
        self.depth.extend((tree.depths()[order] + len(tree.prompt) - 1).tolist())
        self.end.extend((n - 1 + place + size)[order].tolist())
        column = n - 1 + place
        column[0] = self.chain[-1]
        self.rows.append(np.stack([np.full_like(column, index), np.arange(column.size), column]))


def preorder(parent: IntArray) -> tuple[IntArray, IntArray]:
    """Depth-first place and subtree size of each node, int64 [nodes]; the root's place is 0.

    Two linear passes over Python lists: about 0.3 microseconds a node, nothing beside a forward.
    """
    above = parent.tolist()
    n = len(above)
    size = [1] * n
    for node in range(n - 1, 0, -1):
        size[above[node]] += size[node]
    place = [0] * n
    free = [1] * n  # next free place below a node
    for node in range(1, n):
        place[node] = free[above[node]]
        free[node] = place[node] + 1
        free[above[node]] += size[node]
    return np.asarray(place, dtype=np.int64), np.asarray(size, dtype=np.int64)


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])


def build_pack(trees: Sequence[TokenTree], which: Sequence[int]) -> Pack:
    """Pack the trees numbered `which`; every prompt must have at least one token.

    Prompts are sorted: then each shares with its predecessor all that it shares with any earlier one, and the
    columns come out in depth-first order.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index in which:
        by_prompt.setdefault(trees[index].prompt, []).append(index)
    builder = _Builder()
    prompts = sorted(by_prompt)
    for prompt in prompts:
        builder.open_prompt(prompt)
        for index in by_prompt[prompt]:
            builder.add_tree(index, trees[index])
    builder.close(0)
    rows = np.concatenate(builder.rows, axis=1)
    rows = rows[:, np.argsort(rows[2], kind="stable")]
    ids, depth, end = (np.asarray(x, dtype=np.int64) for x in (builder.ids, builder.depth, builder.end))
    return Pack(ids, depth, end, rows[0].copy(), rows[1].copy(), rows[2].copy(), prompts[0])


def batches(trees: Sequence[TokenTree], which: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Cut `which`, in order, into runs of at most `batch_tokens` columns; a larger text goes alone."""
    run: list[int] = []
    prompts: set[tuple[int, ...]] = set()
    columns = 0
    for index in which:
        tree = trees[index]
        shared = max((common_prefix(p, tree.prompt) for p in prompts), default=0)
        if tree.prompt in prompts:
            shared = len(tree.prompt)
        added = len(tree) - 1 + len(tree.prompt) - shared
        if run and columns + added > batch_tokens:
            yield run
            run, prompts, columns = [], set(), 0
            added = len(tree) - 1 + len(tree.prompt)
        run.append(index)
        prompts.add(tree.prompt)
        columns += added
    if run:
        yield run


def packs(trees: Sequence[TokenTree], which: Iterable[int], batch_tokens: int) -> Iterator[tuple[Pack, int]]:
    """The trees `which` packed into runs, and how many first columns each run has in common with the one before.

    Equal prompts in one run are read once, and runs follow each other with prompts that begin alike. The last
    column of a run's first prompt never counts as common: its row is the root's, so it is read again.
    """
    before: tuple[int, ...] = ()
    order = sorted(which, key=lambda index: (trees[index].prompt, len(trees[index])))
    for run in batches(trees, order, batch_tokens):
        pack = build_pack(trees, run)
        yield pack, min(common_prefix(before, pack.prompt), len(pack.prompt) - 1)
        before = pack.prompt


def blocks(pack: Pack, start: int, max_columns: int, max_rows: int) -> Iterator[tuple[int, int]]:
    """Cut the columns from `start` on into [lo, hi): at most `max_columns`, and `max_rows` that are read."""
    read = np.zeros(len(pack) + 1, dtype=np.int64)
    read[1:][np.unique(pack.row_col)] = 1
    read = np.cumsum(read)  # read[i]: read columns before i
    lo = start
    while lo < len(pack):
        hi = int(np.searchsorted(read, read[lo] + max_rows, side="right")) - 1
        hi = max(lo + 1, min(hi, lo + max_columns, len(pack)))
        yield lo, hi
        lo = hi


def ancestor_mask(
    end: torch.Tensor, depth: torch.Tensor, lo: int, hi: int, dtype: torch.dtype, window: int | None = None
) -> torch.Tensor:
    """Additive mask [1, 1, hi - lo, hi] for the queries [lo, hi) against all keys before hi.

    0 where the key is the query or above it (and fewer than `window` levels above), else the most negative
    number of `dtype`: eager attention adds masks, and takes a boolean one silently for numbers. end, depth:
    int64 [columns], on the device where the mask is wanted.
    """
    column = torch.arange(hi, device=end.device)
    query = column[lo:, None]
    allowed = (column[None] <= query) & (query < end[None, :hi])
    return _additive(allowed, depth[:hi], dtype, window)


def appended_mask(
    end: torch.Tensor,
    depth: torch.Tensor,
    anchor: torch.Tensor,
    seen: torch.Tensor,
    dtype: torch.dtype,
    window: int | None = None,
) -> torch.Tensor:
    """As `ancestor_mask`, for queries that were appended to a pack; [1, 1, queries, keys].

    Keys are the pack's columns and then appended ones, of which the queries are the last. end: int64
    [columns of the pack]. depth: int64 [keys]. anchor: int64 [queries], the lowest column of the pack above each
    query. seen: int64 [2, pairs], query and appended key for each query's appended ancestors and itself,
    which no interval describes (`appended_ancestors`).
    """
    packed = end.numel()
    allowed = torch.zeros(anchor.numel(), depth.numel(), dtype=torch.bool, device=end.device)
    column = torch.arange(packed, device=end.device)[None]
    allowed[:, :packed] = (column <= anchor[:, None]) & (anchor[:, None] < end[None])
    allowed[seen[0], packed + seen[1]] = True
    return _additive(allowed, depth, dtype, window)


def appended_ancestors(above: Sequence[int], lo: int, hi: int) -> IntArray:
    """int64 [2, pairs]: (query - lo, column) for each appended column that is a query of [lo, hi) or above it.

    above: the appended column right above each appended one, or -1. Only those asked for are looked at.
    """
    pairs: list[tuple[int, int]] = []
    for query in range(lo, hi):
        column = query
        while column >= 0:
            pairs.append((query - lo, column))
            column = above[column]
    return np.array(pairs, dtype=np.int64).T


def _additive(
    allowed: torch.Tensor, depth: torch.Tensor, dtype: torch.dtype, window: int | None
) -> torch.Tensor:
    """The mask of `allowed` [queries, keys], which is changed; the queries are the last of the keys."""
    if window is not None:
        allowed &= depth[-len(allowed) :, None] - depth[None] < window
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]
