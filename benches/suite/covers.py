"""Explicit covers: positions and covers a second, on one thread and on two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import crosstok as ct

from .fresh import Fresh
from .inputs import Inputs, merges_of, named, pair_of
from .row import Row
from .timing import Spread, repeated

# A byte of a large vocabulary has thousands of covers: so many are listed in one call, texts as they suffice.
COVERS = 3_000_000


def measure(inputs: Inputs) -> Iterator[Row]:
    """The three students of the teacher."""
    name, path = inputs.teacher_file
    limit, repeats = inputs.scaled((COVERS, 5), (20_000, 1))
    for merges in merges_of(ct.Tokenizer.from_file(path)):
        for threads in (1, 2):
            found = Fresh(cores=threads).call(
                figures, path, merges, inputs.answers[:200], threads, limit, repeats
            )
            for unit, spread in found.items():
                label = f"{named(name, merges)}: {threads} thread{'s' * (threads > 1)}"
                yield Row("covers", label, spread.median, f"{unit}/s", None, spread.details())


def figures(
    path: Path, merges: int, texts: Sequence[str], threads: int, limit: int, repeats: int
) -> dict[str, Spread]:
    """Positions and covers a second for one pair, tables made."""
    pair = pair_of(ct.Tokenizer.from_file(path), merges)
    first = ct.enumerate_covers(pair, pair.student.encode_batch(texts[:1]))
    count = max(2, limit // max(1, len(first.cover_node)))
    ids = pair.student.encode_batch(texts[:count])
    batch = ct.enumerate_covers(pair, ids, num_threads=threads)
    times = repeated(lambda: ct.enumerate_covers(pair, ids, num_threads=threads), repeats)
    counts = {"positions": len(batch.position_ptr) - 1, "covers": len(batch.cover_node)}
    return {unit: Spread.of([count / s for s in times]) for unit, count in counts.items()}
