"""The forward passes of a transformers model: packed trees in cached blocks, single chains, single paths.

No checks of ids and no choice between the ways here: hf.py does that, probe.py runs both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from crosstok.ragged import IntArray
from crosstok.teacher.packed import MaskRule, Pack, ancestor_mask, blocks, packs
from crosstok.teacher.protocol import RowBlock, TokenTree, check_rows, rows_per_block

# Columns of one forward: about 512 keep matrix products efficient and the mask small (512 x keys).
BLOCK_COLUMNS = 512


class Runner:
    """A model and how to feed it.

    forward_bytes bounds the float32 logits of one forward; vocab_size is known after the first plain one.
    """

    def __init__(self, model: Any, rule: MaskRule, batch_tokens: int, forward_bytes: int) -> None:
        self.model = model
        self.rule = rule
        self.batch_tokens = batch_tokens
        self.block_columns = BLOCK_COLUMNS
        self.forward_bytes = forward_bytes
        weight = model.get_input_embeddings().weight
        self.device: torch.device = weight.device
        # sdpa wants the mask in the dtype of the queries; embeddings keep it where others are quantised.
        self.dtype: torch.dtype = weight.dtype
        self._slices_logits = "logits_to_keep" in forward_arguments(model)
        self._cache_argument = cache_argument(model)
        self.name = type(model).__name__
        self.vocab_size = int(self.last_logits((0,)).shape[-1])

    @property
    def max_rows(self) -> int:
        """Logits rows of one forward."""
        return rows_per_block(self.vocab_size, self.forward_bytes)

    def last_logits(self, path: tuple[int, ...]) -> torch.Tensor:
        """Logits [vocab_size] after a path: a plain forward, no cache and no mask."""
        return self._plain(path, len(path) - 1, len(path))[0]

    def _plain(self, path: Sequence[int], lo: int, hi: int) -> torch.Tensor:
        """Logits [hi - lo, vocab_size] at positions [lo, hi) of a plain forward over path[:hi]."""
        ids = torch.tensor([list(path[:hi])], dtype=torch.long, device=self.device)
        return self._forward({"input_ids": ids, "use_cache": False}, np.arange(lo, hi, dtype=np.int64))

    @torch.inference_mode()
    def _forward(self, inputs: dict[str, Any], keep: IntArray) -> torch.Tensor:
        """Logits [len(keep), vocab_size] at the columns `keep` of the input.

        A model put back into training mode would drop out, and a caller's autocast (a Trainer's, around its
        own model) would cut our precision: neither may reach the teacher.
        """
        if self.model.training:
            self.model.eval()
        index = torch.from_numpy(keep).to(self.device)
        if self._slices_logits:
            inputs["logits_to_keep"] = index
        with torch.autocast(self.device.type, enabled=False):
            logits: torch.Tensor = self.model(**inputs).logits[0]
        return logits if self._slices_logits else logits[index.to(logits.device)]

    def packed_blocks(self, trees: Sequence[TokenTree], which: Sequence[int]) -> Iterator[RowBlock]:
        """Rows of all nodes of the trees `which`, packed into runs of at most batch_tokens columns.

        A run starts from the keys and values of the run before as far as their first prompts agree, so a long
        prompt shared by many texts is read once. Raises TeacherError for NaN and +inf.
        """
        cache: Any = None
        for pack, shared in packs(trees, which, self.batch_tokens):
            cache = _cropped(cache, shared)
            yield from self.run_pack(pack, cache, shared)

    def run_pack(self, pack: Pack, cache: Any, start: int) -> Iterator[RowBlock]:
        """The rows of a pack of which `cache` holds the columns before `start`, and afterwards all."""
        ids, depth, end = (torch.from_numpy(x).to(self.device) for x in (pack.ids, pack.depth, pack.end))
        for lo, hi in blocks(pack, start, self.block_columns, self.max_rows):
            first, last = np.searchsorted(pack.row_col, [lo, hi]).tolist()
            rows = slice(first, last)
            columns, at, inverse = np.unique(pack.row_col[rows], return_index=True, return_inverse=True)
            mask = partial(ancestor_mask, end, depth, lo, hi, self.dtype)
            # Within a prompt nothing is read, but a model may not like an empty selection.
            keep = columns - lo if columns.size else np.zeros(1, dtype=np.int64)
            logits = self.step(ids[lo:hi], depth[lo:hi], mask, cache, keep)
            if columns.size:
                check_rows(logits, columns.size, self.vocab_size, self.name, pack.row_tree[rows][at])
                yield from self.pieces(pack.row_tree[rows], pack.row_node[rows], logits, inverse)
            del logits  # or the next forward's would come on top of them

    def step(
        self,
        ids: torch.Tensor,
        depth: torch.Tensor,
        mask: Callable[[int | None], torch.Tensor],
        cache: Any,
        keep: IntArray,
    ) -> torch.Tensor:
        """Logits [len(keep), vocab_size] at the columns `keep` of those that this forward adds to `cache`.

        ids, depth: int64 [columns]. mask: a window (or None) to the columns' additive mask against all columns.
        """
        window = self.rule.window
        masks: Any = mask(window)
        if self.rule.per_layer:  # transformers' dict of masks where layers differ
            masks = {"full_attention": mask(None), "sliding_attention": masks}
        inputs: dict[str, Any] = {
            "input_ids": ids[None],
            "position_ids": depth[None],
            "attention_mask": masks,
            self._cache_argument: cache,
            "use_cache": True,
        }
        return self._forward(inputs, keep)

    def pieces(
        self, tree: IntArray, node: IntArray, logits: torch.Tensor, inverse: IntArray
    ) -> Iterator[RowBlock]:
        """Blocks of at most BLOCK_BYTES; entry i reads row inverse[i] (non-decreasing) of `logits`."""
        step = rows_per_block(self.vocab_size)
        for lo in range(0, tree.size, step):
            part = inverse[lo : lo + step]
            low, high = int(part[0]), int(part[-1]) + 1
            rows = logits[low:high]
            if part.size != high - low:  # roots of several trees read one column
                rows = rows[torch.from_numpy(part - low).to(rows.device)]
            yield RowBlock(tree[lo : lo + step], node[lo : lo + step], rows)

    def chain_blocks(self, trees: Sequence[TokenTree], which: Sequence[int]) -> Iterator[RowBlock]:
        """The same rows without packing: one plain forward a leaf, read where no earlier leaf's path went."""
        for index in which:
            tree = trees[index]
            for nodes in chains(tree):
                path = tree.path(int(nodes[-1]))
                offset = len(path) - nodes.size
                for lo in range(0, nodes.size, self.max_rows):
                    part = nodes[lo : lo + self.max_rows]
                    logits = self._plain(path, offset + lo, offset + lo + part.size)
                    owner = np.full_like(part, index)
                    check_rows(logits, part.size, self.vocab_size, self.name, owner)
                    yield from self.pieces(owner, part, logits, np.arange(part.size))


def cache_argument(model: Any) -> str:
    """What a model's forward calls its keys and values: transformers renamed `past_key_values` to `cache` in 5.24."""
    return "cache" if "cache" in forward_arguments(model) else "past_key_values"


def forward_arguments(model: Any) -> set[str]:
    """What a model's forward takes by name; PEFT's models hand on to the model inside what they do not name."""
    arguments = inspect.signature(model.forward).parameters
    hands_on = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    inner = getattr(model, "get_base_model", None)
    return {*arguments, *(forward_arguments(inner()) if hands_on and inner is not None else ())}


def chains(tree: TokenTree) -> Iterator[IntArray]:
    """A downward chain for each leaf, int64 nodes: the part of its path that is on no earlier leaf's path."""
    parent = tree.parent.tolist()
    leaf = [True] * len(parent)
    for above in parent[1:]:
        leaf[above] = False
    taken = [False] * len(parent)
    for last in range(len(parent)):
        if leaf[last]:
            nodes: list[int] = []
            node = last
            while node >= 0 and not taken[node]:
                taken[node] = True
                nodes.append(node)
                node = parent[node]
            yield np.asarray(nodes[::-1], dtype=np.int64)


def _cropped(cache: Any, length: int) -> Any:
    """A cache of the first `length` columns.

    Plain DynamicCache(): told of the config, it would crop sliding layers by column, and a tree's columns are
    not in the order of depth.
    """
    from transformers import DynamicCache

    if cache is None or length == 0:
        return DynamicCache()
    cache.crop(length - cache.get_seq_length())
    return cache
