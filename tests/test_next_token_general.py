"""`Scorer.next_token` in the general regime against brute force: after every prefix of a text, with every budget."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import crosstok as ct
import numpy as np
import pytest
from general_checks import Tally, check_next, failures
from general_pairs import MODES, Sample, draw_sample
from oracle import toys
from oracle.pairs import student_kind

SEEDS = range(40, 43)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"tolerance": 0.05},
    {"tolerance": 0.0, "max_rows": 2},
    {"tolerance": 0.0},
)


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest) -> list[Sample]:
    """Samples that no other test file has."""
    return [draw_sample(request.param, student_kind(request.param, seed), seed) for seed in SEEDS]


def distributions(sample: Sample, mode: str, options: dict[str, Any]) -> list[Any]:
    """The distribution after every prefix that has a probability, None after others."""
    scorer, found = sample.scorer(mode, **options), []
    for size in range(len(sample.ids) + 1):
        prefix = sample.ids[:size]
        if sample.truths[mode].probability(prefix)[1] > 0:
            found.append(scorer.next_token(prefix, prompt=sample.prompt))
            continue
        with pytest.raises(ct.ZeroProbabilityError):
            scorer.next_token(prefix, prompt=sample.prompt)
        found.append(None)
    return found


def test_every_prefix(drawn: list[Sample]) -> None:
    tally: Tally = Counter()

    def check(sample: Sample) -> None:
        for mode in MODES:
            for options in OPTIONS:
                for size, following in enumerate(distributions(sample, mode, options)):
                    if following is not None:
                        exact = options == {"tolerance": 0.0}
                        check_next(sample, mode, following, sample.ids[:size], exact, tally)

    assert not (found := failures(drawn, check)), found
    assert tally["distributions"] > 0


def test_tolerance_is_kept(drawn: list[Sample]) -> None:
    for sample in drawn:
        for tolerance in (0.2, 0.01):
            for following in distributions(sample, "renormalize", {"tolerance": tolerance}):
                if following is not None:
                    width = (following.upper.exp() - following.lower.exp()).max().item()
                    assert width <= tolerance * (1 + 1e-9), f"{sample}: {width}"


def test_bounds_close_in(drawn: list[Sample]) -> None:
    """More rows never widen any token's bounds."""
    for sample in drawn:
        budgets = [{}, *({"tolerance": 0.0, "max_rows": rows} for rows in (1, 3, 9, 30))]
        for wide, tight in pairwise(distributions(sample, "renormalize", options) for options in budgets):
            for before, after in zip(wide, tight, strict=True):
                if before is not None:
                    slack = 1e-12
                    assert (after.lower.exp() >= before.lower.exp() * (1 - slack)).all(), str(sample)
                    assert (after.upper.exp() <= before.upper.exp() * (1 + slack)).all(), str(sample)


def test_the_row_is_as_wide_as_asked(drawn: list[Sample]) -> None:
    sample = drawn[0]
    following = sample.scorer("renormalize", width=100).next_token((), prompt=sample.prompt)
    for row in (following.logprobs, following.lower, following.upper):
        assert row.shape == (100,) and str(row.dtype) == "torch.float64"
        assert np.isneginf(row[sample.pair.student.vocab_size :].numpy()).all()


def test_ids_that_no_text_has(drawn: list[Sample]) -> None:
    sample = drawn[0]
    with pytest.raises(ct.NotCanonicalError):
        sample.scorer("renormalize").next_token([sample.student.eos], prompt=sample.prompt)
