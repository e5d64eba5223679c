"""Scores of methods that bound nothing."""

from __future__ import annotations

import numpy as np

from crosstok.errors import PlanError
from crosstok.pair import BoolArray
from crosstok.ragged import FloatArray, IntArray
from crosstok.results import Score, Status


def score_without_bounds(
    student_ids: IntArray,
    logprobs: FloatArray,
    noncanonical: FloatArray,
    inadmissible: FloatArray,
    rows: IntArray,
    thin: BoolArray,
) -> Score:
    """A score whose bounds say nothing; all arrays are [labels], see `Score`.

    thin: bool, labels that depend on teacher prefixes with next to no canonical mass. They are unsupported, as are
    those without a value (−inf); all others are estimated.
    """
    nothing, everything = np.full(len(logprobs), -np.inf), np.zeros(len(logprobs))
    status = np.where(thin | np.isneginf(logprobs), Status.UNSUPPORTED, Status.ESTIMATED)
    return Score(
        student_ids=student_ids,
        logprobs=logprobs,
        lower=nothing,
        upper=everything,
        prefix_lower=nothing.copy(),
        prefix_upper=everything.copy(),
        noncanonical_mass=noncanonical,
        inadmissible_mass=inadmissible,
        rows=rows,
        status=status.astype(np.uint8),
    )


def refuse_sparse(method: str, top_k: int | None) -> None:
    """Raise PlanError for sparse distributions."""
    if top_k is not None:
        raise PlanError(f"method {method!r} has no sparse distributions: leave out top_k")


def refuse_distributions(method: str) -> PlanError:
    """The error of a method that has labels' probabilities only."""
    return PlanError(f"method {method!r} has no distributions, only scores")
