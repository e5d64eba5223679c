"""Loading: seconds to a tokenizer, to a pair and to its first plan, and what they take of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import crosstok as ct

from . import resident
from .fresh import Fresh
from .inputs import Inputs, merges_of, pair_of
from .row import Bar, Row
from .timing import Spread, seconds

# Seconds to load any tokenizer.
BAR = Bar(2.0)


def measure(inputs: Inputs) -> Iterator[Row]:
    """Every tokenizer, each in a process of its own. The file is in the system's cache."""
    resident.check()
    repeats = inputs.scaled(5, 2)
    for name, path in inputs.files.items():
        path.read_bytes()
        times, sizes = Fresh().call(figures, path, inputs.answers[0], repeats)
        for what, spread in times.items():
            bar = BAR if what == "tokenizer" else None
            yield Row("load", f"{name}: {what}", spread.median, "s", bar, spread.details())
        for what, size in sizes.items():
            yield Row("load", f"{name}: memory after the {what}", size / 1e6, "MB")


def figures(path: Path, text: str, repeats: int) -> tuple[dict[str, Spread], dict[str, int]]:
    """Seconds of each step, and bytes that are resident after it beyond what was before."""
    before = resident.now()
    steps: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for _ in range(repeats):
        for what, time in _steps(path, text):
            steps.setdefault(what, []).append(time)
            sizes.setdefault(what, resident.now() - before)
    kept = {what: sizes[what] for what in ("tokenizer", "first plan")}
    return {what: Spread.of(times) for what, times in steps.items()}, kept


def _steps(path: Path, text: str) -> Iterator[tuple[str, float]]:
    """From file to plan, everything anew."""
    made: list[ct.Tokenizer] = []
    yield "tokenizer", seconds(lambda: made.append(ct.Tokenizer.from_file(path)))
    merges = merges_of(made[0])[0]
    yield "student of its first merges", seconds(lambda: made[0].first_merges(merges))
    pair = pair_of(made[0], merges)
    eos = pair.teacher_eos, pair.student_eos
    yield "pair", seconds(lambda: ct.Pair(pair.teacher, pair.student, *eos))
    yield "first plan", seconds(lambda: pair.plan([text], num_threads=1))
