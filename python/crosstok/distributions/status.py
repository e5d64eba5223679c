"""What is known of each row of a distribution: statuses, and the check on raw sums that comes before any other use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from crosstok.errors import TargetsError
from crosstok.masses.aggregator import shares
from crosstok.masses.prefixes import THIN, Prefixes
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray
from crosstok.results import Status
from crosstok.targets import RAW_ERROR

StatusArray = npt.NDArray[np.uint8]

# No more than this counts as undecided by a tolerance below it: it is rounding, or what a search with tolerance 0
# leaves.
_NEXT_TO_NOTHING = 4e-12
# A difference of shares below this is rounding.
_ROUNDING = 1e-12


def status_of(undecided: FloatArray, unsupported: BoolArray, tolerance: float | None = None) -> StatusArray:
    """uint8 [rows]: the `Status` of rows, float64 [rows], of which so much is undecided; see `Distributions`.

    unsupported: bool [rows], they say nothing, or hang on what is next to nothing.
    """
    status = np.full(len(undecided), Status.ESTIMATED, dtype=np.uint8)
    if tolerance is not None:
        status[undecided <= max(tolerance, _NEXT_TO_NOTHING)] = Status.CERTIFIED
    status[undecided == 0] = Status.EXACT
    status[unsupported] = Status.UNSUPPORTED
    return status


def exact_status(
    plan: Plan, prefixes: Prefixes, text: int, canonical: str, log_totals: FloatArray
) -> StatusArray:
    """uint8 [n + 1]: the `Status` of a text's rows in the regimes "same" and "subset".

    canonical: as in `Scorer`. log_totals: [n + 1], what the rows sum to. Raises TargetsError for a sum above 1.
    """
    totals = np.exp(np.asarray(log_totals, dtype=np.float64))
    check_sums(totals)
    through = _through_weak(plan, prefixes, text, canonical, len(totals))
    return status_of(np.zeros(len(totals)), (totals == 0) | (through > THIN * totals))


def row_totals(logprobs: torch.Tensor) -> FloatArray:
    """float64 [rows]: log of what rows, float [rows, width], sum to."""
    totals: FloatArray = logprobs.logsumexp(1).double().cpu().numpy()
    return totals


def check_sums(shares_of: FloatArray, first: int = 0) -> None:
    """Raise TargetsError where raw sums, float64 [rows], are more than all that there is, 1, or NaN.

    first: the number of the first of the rows. Something was counted twice, or counted for certain and ruled out.
    """
    if (wrong := np.flatnonzero(~(shares_of <= 1 + RAW_ERROR))).size:
        row = int(wrong[0])
        raise TargetsError(
            f"row {first + row}: its raw probabilities sum to {shares_of[row]:.6g} of what they are part of: "
            "a mistake in crosstok, not in your data"
        )


def _through_weak(plan: Plan, prefixes: Prefixes, text: int, canonical: str, rows: int) -> FloatArray:
    """float64 [rows]: what of each row comes through nodes with next to no canonical mass, as a share of P(s_1..s_i).

    The covers of s_1..s_i, but for those that end right there: of these, what comes through the rows after them.
    """
    first, masses = int(prefixes.first[text]), prefixes.masses
    nodes = slice(int(plan.node_ptr[text]), int(plan.node_ptr[text + 1]))
    depth, parent, weak = plan.node_depth[nodes], plan.node_parent[nodes], prefixes.weak[nodes]
    mass = shares(prefixes.log_q[nodes], prefixes.estimate[first + depth])
    below_weak = (parent >= 0) & prefixes.weak[np.maximum(parent, 0)]
    total = masses.kept[nodes] if canonical == "mask" else 1.0 - masses.dead[nodes]
    beyond = prefixes.weak_share[first : first + rows] - np.bincount(depth, mass * below_weak, rows)
    beyond[beyond < _ROUNDING] = 0.0
    found: FloatArray = beyond + np.bincount(depth, mass * weak * total, rows)
    return found
