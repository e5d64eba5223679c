"""Whole distributions in the general regime against brute force: closing estimates, their certificate, and rows.

Random tiny pairs of all kinds (`general_pairs`). A row may be wrong, but by no more than its undecided mass says.
"""

from __future__ import annotations

import math

import crosstok as ct
import numpy as np
import pytest
from general_checks import failures
from general_pairs import MODES, Sample, samples
from oracle import toys

pytest.importorskip("torch")

FLOAT32 = 2e-6
PAIRS = 10
# Without a tolerance the mean undecided mass of a kind's samples is between 0.19 (nfc) and 0.50 (deepseek).
MEAN_UNDECIDED = 0.6


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest, one_thread: None) -> tuple[Sample, ...]:
    """Samples whose teacher is of a kind."""
    return samples(request.param)[:PAIRS]


def found(sample: Sample, mode: str, **options: object) -> ct.Distributions:
    rows: ct.Distributions
    (rows,) = sample.scorer(mode, **options).distributions([sample.text], sample.prompts)
    assert len(rows.logprobs) == len(sample.ids) + 1
    return rows


def errors(sample: Sample, mode: str, rows: ct.Distributions, i: int) -> tuple[float, float, float]:
    """What a row has too little of and too much of, over all tokens, and the mass that is lost there."""
    truth = sample.truths[mode]
    low, high = truth.probability(sample.ids[:i])
    known = truth.next_tokens(sample.ids[:i])
    if high == 0:
        assert not np.exp(rows.logprobs[i].numpy()).any()
        return 0.0, 0.0, 0.0
    # Brute force itself gives bounds: a token is not wrong within them.
    row = np.exp(rows.logprobs[i].double().numpy())
    little, much = 0.0, 0.0
    for token, p in enumerate(row.tolist()):
        part = known.get(token, (0.0, 0.0))
        little += max(0.0, part[0] / high - p)
        much += max(0.0, p - part[1] / max(low, 1e-300))
    return little, much, max(0.0, 1 - math.fsum(part[0] for part in known.values()) / high)


def test_no_row_is_further_off_than_its_undecided_mass(drawn: tuple[Sample, ...]) -> None:
    def check(sample: Sample) -> None:
        for mode in MODES:
            for options in ({}, {"tolerance": 0.2, "max_rows": 3}):
                rows = found(sample, mode, **options)
                for i in range(len(sample.ids) + 1):
                    little, much, _ = errors(sample, mode, rows, i)
                    limit = float(rows.undecided_mass[i]) + FLOAT32
                    assert little <= limit, (mode, options, i, little, limit)
                    assert much <= limit, (mode, options, i, much, limit)

    assert not (wrong := failures(drawn, check)), wrong


def test_rows_lack_only_what_is_lost(drawn: tuple[Sample, ...]) -> None:
    for sample in drawn:
        for mode in MODES:
            rows = found(sample, mode)
            for i, total in enumerate(rows.logprobs.double().exp().sum(dim=1).tolist()):
                _, high = sample.truths[mode].probability(sample.ids[:i])
                lost = errors(sample, mode, rows, i)[2]
                assert total <= 1 + FLOAT32
                assert total == 0 or total >= 1 - lost - float(rows.undecided_mass[i]) - FLOAT32, (mode, i)
                assert (total > 0) == (high > 0) or lost == 1 or rows.undecided_mass[i] > 0


def test_without_a_limit_rows_are_the_truth(drawn: tuple[Sample, ...]) -> None:
    def check(sample: Sample) -> None:
        for mode in MODES:
            rows = found(sample, mode, tolerance=0.0)
            for i in range(len(sample.ids) + 1):
                little, much, lost = errors(sample, mode, rows, i)
                assert little <= FLOAT32, (mode, i, little)
                assert much <= FLOAT32, (mode, i, much, lost)
                # What a leaf loses once it was replaced is never certain (docs/mathematics.md, 12).
                undecided = float(rows.undecided_mass[i])
                assert undecided <= lost + FLOAT32, (mode, i, undecided, lost)

    assert not (wrong := failures(drawn, check)), wrong


def test_most_mass_is_decided_at_once(drawn: tuple[Sample, ...]) -> None:
    """A certificate that says 1 everywhere would hold."""
    rows = [found(sample, mode) for sample in drawn for mode in MODES]
    undecided = np.concatenate([each.undecided_mass.numpy() for each in rows])
    assert undecided.mean() <= MEAN_UNDECIDED


@pytest.mark.parametrize("kind", ["sentencepiece", "sentencepiece_fallback", "plain", "qwen"])
def test_the_empty_text(kind: str) -> None:
    """Before the first token, where one tokenizer or both have a dummy prefix."""
    for sample in samples(kind)[:PAIRS]:
        for options in ({}, {"tolerance": 0.0}):
            rows: ct.Distributions
            scorer = sample.scorer("renormalize", **options)
            (rows,) = scorer.distributions([""], sample.prompts)
            little, much, _ = errors(sample, "renormalize", rows, 0)
            limit = FLOAT32 + (float(rows.undecided_mass[0]) if not options else 0.0)
            assert little <= limit, (str(sample), options, little, limit)
            assert much <= limit, (str(sample), options, much, limit)
