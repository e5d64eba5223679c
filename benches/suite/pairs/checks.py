"""What has to hold of every score, whatever the pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import crosstok as ct
import numpy as np
import torch

from ..row import Bar, Row
from .baseline import Baseline
from .decisions import Student
from .texts import Text

# Two float32 forwards over a few hundred tokens differ by up to this in a sum of log-probabilities (suite/exact.py);
# counted is also what is beyond 1e-4.
ROUNDING = {torch.float32: 3e-4, torch.float64: 1e-5}
CLOSE, NONE = 1e-4, Bar(0)


def checks(
    name: str,
    student: Student,
    texts: Sequence[Text],
    scores: Sequence[ct.Score],
    known: Sequence[Baseline],
    rounding: float,
) -> Iterator[Row]:
    """Totals, order of bounds and probabilities of bytes, for one student."""
    differences = np.array([abs(score.total - base.total) for score, base in zip(scores, known, strict=True)])
    yield _worst(f"{name}: total against plain forwards", differences, rounding, "texts")
    ends = sum(bool(score.prefix_lower[-1] != score.prefix_upper[-1]) for score in scores)
    yield Row("checks", f"{name}: totals with two bounds", ends, "", NONE)
    yield Row("checks", f"{name}: values beyond bounds, or NaN", _disordered(scores), "", NONE)
    for which in ("lower", "upper"):
        excess = np.concatenate(
            [_excess(student, *each, which) for each in zip(texts, scores, known, strict=True)]
        )
        what = f"{name}: {which} log P(s_1..s_i) over its bytes'"
        yield _worst(what, excess, rounding, "positions")


def _worst(what: str, values: np.ndarray[tuple[int], np.dtype[np.float64]], bar: float, unit: str) -> Row:
    details = {unit: len(values), "beyond 1e-4": int((values > CLOSE).sum())}
    return Row("checks", what, float(values.max(initial=-np.inf)), "nats", Bar(bar), details)


def _disordered(scores: Sequence[ct.Score]) -> int:
    """Positions at which lower, value and upper are not in this order (rounding allowed), or not numbers."""
    count = 0
    for score in scores:
        ordered = (score.lower <= score.logprobs + 1e-9) & (score.logprobs <= score.upper + 1e-9)
        ordered &= (score.prefix_lower <= score.prefix_upper + 1e-9) & (score.upper <= 1e-9)
        count += int((~ordered).sum())  # a comparison with NaN is false
    return count


def _excess(
    student: Student, text: Text, score: ct.Score, known: Baseline, which: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """float64 [tokens]: log P(s_1..s_i) less log P of its bytes. A token that is only a dummy prefix has none."""
    ends = student.ends(score.student_ids[:-1].tolist(), text.prompt is None)
    prefix = score.prefix_lower if which == "lower" else score.prefix_upper
    return np.array([prefix[i] - known.at_byte[end] for i, end in enumerate(ends) if end > 0])
