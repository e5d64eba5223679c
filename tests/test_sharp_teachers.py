"""Teachers that are all but certain, in the general regime: bounds hundreds of nats apart are no reason for NaN."""

from __future__ import annotations

from typing import Any

import crosstok as ct
import numpy as np
import pytest

pytest.importorskip("torch")

import real
from crosstok.distributions.closing import NO_TOKEN, Leaves
from crosstok.distributions.estimates import accounts
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


@pytest.mark.parametrize(("hidden", "undecided"), [(0.0, 0.0), (5e-7, 1.0)])
def test_where_nearly_all_is_out_the_rest_may_be_hidden_by_rounding(hidden: float, undecided: float) -> None:
    """Of two certain leaves one is out and the other next to nothing: the sum of both says nothing of a third one."""
    two, true = np.zeros(2, dtype=np.int64), np.ones(2, dtype=bool)
    leaves = Leaves(two, two, two, np.array([NO_TOKEN, 7]), true, true, np.array([1.0, 1e-32]), true)
    total, most, found = accounts(leaves, np.zeros(1), np.array([hidden]))
    assert total.tolist() == [1e-32] and found == pytest.approx([undecided], abs=1e-12)
    assert most == pytest.approx([1e-32 + hidden])


@pytest.mark.parametrize("temperature", [0.03, 0.05])
def test_rows_of_a_large_vocabulary_lie_within_the_bounds_of_their_tokens(
    demo: tuple[Any, Any], temperature: float
) -> None:
    """Once a row was called exact that had all of its mass on a token with 1e-86 of it."""
    teacher, pair = demo
    gemma3 = ct.Pair(pair.teacher, real.load("gemma3").tok, student_eos=1)
    scorer = ct.Scorer(teacher, gemma3, temperature=temperature)
    [rows] = scorer.distributions(["  \n\n\tdef f(x):\n    return x**2  # été naïve 中文字\n"])
    for i in (4, 5, 6):
        bounds = scorer.next_token(rows.student_ids[:i].tolist())
        row = rows.logprobs[i].double().exp()
        over = float((row - bounds.upper.exp()).clamp(min=0).sum())
        under = float((bounds.lower.exp() - row).clamp(min=0).sum())
        assert max(over, under) <= float(rows.undecided_mass[i]) + 1e-5, i
