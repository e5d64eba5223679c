"""What a further teacher row costs: processor time and memory of `Scorer.distributions` with ever more rows a position.

One short text, the teacher's first unrelated student, a tolerance that is hardly met, so that ``max_rows`` are read at
nearly every position. Each number of rows has a process of its own. A value is the time that a row adds to what fewer
rows take; "MB a row" is what it adds to the peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import crosstok as ct

from . import general, resident
from .fresh import Fresh
from .inputs import Inputs
from .row import Row, Unavailable
from .timing import cpu_seconds

MAX_ROWS = (25, 150, 600)
TOLERANCE = 1e-3
CHARACTERS = 60


def measure(inputs: Inputs) -> Iterator[Row]:
    """The first of `general.STUDENTS` that there is."""
    resident.check()
    files = next(general.of_teacher(inputs), None)
    if files is None:
        raise Unavailable("needs the tokenizer of an unrelated student")
    text, limits = inputs.answers[0][:CHARACTERS], inputs.scaled(MAX_ROWS, (2, 4, 8))
    found = [Fresh(cores=1).call(figures, inputs.teacher, files, text, limit) for limit in limits]
    for (few, cpu, size), (many, more, peak), limit in zip(found, found[1:], limits[1:], strict=False):
        details = {
            "rows": many,
            "seconds": more,
            "peak GB": peak / 1e9,
            "MB a row": (peak - size) / (many - few) / 1e6,
        }
        yield Row(
            "further",
            f"{files.label}: a row, at most {limit}",
            1e3 * (more - cpu) / (many - few),
            "ms",
            None,
            details,
        )


def figures(folder: Path, files: general.Files, text: str, max_rows: int) -> tuple[int, float, int]:
    """Further rows, processor seconds, and bytes beyond the loaded model at the peak."""
    import torch

    from .job import load_model

    torch.set_num_threads(1)
    scorer = ct.Scorer(
        ct.HFTeacher(load_model(folder, "float32")), files.pair(), tolerance=TOLERANCE, max_rows=max_rows
    )
    ct.Scorer(scorer.teacher, scorer.pair).distributions([text])  # tables
    before = resident.now()
    resident.reset_peak()
    rows: list[int] = []

    def read() -> None:
        [found] = scorer.distributions([text])
        rows.append(0 if found.rows is None else int(found.rows.sum()))

    seconds = cpu_seconds(read)
    return rows[0], seconds, resident.peak() - before
