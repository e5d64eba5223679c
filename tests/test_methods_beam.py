"""The beam against brute force: exact where it is wide and long, cheap where it is not."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from general_checks import equal, truths
from general_pairs import Sample
from method_checks import PAIRS, TOLERANCE, check_all, check_shape, draw, of_sample, request_of
from oracle import toys

pytest.importorskip("torch")


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest, one_thread: None) -> list[Sample]:
    """Some samples whose teacher is of a kind."""
    return draw(request.param)


@pytest.fixture(scope="module")
def tally() -> Counter[str]:
    """How often the interesting cases came up."""
    return Counter()


def test_a_wide_and_long_beam_is_exact(drawn: list[Sample]) -> None:
    """Then it is the sum over all covers; what it leaves undecided has next to no mass."""

    def check(sample: Sample, mode: str) -> None:
        method = of_sample("beam", sample, mode, beam_width=300, beam_length=12, beam_floor=0.0)
        for ended in (True, False):
            (score,) = method.score([request_of(sample, ended)])
            check_shape(sample, score, ended)
            for i, part in enumerate(truths(sample, mode, ended)[1]):
                equal(score.logprobs[i], part, f"{mode}, beam at {i}")

    check_all(drawn, check)


def test_short_beams_miss_something(drawn: list[Sample], tally: Counter[str]) -> None:
    """The shortest beam is often right and sometimes not: otherwise these samples would tell nothing."""
    for sample in drawn:
        (score,) = of_sample("beam", sample, "renormalize", beam_width=1, beam_length=0).score(
            [request_of(sample)]
        )
        for value, part in zip(score.logprobs, truths(sample, "renormalize")[1], strict=True):
            right = part[0] - TOLERANCE <= math.exp(value) <= part[1] + TOLERANCE
            tally["right" if right else "wrong"] += 1


def test_a_narrow_beam_is_cheap(drawn: list[Sample]) -> None:
    for sample in drawn:
        for width, length in ((1, 0), (1, 2), (3, 2)):
            method = of_sample("beam", sample, "renormalize", beam_width=width, beam_length=length)
            (score,) = method.score([request_of(sample)])
            (plain,) = sample.scorer("renormalize").score([sample.text], sample.prompts)
            check_shape(sample, score, True)
            assert (score.rows - plain.rows <= width * length).all()
            if np.isfinite(score.logprobs).all():
                total = sample.truths["renormalize"].probability(sample.ids, True)
                equal(float(score.logprobs.sum()), total, "sum of a beam's labels", scale=total[1])


def test_the_samples_were_worth_it(tally: Counter[str]) -> None:
    """Counts of the tests above, over all kinds."""
    if tally["right"] + tally["wrong"] < 2 * PAIRS * len(toys.KINDS):
        pytest.skip("only where all kinds ran")
    print(dict(tally))
    assert min(tally["right"], tally["wrong"]) > 40
