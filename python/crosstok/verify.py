"""How far a method's numbers are from the truth, on a user's own texts: scored again to a tight tolerance.

The truth is only known to the reference's own bounds; where these stay wide a position is listed, not dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from crosstok.errors import PlanError, TeacherError, TextError, ZeroProbabilityError
from crosstok.pair import BoolArray, Pair
from crosstok.ragged import FloatArray, IntArray
from crosstok.requests import Ended, Prompts, Request, Texts, requests_of
from crosstok.results import Distributions, NextToken, Score
from crosstok.scorer import Scorer
from crosstok.teacher.protocol import Teacher
from crosstok.teacher.table import TableTeacher

Report = Callable[[str, int, int], None]
Scalar = TypeVar("Scalar", bound=np.generic)

# By how many nats the logarithm of a sum of shares may differ between two readings of the same rows, which a model
# computes in another layout each time. float32: prefixes were up to 1.4e-4 off, and a label is a difference of two.
# In half precision logits around 16 are 2^-3 (bfloat16) or 2^-6 (float16) apart.
ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.5}
TABLE_ROUNDING = 1e-9
# Differences of probabilities below this are rounding in any arithmetic; what tolerance 0 leaves open is below, too.
NO_WIDTH = 4e-12
# Distributions come in float32: their total variation from anything may be off by this.
SINGLE = 1e-5


@dataclass(frozen=True)
class Spread:
    """What a sample of errors looks like. median, p90: values of the sample; at least 50 % and 90 % are no larger."""

    mean: float
    median: float
    p90: float
    worst: float

    @classmethod
    def of(cls, errors: FloatArray) -> Spread | None:
        """The spread of errors, float64 [k]; None of none."""
        if not len(errors):
            return None
        # Values of the sample itself: between a finite and an infinite one there is nothing to interpolate.
        median, p90 = np.quantile(errors, [0.5, 0.9], method="inverted_cdf")
        return cls(float(errors.mean()), float(median), float(p90), float(errors.max()))


@dataclass(frozen=True, eq=False)
class Rows:
    """Whole distributions at the positions drawn; arrays are [k], all float64 but ``at``.

    at: int64, places in `Verification.text` and so on. tv: total variation between the method's distribution and the
    reference's, what either is short of 1 counted as one more token. tv_within: no further than this is tv from the
    total variation between the method's and the true distribution, by the reference's bounds. undecided: the method's
    own undecided mass, which bounds the latter. width: of the reference's widest bounds of a token, as probabilities.
    label_lower, label_upper: its bounds of the text's own token, in nats. drawn: how many positions were; problem: why
    some have no distribution.
    """

    at: IntArray
    tv: FloatArray
    tv_within: FloatArray
    undecided: FloatArray
    width: FloatArray
    label_lower: FloatArray
    label_upper: FloatArray
    drawn: int
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Seconds:
    """Wall time, planning included: labels in batches, distributions one text and one position at a time."""

    labels: float
    reference_labels: float
    rows: float
    reference_rows: float


@dataclass(frozen=True, eq=False)
class Verification:
    """What `verify` found; arrays are per label, [positions], of one text after the other.

    text: int64, places in the texts given. position: int64, places in the text's student tokens, end-of-text included.
    student_ids: int64. logprobs, lower, upper: float64, the method's, in nats, as in `Score`; reference_logprobs,
    reference_lower, reference_upper: the reference's. rows_used, reference_rows: int64, teacher rows. status: uint8,
    the method's. bounds_held: bool, whether the method's bounds meet the reference's, rounding aside, and those of the
    label in the reference's whole distribution, where there is one. texts: how many were scored.
    """

    text: IntArray
    position: IntArray
    student_ids: IntArray
    logprobs: FloatArray
    lower: FloatArray
    upper: FloatArray
    rows_used: IntArray
    status: npt.NDArray[np.uint8]
    reference_logprobs: FloatArray
    reference_lower: FloatArray
    reference_upper: FloatArray
    reference_rows: IntArray
    bounds_held: BoolArray
    rows: Rows
    texts: int
    seconds: Seconds
    reference_tolerance: float
    rounding: float

    @property
    def label_error(self) -> FloatArray:
        """|P(s_i | s_<i) − reference|, as probabilities: float64 [positions]."""
        return np.asarray(np.abs(np.exp(self.logprobs) - np.exp(self.reference_logprobs)))

    @property
    def log_error(self) -> FloatArray:
        """|log P − log reference| in nats: float64 [positions]; infinite where only one of the two is zero."""
        out = np.zeros(len(self.logprobs))
        differ = self.logprobs != self.reference_logprobs
        out[differ] = np.abs(self.logprobs[differ] - self.reference_logprobs[differ])
        return out

    @property
    def label_rmse(self) -> float:
        """Root of the mean square of `label_error`."""
        return float(np.sqrt(np.mean(self.label_error**2)))

    @property
    def closed(self) -> BoolArray:
        """bool [positions]: whether the reference's bounds are as close as they were to be."""
        width = np.exp(self.reference_upper) - np.exp(self.reference_lower)
        return np.asarray(width <= max(self.reference_tolerance, NO_WIDTH))

    @property
    def rows_closed(self) -> BoolArray:
        """bool [k]: the same for the distributions, for all tokens of each."""
        return np.asarray(self.rows.width <= max(self.reference_tolerance, NO_WIDTH))

    @property
    def rows_held(self) -> BoolArray:
        """bool [k]: whether the method's undecided mass is no less than what its distribution is surely off by."""
        surely = self.rows.tv - self.rows.tv_within - np.expm1(self.rounding) - SINGLE
        return np.asarray(surely <= self.rows.undecided)

    @property
    def held(self) -> bool:
        """Whether all bounds held, of labels and of distributions."""
        return bool(self.bounds_held.all() and self.rows_held.all())

    def spreads(self) -> dict[str, Spread | None]:
        """Spreads by name: "tv", "undecided" (what the method says of itself), "label_error", "log_error"."""
        errors = {"tv": self.rows.tv, "undecided": self.rows.undecided}
        errors |= {"label_error": self.label_error, "log_error": self.log_error}
        return {name: Spread.of(values) for name, values in errors.items()}


def verify(
    teacher: Teacher,
    pair: Pair,
    texts: Texts,
    prompts: Prompts = None,
    ended: Ended = True,
    *,
    canonical: str = "renormalize",
    method: str = "auto",
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
    `Scorer` takes it; temperature, canonical and num_threads are the reference's too. sample: how many texts to draw,
    without replacement (None: all). Labels are compared at all of their positions; whole distributions at
    ``positions`` of these, drawn from those after a prefix that has a probability (`Scorer.next_token` with the
    reference's tolerance is what they are compared with). rounding: nats by which bounds may miss each other, None:
    as the teacher's arithmetic has it (`ROUNDING`). seed: of what is drawn. report: takes what is being done, how
    many are, and of how many.

    Raises what `Scorer` and `Scorer.score` raise, errors naming a text by its place in ``texts``; ValueError for a
    sample below 1, fewer than 0 positions, negative rounding, and texts without any student token.
    """
    if (sample is not None and sample < 1) or positions < 0:
        raise ValueError(f"nothing to draw: sample {sample}, positions {positions}")
    if rounding is not None and not rounding >= 0:
        raise ValueError(f"rounding must not be negative: {rounding}")
    used = Scorer(teacher, pair, canonical, method, tolerance, max_rows, temperature, num_threads=num_threads)
    limits = reference_tolerance, reference_max_rows
    reference = Scorer(teacher, pair, canonical, "auto", *limits, temperature, num_threads=num_threads)
    requests = list(requests_of(texts, prompts, ended))
    index = draw(len(requests), sample, seed)
    drawn = [requests[i] for i in index]
    report = report or (lambda name, done, total: None)
    with _named(index):
        labels, seconds = _labels(used, drawn, report, "scoring")
        truth, truth_seconds = _labels(reference, drawn, report, "scoring again")
    if not sum(len(score.student_ids) for score in labels):
        raise ValueError("the texts have no student tokens")
    comparison = _Comparison(used, reference, drawn, index, truth)
    rows = comparison.run(_places(truth, positions, seed), report)
    times = Seconds(seconds, truth_seconds, comparison.seconds, comparison.reference_seconds)
    rounding = _rounding(teacher) if rounding is None else rounding
    return _collect(labels, truth, index, rows, times, reference_tolerance, rounding)


def draw(count: int, size: int | None, seed: int) -> IntArray:
    """int64, rising: ``size`` of ``count`` places, or all of them where that is fewer or None."""
    if size is None or size >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False)).astype(np.int64)


def total_variation(p: FloatArray, q: FloatArray) -> float:
    """Half the sum of |p − q|, probabilities [V]; what either is short of 1 is one more token's."""
    return float((np.abs(p - q).sum() + abs(float(p.sum()) - float(q.sum()))) / 2)


class _Comparison:
    """Whole distributions of the method in use against the reference's, text by text."""

    def __init__(
        self, used: Scorer, reference: Scorer, drawn: list[Request], index: IntArray, truth: list[Score]
    ) -> None:
        self.used, self.reference, self.drawn, self.index, self.truth = used, reference, drawn, index, truth
        self.seconds = self.reference_seconds = 0.0

    def run(self, places: list[IntArray], report: Report) -> Rows:
        """places: positions of each text, rising."""
        parts: list[tuple[float, ...]] = []
        first, done, total, problem = 0, 0, sum(map(len, places)), None
        for text, at in enumerate(places):
            if len(at):
                try:
                    parts += [(first + place, *found) for place, *found in self._text(text, at)]
                except PlanError as error:
                    problem = problem or str(error)
                done += len(at)
                report("comparing distributions", done, total)
            first += len(self.truth[text].student_ids)
        columns = np.array(parts, dtype=np.float64).reshape(len(parts), 7).T
        where, tv, within, undecided, width, lower, upper = columns
        return Rows(where.astype(np.int64), tv, within, undecided, width, lower, upper, total, problem)

    def _text(self, text: int, at: IntArray) -> list[tuple[float, ...]]:
        """Of each position: itself, and the fields of `Rows` in their order."""
        request, ids = self.drawn[text], self.truth[text].student_ids
        start = perf_counter()
        with _named(self.index[text : text + 1]):
            [found] = self.used.distributions([request.text], [request.prompt], [request.ended])
        self.seconds += perf_counter() - start
        out = []
        for place in at.tolist():
            start = perf_counter()
            following = self._following(text, ids[:place])
            self.reference_seconds += perf_counter() - start
            out.append((place, *_compare(found, place, following, int(ids[place]))))
        return out

    def _following(self, text: int, prefix: IntArray) -> NextToken:
        """The reference's distribution, all zero after a prefix that turns out to have no probability."""
        try:
            return self.reference.next_token(prefix, self.drawn[text].prompt)  # type: ignore[arg-type]
        except ZeroProbabilityError:
            nothing = torch.full((self.reference.width,), -torch.inf, dtype=torch.float64)
            return NextToken(nothing, nothing, nothing)
        except TeacherError as error:
            raise TeacherError(error.reason, int(self.index[text])) from error


def _compare(found: Distributions, place: int, following: NextToken, label: int) -> tuple[float, ...]:
    """The fields of `Rows` at one position."""
    mine = found.logprobs[place].double().exp().numpy()
    row, low, high = (x.exp().numpy() for x in (following.logprobs, following.lower, following.upper))
    # The truth lies between low and high at every token, so what it takes from some it gives to others, of which
    # what no token has is one: no more than all can lose, no more than all can win.
    missing = [max(0.0, 1.0 - float(x.sum())) for x in (row, high, low)]
    less = float((row - low).sum()) + max(0.0, missing[0] - missing[1])
    more = float((high - row).sum()) + max(0.0, missing[2] - missing[0])
    bounds = float(following.lower[label]), float(following.upper[label])
    width, undecided = float((high - low).max()), float(found.undecided_mass[place])
    return total_variation(mine, row), min(1.0, less, more), undecided, width, *bounds


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


@contextmanager
def _named(index: IntArray) -> Iterator[None]:
    """Errors about a text of those drawn name its place among those given."""
    try:
        yield
    except (TextError, TeacherError) as error:
        if error.index is None:
            raise
        place = int(index[error.index])
        if isinstance(error, TextError):
            raise TextError(error.reason, place, error.offset) from error
        raise TeacherError(error.reason, place) from error
