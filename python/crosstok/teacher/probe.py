"""Is the packed forward right for this model? A dozen nodes, packed against separate paths.

transformers accepts a tree mask for many architectures and is silently wrong for some (position_ids or masks
ignored, windows counted in columns, recurrent state). Names of architectures say little; a comparison does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from crosstok.teacher.protocol import RowBlock, TokenTree
from crosstok.teacher.runner import Runner

# float32, worst entry of whole rows; honest models measured 1e-4 at most.
TOLERANCE = 5e-4
# Half precision: packed against float32 may be this many times the unpacked error, plus slack for a maximum
# over few rows.
RATIO, SLACK = 2.0, 0.05
# Half precision of a model too large to copy: likely tokens, where bfloat16 kernels differ by 0.1 to 0.2.
LOOSE, LIKELY, TOP = 0.5, 1e-3, 10
# Parameters up to which a float32 copy is cheap (0.8 GB, about a second of forwards on two cores).
COPY_PARAMETERS = 200_000_000
# A window beyond this is not reached: the probe must stay short. Its mask follows from the config alone.
PROBED_WINDOW = 64

# Three chains below the root, one with a branch: depths up to 5, siblings before and after deeper nodes.
_SHAPE = [-1, 0, 1, 2, 3, 4, 1, 6, 0, 8, 3, 0]


def probe_trees(vocab_size: int, window: int | None, max_positions: int | None) -> list[TokenTree]:
    """Three trees over two prompts that start alike, one longer than a window of up to PROBED_WINDOW."""
    rng = np.random.default_rng(20251214)
    length = 8 if window is None or window > PROBED_WINDOW else max(8, window + 2)
    if max_positions is not None:
        length = max(1, min(length, max_positions - 8))

    def ids(count: int) -> list[int]:
        return [int(t) for t in rng.integers(0, vocab_size, count)]

    def tree(prompt: Sequence[int]) -> TokenTree:
        token = np.asarray([-1, *ids(len(_SHAPE) - 1)], dtype=np.int64)
        return TokenTree(tuple(prompt), token, np.asarray(_SHAPE, dtype=np.int64))

    short = ids(3)
    return [tree(short), tree(short[:2] + ids(length)), tree(short)]


def log_rows(found: Iterable[RowBlock], trees: Sequence[TokenTree], vocab_size: int) -> list[torch.Tensor]:
    """float64 log-probabilities [nodes, vocab_size] on the CPU, a tensor for each tree."""
    rows = [torch.full((len(t), vocab_size), float("nan"), dtype=torch.float64) for t in trees]
    for block in found:
        values = torch.log_softmax(block.logits.double(), dim=-1).cpu()
        for i, (tree, node) in enumerate(zip(block.tree.tolist(), block.node.tolist(), strict=True)):
            rows[tree][node] = values[i]
    return rows


def plain_rows(runner: Runner, trees: Sequence[TokenTree]) -> list[torch.Tensor]:
    """The reference: one forward a leaf."""
    return log_rows(runner.chain_blocks(trees, range(len(trees))), trees, runner.vocab_size)


def packed_rows(runner: Runner, trees: Sequence[TokenTree]) -> list[torch.Tensor]:
    """The packed rows, in about three cached blocks, so that the cache is probed too."""
    columns = sum(len(t) for t in trees) + len(trees[1].prompt)
    before = runner.block_columns, runner.batch_tokens
    runner.block_columns, runner.batch_tokens = max(8, columns // 3), 2 * columns
    try:
        return log_rows(runner.packed_blocks(trees, range(len(trees))), trees, runner.vocab_size)
    finally:
        runner.block_columns, runner.batch_tokens = before


def worst(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], likely: bool = False) -> float:
    """Largest difference of log-probabilities. Two entries of -inf agree; NaN counts as infinite.

    With `likely`, only of entries where b's p > LIKELY or that are among the TOP of b's row.
    """
    result = 0.0
    for x, y in zip(a, b, strict=True):
        gap = torch.where(x == y, torch.zeros_like(x), (x - y).abs())
        if likely:
            bar = y.topk(min(TOP, y.shape[-1]), dim=-1).values[:, -1:].clamp(max=float(np.log(LIKELY)))
            gap = gap[y >= bar]
        result = max(result, float(gap.nan_to_num(nan=float("inf")).max()))
    return result


def mismatch(runner: Runner, trees: Sequence[TokenTree], plain: Sequence[torch.Tensor]) -> str | None:
    """None if the packed forward may be used, else why not. What the forward raises passes through."""
    packed = packed_rows(runner, trees)
    exact = runner.dtype in (torch.float32, torch.float64)
    if exact and not (runner.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"):
        return _verdict("packed rows differ from separate forwards", worst(packed, plain), TOLERANCE)
    twin = None if exact else _float32_copy(runner)
    if twin is None:
        gap = worst(packed, plain, likely=True)
        return _verdict(f"packed rows of likely tokens differ in {runner.dtype}", gap, LOOSE)
    reference = plain_rows(twin, trees)
    reason = _verdict("packed rows differ in float32", worst(packed_rows(twin, trees), reference), TOLERANCE)
    limit = RATIO * worst(plain, reference) + SLACK
    return reason or _verdict(
        f"packed {runner.dtype} rows differ from float32", worst(packed, reference), limit
    )


def _verdict(what: str, gap: float, limit: float) -> str | None:
    return None if gap <= limit else f"{what} by {gap:.3g} in log-probability (limit {limit:.3g})"


def _float32_copy(runner: Runner) -> Runner | None:
    """The same weights in float32, or None where that is dear or impossible (quantised, dispatched)."""
    if sum(p.numel() for p in runner.model.parameters()) > COPY_PARAMETERS:
        return None
    if getattr(runner.model, "hf_device_map", None) or getattr(runner.model, "is_quantized", False):
        return None
    try:
        model = copy.deepcopy(runner.model).float()
        return Runner(model, runner.rule, runner.batch_tokens, runner.forward_bytes)
    except Exception:  # any failure only means the looser comparison
        return None
