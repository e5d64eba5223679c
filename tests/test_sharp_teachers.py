"""Teachers that are all but certain, in the general regime: bounds hundreds of nats apart are no reason for NaN."""

from __future__ import annotations

from typing import Any

import crosstok as ct
import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.results import Status
from test_refine import demo_pair

TEXTS = ["abc d", "Return a copy of the", "def f(x):\n  return 1", "12 + 5", "don't", "\n\n x"]


@pytest.fixture(scope="module")
def demo(one_thread: None) -> tuple[Any, Any]:
    """`demo_pair`."""
    return demo_pair()


@pytest.mark.parametrize("options", [{}, {"tolerance": 0.1, "max_rows": 4}], ids=["closing", "tolerance"])
@pytest.mark.parametrize("temperature", [0.1, 0.05, 0.02, 0.005, 0.0005])
def test_rows_are_distributions_or_nothing(
    demo: tuple[Any, Any], temperature: float, options: dict[str, Any]
) -> None:
    teacher, pair = demo
    for row in ct.Scorer(teacher, pair, temperature=temperature, **options).distributions(TEXTS):
        sums, undecided = row.logprobs.exp().sum(1).numpy(), np.asarray(row.undecided_mass)
        empty = row.status == Status.UNSUPPORTED
        np.testing.assert_allclose(sums[~empty], 1, rtol=0, atol=1e-5)
        assert np.isin(sums[empty].round(5), [0, 1]).all()
        assert np.isfinite(undecided).all()
        assert (undecided[row.status == Status.EXACT] == 0).all()


@pytest.mark.parametrize("temperature", [0.02, 0.0005])
def test_scores_are_numbers(demo: tuple[Any, Any], temperature: float) -> None:
    teacher, pair = demo
    for score in ct.Scorer(teacher, pair, temperature=temperature).score(TEXTS):
        for values in (score.logprobs, score.lower, score.upper, score.prefix_lower, score.prefix_upper):
            assert not np.isnan(values).any()
        assert ((score.noncanonical_mass >= 0) & (score.noncanonical_mass <= 1 + 1e-9)).all()
        assert ((score.inadmissible_mass >= 0) & (score.inadmissible_mass <= 1)).all()


def test_rows_without_an_estimate_in_float64_say_that_nothing_is_known(demo: tuple[Any, Any]) -> None:
    """Of the smallest temperature: all that has a next token is less than any number, beside the upper bound."""
    teacher, pair = demo
    rows = ct.Scorer(teacher, pair, temperature=0.0005).distributions(TEXTS)
    empty = [np.isneginf(row.logprobs.numpy()).all(axis=1) for row in rows]
    assert any(found.any() for found in empty)
    for row, found in zip(rows, empty, strict=True):
        assert row.status is not None
        assert (row.status[found] == Status.UNSUPPORTED).all()
        assert (np.asarray(row.undecided_mass)[found] == 1).all()
