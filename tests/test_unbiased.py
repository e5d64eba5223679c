"""`method="unbiased"`: corrected rows are right on average, as brute force says, and losses take them as they are.

Whatever is drawn comes from seeds, so nothing here is left to chance. About 20,000 numbers are compared with their
expectations, each within 4.5 standard errors and what 8 unseen draws would move: of as many fair ones 0.14 would be
out by chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from general_checks import failures
from general_pairs import MODES, Sample
from method_checks import draw, of_sample, request_of
from oracle import toys
from test_refine import demo_pair

torch = pytest.importorskip("torch")

import crosstok as ct  # noqa: E402
from crosstok.correction import NOWHERE, Correction  # noqa: E402
from crosstok.errors import PlanError  # noqa: E402
from crosstok.methods import unbiased  # noqa: E402
from crosstok.methods.drawn import drawable  # noqa: E402
from crosstok.requests import Request  # noqa: E402

Floats = npt.NDArray[np.float64]
pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = 2
DRAWS = 500
SEEDS = 300
ERRORS, UNSEEN, FLOAT32 = 4.5, 8, 3e-6


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest) -> list[Sample]:
    """Samples whose teacher is of a kind."""
    return draw(request.param)[:PAIRS]


def found(sample: Sample, mode: str = "renormalize", **options: Any) -> Any:
    """A sample's distributions, with everything looked up and drawn unless the options say otherwise."""
    method = of_sample("unbiased", sample, mode, **{"row_share": 0.0, "max_steps": 200} | options)
    (rows,) = method.distributions([request_of(sample)])
    return rows


def corrected(rows: Any) -> Floats:
    """float64 [n + 1, width]."""
    values: Floats = rows.correction.apply(rows.logprobs).double().numpy()
    return values


def truth(sample: Sample, mode: str, rows: Any) -> tuple[Floats, Floats]:
    """Bounds of what corrected rows should be on average: P(s_1..s_i, v), on the scale of the rows.

    What no next token has is within them: brute force counts a prefix for a token as soon as it is in, whatever part of
    it turns out not to be admissible later.
    """
    known, scale = sample.truths[mode], np.exp(rows.correction.scale.numpy())
    low, high = np.zeros(rows.logprobs.shape), np.zeros(rows.logprobs.shape)
    for i in np.flatnonzero(scale).tolist():
        parts = known.next_tokens(sample.ids[:i])
        lost = max(0.0, known.probability(sample.ids[:i])[1] - sum(part[0] for part in parts.values()))
        high[i] = lost / scale[i]
        for token, part in parts.items():
            low[i, token] = part[0] / scale[i]
            high[i, token] += part[1] / scale[i]
    return low, high


def slack(rows: Any, draws: int) -> Floats:
    """float64 [n + 1, width]: how far the mean of some draws may be from its expectation."""
    fixed = rows.correction
    squares, unit = np.zeros(rows.logprobs.shape), np.full(len(rows.logprobs), 1 / draws)
    mass = fixed.mass.double().numpy()
    np.maximum.at(unit, fixed.row, mass)
    for ids in (fixed.given_to, fixed.taken_from):
        some = ids != NOWHERE
        np.add.at(squares, (fixed.row[some], ids[some]), draws * mass[some] ** 2)
    mean = corrected(rows) - rows.logprobs.double().exp().numpy()
    errors = np.sqrt(np.maximum(squares - mean**2, 0) / draws)
    found: Floats = ERRORS * errors + UNSEEN * unit[:, None] + FLOAT32
    return found


def check_mean(sample: Sample, mode: str, rows: Any, draws: int) -> None:
    """Whether the mean of some draws is what it should be."""
    low, high = truth(sample, mode, rows)
    values, limit = corrected(rows), slack(rows, draws)
    assert not rows.correction.stopped.any()
    assert np.all(values >= low - limit), (mode, np.max(low - limit - values))
    assert np.all(values <= high + limit), (mode, np.max(values - high - limit))


def test_corrected_rows_are_right_on_average(drawn: list[Sample]) -> None:
    def check(sample: Sample) -> None:
        for mode in MODES:
            check_mean(sample, mode, found(sample, mode, draws=DRAWS), DRAWS)

    assert not (wrong := failures(drawn, check)), wrong


def test_tokens_that_are_not_looked_up_are_drawn_too(drawn: list[Sample]) -> None:
    """Most of a toy's mass is light at this share of a row."""

    def check(sample: Sample) -> None:
        check_mean(sample, "renormalize", found(sample, draws=DRAWS, row_share=0.03), DRAWS)

    assert not (wrong := failures(drawn, check)), wrong


@pytest.fixture(scope="module")
def flipping() -> Sample:
    """A sample whose closings are often wrong."""
    return draw("qwen")[0]


def test_single_draws(flipping: Sample) -> None:
    """Their mean over seeds, and their variance: at most 2 · flip rate · (mass of a draw)², and with k draws 1/k."""
    estimate = found(flipping).logprobs.double().exp().numpy()
    many = found(flipping, draws=5000)
    mean, units, moved = corrected(many), np.zeros(len(estimate)), np.zeros(len(estimate))
    np.maximum.at(units, many.correction.row, 5000 * many.correction.mass.numpy())
    np.add.at(moved, many.correction.row, 1 / 5000)
    spread = []
    for draws in (1, 4):
        each = [corrected(found(flipping, draws=draws, seed=seed)) for seed in range(SEEDS)]
        errors = np.std(each, axis=0) / np.sqrt(SEEDS)
        limit = ERRORS * errors + UNSEEN * units[:, None] / SEEDS + FLOAT32 + slack(many, 5000)
        assert np.all(np.abs(np.mean(each, axis=0) - mean) <= limit)
        spread.append(np.mean([np.sum((one - mean) ** 2, axis=1) for one in each], axis=0))
    bound = 2 * moved * units**2
    assert bound.max() > 0.1
    unseen = UNSEEN * 2 * units**2 / SEEDS
    assert np.all(spread[0] <= 1.3 * bound + unseen)
    assert np.all(spread[1] <= 1.3 * bound / 4 + unseen / 4)
    assert np.abs(mean - estimate).max() > 0.1


def test_seeds(flipping: Sample) -> None:
    """The same seed gives the same, to the last bit; others, and other prompts, give others."""
    first = found(flipping, draws=20, seed=5)
    again = found(flipping, draws=20, seed=5)
    np.testing.assert_array_equal(corrected(first), corrected(again))
    np.testing.assert_array_equal(first.rows, again.rows)
    assert any(
        not np.array_equal(corrected(first), corrected(found(flipping, draws=20, seed=s))) for s in (6, 7)
    )


@pytest.mark.parametrize("row_share", [0.0, 0.03])
def test_the_rest_of_the_batch_does_not_matter(drawn: list[Sample], row_share: float) -> None:
    for sample in drawn:
        method = of_sample("unbiased", sample, "renormalize", row_share=row_share, draws=7)
        texts = [sample.text, *sorted(sample.brute.texts(3))[:3], sample.text]
        batch = [Request(text, sample.prompt, True) for text in texts]
        for request, rows in zip(batch, method.distributions(batch), strict=True):
            (alone,) = method.distributions([request])
            np.testing.assert_array_equal(rows.logprobs.numpy(), alone.logprobs.numpy())
            np.testing.assert_array_equal(rows.rows, alone.rows)
            for name in ("row", "taken_from", "given_to"):
                np.testing.assert_array_equal(getattr(rows.correction, name), getattr(alone.correction, name))


def test_the_estimate_and_the_scores_are_those_of_auto(drawn: list[Sample]) -> None:
    for sample in drawn:
        for mode in MODES:
            auto = sample.scorer(mode, width=sample.pair.student.vocab_size + 3)
            method = of_sample("unbiased", sample, mode)
            (rows,) = method.distributions([request_of(sample)])
            (plain,) = auto.distributions([sample.text], sample.prompts)
            np.testing.assert_array_equal(rows.logprobs.numpy(), plain.logprobs.numpy())
            np.testing.assert_array_equal(rows.undecided_mass.numpy(), plain.undecided_mass.numpy())
            (score,), (other,) = method.score([request_of(sample)]), auto.score([sample.text], sample.prompts)
            for name in ("logprobs", "lower", "upper", "status"):
                np.testing.assert_array_equal(getattr(score, name), getattr(other, name))


def test_draws_that_come_to_no_end_move_nothing(flipping: Sample) -> None:
    rows = found(flipping, draws=50, max_steps=0)
    assert float(rows.correction.stopped.sum()) > 0.1
    assert not rows.rows.any()
    low, high = truth(flipping, "renormalize", rows)
    limit = slack(rows, 50) + rows.correction.stopped.double().numpy()[:, None]
    assert np.all((corrected(rows) >= low - limit) & (corrected(rows) <= high + limit))


def test_where_nothing_is_undecided_nothing_is_moved() -> None:
    sample = draw("qwen")[0]
    teacher, eos = sample.pair.teacher, sample.pair.teacher_eos
    pair = ct.Pair(teacher, teacher, teacher_eos=eos, student_eos=eos)
    assert pair.regime == "same"
    table = ct.TableTeacher(sample.fn)
    (rows,) = ct.Scorer(table, pair, method="unbiased").distributions([sample.text])
    (plain,) = ct.Scorer(table, pair).distributions([sample.text])
    assert torch.equal(rows.logprobs, plain.logprobs)
    assert rows.correction is not None
    assert len(rows.correction) == 0
    assert torch.equal(rows.correction.apply(rows.logprobs), plain.logprobs.exp())


def test_refusals(flipping: Sample) -> None:
    method = of_sample("unbiased", flipping, "renormalize")
    with pytest.raises(PlanError, match="'unbiased' has no sparse distributions"):
        method.distributions([request_of(flipping)], top_k=3)
    wrong = {"draws": 0, "max_steps": -1, "row_share": 1.0, "beam_width": 2, "seed": -1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name if name == "beam_width" else "draws|row_share|seed"):
            of_sample("unbiased", flipping, "renormalize", **{name: value})
    rows = found(flipping)
    with pytest.raises(ValueError, match="correction of"):
        rows.correction.apply(rows.logprobs[:1])


def test_what_moves_nothing_is_left_out() -> None:
    row, mass = np.array([0, 1, 1, 1]), np.array([0.5, 0.25, 0.125, 0.0])
    args = np.array([3, -2, -1, 1]), np.array([3, 4, -3, 2]), mass, np.zeros(2), np.zeros(2)
    made = Correction.of(row, *args)
    assert (made.row.tolist(), made.taken_from.tolist(), made.given_to.tolist()) == ([1], [NOWHERE], [4])
    moved = replace(made, taken_from=np.array([2])).apply(torch.full((2, 5), 0.125).log())
    expected = [[0.125] * 5, [0.125, 0.125, -0.125, 0.125, 0.375]]
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-7)


def test_small_draws_add_up() -> None:
    """Each by itself is less than float32 can add to a probability near 1."""
    for draws in (64, 2_500, 100_000):
        mass, nothing = np.full(draws, 1e-3 / draws), np.zeros(draws, dtype=np.int64)
        moved = Correction.of(nothing, nothing + 1, nothing, mass, np.zeros(1), np.zeros(1))
        found = moved.apply(torch.tensor([[0.99, 0.01]]).log())
        assert torch.allclose(found, torch.tensor([[0.991, 0.009]]), atol=1e-7)


@pytest.mark.parametrize("row_share", [1 / 2, 1 / 6, 1 / 11, 1e-2])
def test_each_token_of_a_range_is_heavy_or_light(row_share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in which all tokens weigh the same, so that many are at the very threshold."""
    pair, seen = demo_pair()[1], 0

    def check(collector: Any, prefixes: Any, leaves: Any, light: Any, ranges: Any) -> Any:
        nonlocal seen
        for i, (node, depth) in enumerate(zip(ranges.ranges.node, ranges.ranges.depth, strict=True)):
            kept = sum(
                np.exp(part.log_mass[(part.node == node) & (part.depth == depth)]).sum()
                for part in collector.entries
            )
            np.testing.assert_allclose(kept + ranges.mass[i], np.exp(collector.range_total[i]), rtol=1e-5)
            seen += 1
        return drawable(collector, prefixes, leaves, light, ranges)

    monkeypatch.setattr(unbiased, "drawable", check)
    table = ct.TableTeacher(lambda _: np.full(pair.teacher.vocab_size, -np.log(pair.teacher.vocab_size)))
    ct.Scorer(table, pair, method="unbiased", method_options={"row_share": row_share}).distributions(
        ["the list"]
    )
    assert seen > 3
