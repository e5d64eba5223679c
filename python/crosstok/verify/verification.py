"""What was found: errors of labels and of distributions, and how much of them is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosstok.pair import BoolArray
from crosstok.ragged import FloatArray, IntArray

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
    own undecided mass. width: of the reference's widest bounds of a token, as probabilities. label_lower, label_upper:
    its bounds of the text's own token, in nats. certified_tv: tv of what ``undecided`` bounds, which is the method's
    distribution without its correction, if it has one. drawn: how many positions were; problem: why some have no
    distribution.
    """

    at: IntArray
    tv: FloatArray
    tv_within: FloatArray
    undecided: FloatArray
    width: FloatArray
    label_lower: FloatArray
    label_upper: FloatArray
    certified_tv: FloatArray
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
    label in the reference's whole distribution, where there is one. certified: whether the method says how far off its
    distributions are (`crosstok.methods.CERTIFIED`). texts: how many were scored.
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
    certified: bool
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
    def bounded(self) -> BoolArray:
        """bool [positions]: whether the method's bounds say anything."""
        return np.asarray((self.lower > -np.inf) | (self.upper < 0))

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
        """bool [k]: whether the method's undecided mass is no less than what its distribution is surely off by.

        True of methods that say nothing of the kind.
        """
        if not self.certified:
            return np.ones(len(self.rows.at), dtype=bool)
        surely = self.rows.certified_tv - self.rows.tv_within - np.expm1(self.rounding) - SINGLE
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
