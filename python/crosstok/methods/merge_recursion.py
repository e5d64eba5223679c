"""`method="recursion"`: the paper's merge recursion behind the calls of a scorer (`crosstok.recursion`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosstok.methods.unbounded import refuse_distributions
from crosstok.pair import Pair
from crosstok.reading import Reading
from crosstok.recursion import BUDGET, Recursed, check_symbols, recursions
from crosstok.requests import Request
from crosstok.results import Distributions, Score, Status


@dataclass(frozen=True, eq=False)
class MergeRecursion:
    """Exact, or refused: see `crosstok.recursion`. budget: steps, and teacher prefixes, for each student prefix.

    Raises PlanError for a pair that the recursion does not hold for, whatever the text.
    """

    reading: Reading
    pair: Pair
    width: int
    budget: int = BUDGET

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f"budget must be positive, not {self.budget}")
        check_symbols(self.pair.teacher, self.pair.student)

    def score(self, batch: Sequence[Request]) -> list[Score]:
        """Scores whose bounds are their values. Masses are not known to the recursion, and given as 0; rows are those
        that a position needs, whether others need them as well or not.

        Raises what `crosstok.recursion.recursions` does: PlanError for a text without a prompt where a tokenizer puts a
        space before texts, and for what takes too long.
        """
        reading = self.reading
        found = recursions(
            reading.teacher, self.pair, batch, reading.canonical, reading.temperature, self.budget
        )
        return [_score(recursed) for recursed in found]

    def distributions(self, batch: Sequence[Request], top_k: int | None = None) -> list[Distributions]:
        """Raises PlanError: each entry of each row would be a recursion of its own."""
        raise refuse_distributions("recursion")


def _score(recursed: Recursed) -> Score:
    logprobs, prefix = recursed.logprobs, recursed.log_p[1:]
    nothing = np.zeros(len(logprobs))
    status = np.where(np.isneginf(logprobs), Status.UNSUPPORTED, Status.EXACT).astype(np.uint8)
    return Score(
        student_ids=recursed.student_ids,
        logprobs=logprobs,
        lower=logprobs,
        upper=logprobs,
        prefix_lower=prefix,
        prefix_upper=prefix,
        noncanonical_mass=nothing,
        inadmissible_mass=nothing.copy(),
        rows=recursed.rows[1:],
        status=status,
    )
