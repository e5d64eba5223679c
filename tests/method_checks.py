"""What the tests of the methods to be compared with share: samples, and what any score promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from general_checks import failures
from general_pairs import MODES, Sample, draw_sample
from oracle.pairs import student_kind

pytest.importorskip("torch")

import crosstok as ct
from crosstok import methods
from crosstok.reading import Reading
from crosstok.requests import Request
from crosstok.results import Timings

TOLERANCE = 1e-9
# Pairs a kind of teacher: each with a student of another kind.
PAIRS = 6


def draw(kind: str) -> list[Sample]:
    """`PAIRS` samples whose teacher is of a kind, each with a student of another kind."""
    return [draw_sample(kind, student_kind(kind, 2 * n + 1), 100 + n) for n in range(PAIRS)]


def method_of(
    name: str, fn: Any, pair: Any, mode: str = "renormalize", temperature: float = 1.0, **options: Any
) -> Any:
    """A method, opened; ``fn``: a teacher or a table's function. Rows are wider than the vocabulary."""
    teacher = fn if hasattr(fn, "rows") else ct.TableTeacher(fn)
    reading = Reading(teacher, mode, temperature, 1, Timings())
    return methods.open(name, reading, pair, pair.student.vocab_size + 3, **options)


def of_sample(name: str, sample: Sample, mode: str, **options: Any) -> Any:
    """A method for a sample."""
    return method_of(name, sample.fn, sample.pair, mode, **options)


def request_of(sample: Sample, ended: bool = True) -> Request:
    """The text of a sample."""
    return Request(sample.text, sample.prompt, ended)


def check_all(drawn: list[Sample], check: Callable[[Sample, str], None]) -> None:
    """Run a check on every sample in both modes."""

    def both(sample: Sample) -> None:
        for mode in MODES:
            check(sample, mode)

    assert not (found := failures(drawn, both)), found


def check_shape(sample: Sample, score: Any, ended: bool) -> None:
    """What `Score` promises whatever the method."""
    assert score.student_ids.tolist() == [*sample.ids, *[sample.student.eos] * ended]
    for name in ("logprobs", "lower", "upper", "prefix_lower", "prefix_upper", "noncanonical_mass"):
        values = getattr(score, name)
        assert values.dtype == np.float64 and len(values) == len(score.student_ids), name
        assert not np.isnan(values).any(), name
    assert (score.lower <= score.logprobs).all() and (score.logprobs <= score.upper).all()
    assert score.rows.dtype == np.int64 and (score.rows >= 0).all() and score.status.dtype == np.uint8
