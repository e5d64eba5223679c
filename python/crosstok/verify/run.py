"""From texts to a `Verification`: draw, score, score again, compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from crosstok.methods import CERTIFIED
from crosstok.pair import BoolArray, Pair
from crosstok.ragged import FloatArray, IntArray
from crosstok.requests import Ended, Prompts, Request, Texts, requests_of
from crosstok.results import Score
from crosstok.scorer import Scorer
from crosstok.teacher.protocol import Teacher
from crosstok.teacher.table import TableTeacher
from crosstok.verify.comparison import Comparison, Report, named
from crosstok.verify.verification import NO_WIDTH, Rows, Seconds, Verification

Scalar = TypeVar("Scalar", bound=np.generic)

# By how many nats the logarithm of a sum of shares may differ between two readings of the same rows, which a model
# computes in another layout each time. float32: prefixes were up to 1.4e-4 off, and a label is a difference of two.
# In half precision logits around 16 are 2^-3 (bfloat16) or 2^-6 (float16) apart.
ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.5}
TABLE_ROUNDING = 1e-9


def verify(
    teacher: Teacher,
    pair: Pair,
    texts: Texts,
    prompts: Prompts = None,
    ended: Ended = True,
    *,
    canonical: str = "renormalize",
    method: str = "auto",
    method_options: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    max_rows: int | None = None,
    temperature: float = 1.0,
    num_threads: int | None = None,
    reference_tolerance: float = 0.001,
    reference_max_rows: int | None = 2000,
    sample: int | None = None,
    positions: int = 100,
    rounding: float | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Verification:
    """Score texts with the method in use and again to ``reference_tolerance``, and compare.

    texts, prompts, ended: as `Scorer.score` takes them, finite. canonical to num_threads: the method in use, as
    `Scorer` takes it; temperature, canonical and num_threads are the reference's too. Without max_rows a tolerance is
    read for until it is met, at all positions of the texts that have one to be compared. sample: how many texts to
    draw, without replacement (None: all). Labels are compared at all of their positions; whole distributions at
    ``positions`` of these, drawn from those after a prefix that has a probability (`Scorer.next_token` with the
    reference's tolerance is what they are compared with). rounding: nats by which bounds may miss each other, None: as
    the teacher's arithmetic has it (`ROUNDING`). seed: of what is drawn. report: takes what is being done, how many
    are, and of how many.

    Raises what `Scorer` and `Scorer.score` raise, errors naming a text by its place in ``texts``; ValueError for a
    sample below 1, fewer than 0 positions, negative rounding, and texts without any student token.
    """
    if (sample is not None and sample < 1) or positions < 0:
        raise ValueError(f"nothing to draw: sample {sample}, positions {positions}")
    if rounding is not None and not rounding >= 0:
        raise ValueError(f"rounding must not be negative: {rounding}")
    shared: dict[str, Any] = {"temperature": temperature, "num_threads": num_threads}
    options = method, tolerance, max_rows
    used = Scorer(teacher, pair, canonical, *options, method_options=method_options, **shared)
    limits = reference_tolerance, reference_max_rows
    reference = Scorer(teacher, pair, canonical, "auto", *limits, **shared)
    requests = list(requests_of(texts, prompts, ended))
    index = draw(len(requests), sample, seed)
    drawn = [requests[i] for i in index]
    report = report or (lambda name, done, total: None)
    with named(index):
        labels, seconds = _labels(used, drawn, report, "scoring")
        truth, truth_seconds = _labels(reference, drawn, report, "scoring again")
    if not sum(len(score.student_ids) for score in labels):
        raise ValueError("the texts have no student tokens")
    comparison = Comparison(used, reference, drawn, index, truth)
    rows = comparison.run(_places(truth, positions, seed), report)
    times = Seconds(seconds, truth_seconds, comparison.seconds, comparison.reference_seconds)
    rounding = _rounding(teacher) if rounding is None else rounding
    return _collect(labels, truth, index, rows, times, reference_tolerance, rounding, method in CERTIFIED)


def draw(count: int, size: int | None, seed: int) -> IntArray:
    """int64, rising: ``size`` of ``count`` places, or all of them where that is fewer or None."""
    if size is None or size >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False)).astype(np.int64)


def _labels(scorer: Scorer, requests: list[Request], report: Report, name: str) -> tuple[list[Score], float]:
    """Scores of all requests, and the seconds that they took."""
    columns = zip(*((request.text, request.prompt, request.ended) for request in requests), strict=True)
    texts, prompts, ended = columns if requests else ((), (), ())
    start, scores = perf_counter(), []
    for score in scorer.iter_scores(list(texts), list(prompts), list(ended)):
        scores.append(score)
        report(name, len(scores), len(requests))
    return scores, perf_counter() - start


def _places(truth: Sequence[Score], count: int, seed: int) -> list[IntArray]:
    """Positions of each text to compare distributions at: of all that follow a prefix with a probability."""
    possible = [np.concatenate([[True], score.prefix_upper > -np.inf])[:-1] for score in truth]
    sizes = [int(some.sum()) for some in possible]
    chosen = np.zeros(sum(sizes), dtype=bool)
    # Another stream of random numbers than that of the texts.
    chosen[draw(len(chosen), count, seed + 1)] = True
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    return [np.flatnonzero(some)[part] for some, part in zip(possible, parts, strict=True)]


def _collect(
    labels: list[Score],
    truth: list[Score],
    index: IntArray,
    rows: Rows,
    seconds: Seconds,
    tolerance: float,
    rounding: float,
    certified: bool,
) -> Verification:
    """Everything put together."""
    sizes = [len(score.student_ids) for score in truth]
    lower, upper = _all(s.lower for s in labels), _all(s.upper for s in labels)
    low, high = _all(s.lower for s in truth), _all(s.upper for s in truth)
    held = _meet(lower, upper, low, high, rounding)
    held[rows.at] &= _meet(lower[rows.at], upper[rows.at], rows.label_lower, rows.label_upper, rounding)
    return Verification(
        text=np.repeat(index, sizes),
        position=_all(np.arange(size) for size in sizes),
        student_ids=_all(s.student_ids for s in truth),
        logprobs=_all(s.logprobs for s in labels),
        lower=lower,
        upper=upper,
        rows_used=_all(s.rows for s in labels),
        status=_all(s.status for s in labels),
        reference_logprobs=_all(s.logprobs for s in truth),
        reference_lower=low,
        reference_upper=high,
        reference_rows=_all(s.rows for s in truth),
        bounds_held=held,
        certified=certified,
        rows=rows,
        texts=len(truth),
        seconds=seconds,
        reference_tolerance=tolerance,
        rounding=rounding,
    )


def _all(parts: Iterator[npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
    return np.concatenate(list(parts))


def _meet(
    lower: FloatArray, upper: FloatArray, low: FloatArray, high: FloatArray, rounding: float
) -> BoolArray:
    """Whether intervals of logarithms have a point in common, or miss each other by rounding only."""
    slack = float(np.exp(rounding))
    below = np.exp(lower) <= np.exp(high) * slack + NO_WIDTH
    above = np.exp(low) <= np.exp(upper) * slack + NO_WIDTH
    return np.asarray(below & above)


def _rounding(teacher: Teacher) -> float:
    """What `ROUNDING` says of a teacher; of one that is not known, as in float32."""
    if isinstance(teacher, TableTeacher):
        return TABLE_ROUNDING
    dtype = getattr(getattr(teacher, "model", None), "dtype", torch.float32)
    return ROUNDING.get(dtype, ROUNDING[torch.float32])
