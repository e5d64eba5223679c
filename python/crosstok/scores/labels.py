"""From the probabilities of student prefixes to scores: differences, and what is known of each position."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crosstok.masses.prefixes import Prefixes
from crosstok.pair import Plan
from crosstok.ragged import FloatArray
from crosstok.results import Score, Source, Status

# No width of a probability counts as more than none below this: it is rounding, or what a search with tolerance 0
# leaves undecided of two positions.
_NO_WIDTH = 4e-12


def score_of(
    plan: Plan,
    prefixes: Prefixes,
    text: int,
    ended: bool,
    source: Source | None = None,
    tolerance: float | None = None,
) -> Score:
    """The score of a plan's text; with end-of-text where it is ended. tolerance: what was to be certified, if any."""
    ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
    if ended:
        ids = np.append(ids, plan.pair.student_eos[0])
    start = int(prefixes.first[text])
    before, after = slice(start, start + len(ids)), slice(start + 1, start + 1 + len(ids))
    both = slice(before.start, after.stop)
    if prefixes.bounded:
        low, high = prefixes.lower[both], prefixes.upper[both]
        # Values that never rise, as the bounds: each label's lies between its bounds, and their sum is the total.
        value = np.clip(np.minimum.accumulate(np.maximum(prefixes.estimate[both], low)), low, high)
        logprobs, lower, upper = conditionals(low, value, high)
    else:
        logprobs = lower = upper = _differences(prefixes.estimate[after], prefixes.estimate[before])
    return Score(
        student_ids=ids,
        logprobs=logprobs,
        lower=lower,
        upper=upper,
        prefix_lower=prefixes.lower[after],
        prefix_upper=prefixes.upper[after],
        noncanonical_mass=prefixes.noncanonical[after],
        inadmissible_mass=prefixes.dead[before],
        rows=prefixes.rows[before] + prefixes.further[after],
        status=_status(prefixes, both, lower, upper, tolerance),
        source=source,
    )


def conditionals(
    lower: FloatArray, estimate: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """log P(s_i | s_<i) and its bounds, float64 [k] each, from those of P(s_1..s_i) of k + 1 successive positions.

    In the order value, lower, upper: E_i / E_i-1 between the bounds L_i / U_i-1 and min(1, U_i / L_i-1). −inf where
    either probability is certainly zero.
    """
    possible = (upper[1:] > -np.inf) & (upper[:-1] > -np.inf)
    low = _differences(lower[1:], upper[:-1])
    high = np.where(possible, 0.0, -np.inf)
    bounded = possible & (lower[:-1] > -np.inf)
    high[bounded] = np.minimum(0.0, upper[1:][bounded] - lower[:-1][bounded])
    low = np.minimum(low, high)
    value = _differences(estimate[1:], estimate[:-1])
    # With nothing estimated to be in before or after, the upper bounds are all that is known.
    unknown = possible & np.isneginf(estimate[:-1])
    value[unknown] = upper[1:][unknown] - upper[:-1][unknown]
    return np.clip(value, low, high), low, high


def _differences(after: FloatArray, before: FloatArray) -> FloatArray:
    """after − before, −inf where either is."""
    possible = (after > -np.inf) & (before > -np.inf)
    out = np.full(len(after), -np.inf)
    out[possible] = after[possible] - before[possible]
    return out


def _status(
    prefixes: Prefixes, both: slice, lower: FloatArray, upper: FloatArray, tolerance: float | None
) -> npt.NDArray[np.uint8]:
    """What is known of labels, from their bounds and from those of the positions before and after each."""
    exact = prefixes.lower[both] == prefixes.upper[both]
    status = np.where(exact[1:] & exact[:-1], Status.EXACT, Status.ESTIMATED)
    if tolerance is not None:
        narrow = np.exp(upper) - np.exp(lower) <= max(tolerance, _NO_WIDTH)
        status[narrow & (status == Status.ESTIMATED)] = Status.CERTIFIED
    impossible = np.isneginf(prefixes.upper[both])
    status[prefixes.thin[both][1:] | impossible[1:] | impossible[:-1]] = Status.UNSUPPORTED
    return status.astype(np.uint8)
