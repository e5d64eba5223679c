"""Student positions planned per second, on one core; seconds are of processor time.

``label plan`` is `Pair.plan`: encoding, tree, ranges and, of unrelated tokenizers, decisions. ``masks`` is what scoring
asks for besides, the canonical next tokens of every node. Cold: the first pass with objects just made, so that it makes
the tables too. Unseen: the tables are there, the texts are new. Warm: texts seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import crosstok as ct
import numpy as np

from . import general
from .fresh import Fresh
from .inputs import Inputs, merges_of, named, pair_of
from .row import Bar, Row
from .timing import Spread, cpu_seconds, repeated

# Positions a second of the whole label-scoring plan, masks included, with warm caches.
BAR = Bar(20_000, at_least=True)
# Rows of one call for masks; scoring asks for blocks of about this size.
MASK_ROWS = 64
Figure = tuple[str, Spread]


def measure(inputs: Inputs) -> Iterator[Row]:
    """Three students of the teacher; of every other large tokenizer the first; pairs of unrelated tokenizers."""
    count, masked = inputs.scaled((500, 100), (20, 5))
    texts = inputs.answers[: 2 * count]
    for label, make in _pairs(inputs):
        for what, spread in Fresh(cores=1).call(figures, make, texts, masked):
            bar = BAR if what == "label plan and masks, warm" else None
            yield Row("planning", f"{label}: {what}", spread.median, "positions/s", bar, spread.details())


def _pairs(inputs: Inputs) -> Iterator[tuple[str, Callable[[], ct.Pair]]]:
    """What rows call a pair, and what makes it in another process."""
    for name, path in inputs.files.items():
        every = merges_of(ct.Tokenizer.from_file(path))
        for merges in every[: 3 if name == inputs.teacher_file[0] else 1]:
            yield named(name, merges), partial(_of_merges, path, merges)
    for files in general.planned(inputs):
        yield files.label, files.pair


def _of_merges(path: Path, merges: int) -> ct.Pair:
    return pair_of(ct.Tokenizer.from_file(path), merges)


def figures(make: Callable[[], ct.Pair], texts: Sequence[str], masked: int) -> list[Figure]:
    """Positions a second for one pair: plans of half of ``texts``, masks of the first ``masked`` of them."""
    seen, unseen = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    pair = make()
    cold = [cpu_seconds(lambda: pair.plan(seen, num_threads=1))]
    warm = repeated(lambda: pair.plan(seen, num_threads=1), 7, clock=cpu_seconds)
    new = [cpu_seconds(lambda: pair.plan(unseen, num_threads=1))]
    plan = _speeds(
        "label plan", [len(pair.plan(part).student_ids) for part in (seen, unseen)], cold, warm, new
    )
    few = [pair.plan(part[:masked], num_threads=1) for part in (seen, unseen)]
    cold = [cpu_seconds(lambda: all_masks(few[0]))]
    warm = repeated(lambda: all_masks(few[0]), 5, clock=cpu_seconds)
    new = [cpu_seconds(lambda: all_masks(few[1]))]
    masks = _speeds("masks", [len(part.student_ids) for part in few], cold, warm, new)
    return [*plan, *masks, *_both(plan, masks)]


def all_masks(plan: ct.Plan) -> None:
    """Ask for the masks of every node of a plan, block by block, as scoring does."""
    nodes, width = np.arange(len(plan.node_token)), plan.pair.teacher.vocab_size
    out = np.empty((MASK_ROWS, width), dtype=bool)
    for first in range(0, len(nodes), MASK_ROWS):
        block = nodes[first : first + MASK_ROWS]
        plan.masks(block, width, num_threads=1, out=out[: len(block)])


def _speeds(
    what: str, positions: list[int], cold: list[float], warm: list[float], unseen: list[float]
) -> list[Figure]:
    seen, new = positions
    return [
        (f"{what}, cold", Spread.of([seen / s for s in cold])),
        (f"{what}, unseen", Spread.of([new / s for s in unseen])),
        (f"{what}, warm", Spread.of([seen / s for s in warm])),
    ]


def _both(plan: list[Figure], masks: list[Figure]) -> Iterator[Figure]:
    """Plan and masks one after the other, unseen and warm: seconds a position add up."""
    for (what, one), (_, other) in list(zip(plan, masks, strict=True))[1:]:
        low, middle, high = (
            1 / (1 / a + 1 / b)
            for a, b in ((one.low, other.low), (one.median, other.median), (one.high, other.high))
        )
        name = what.replace("label plan", "label plan and masks")
        yield name, Spread(middle, low, high, min(one.runs, other.runs))
