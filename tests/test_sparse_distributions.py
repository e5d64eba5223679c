"""`distributions(top_k=...)`: the same rows, cut, with labels and bounds, for pairs of every regime."""

from __future__ import annotations

import math

import crosstok as ct
import numpy as np
import pytest
from general_checks import failures, truths
from general_pairs import MODES, Sample, samples
from oracle import toys
from test_refine import demo_pair

torch = pytest.importorskip("torch")

FLOAT32 = 1e-6


@pytest.mark.parametrize("kind", toys.KINDS)
def test_sparse_rows_are_the_dense_ones(kind: str) -> None:
    for sample in samples(kind)[:6]:
        scorer = sample.scorer("renormalize")
        (dense,) = scorer.distributions([sample.text], sample.prompts)
        (sparse,) = scorer.distributions([sample.text], sample.prompts, top_k=3)
        (score,) = scorer.score([sample.text], sample.prompts)
        sparse.validate()
        assert sparse.student_ids.tolist() == list(sample.ids)
        # Distributions read further rows, which may tell more of labels.
        assert np.all(sparse.label_lower <= score.upper + 1e-5)
        assert np.all(sparse.label_upper >= score.lower - 1e-5)
        assert int(sparse.byte_span[-1, 1]) == len(sample.text.encode())
        for i in range(len(sparse)):
            ids = sparse.ids[sparse.ptr[i] : sparse.ptr[i + 1]]
            row = dense.logprobs[i].exp()
            kept = torch.from_numpy(ids.astype(np.int64))
            scaled = min(1.0, float(dense.undecided_mass[i]) / max(float(row.sum()), 1e-30))
            if math.isclose(sparse.undecided_mass[i], scaled, abs_tol=1e-6) and len(ids):
                found = np.exp(sparse.logp[sparse.ptr[i] : sparse.ptr[i + 1]])
                assert np.allclose(found, (row / row.sum())[kept].numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_normalised_rows_are_no_further_off_than_their_undecided_mass(kind: str) -> None:
    """Rows that lack something, too, whose undecided mass was of the row as it was."""

    def check(sample: Sample) -> None:
        for mode in MODES:
            for options in ({}, {"tolerance": 0.02, "max_rows": 2}):
                scorer = sample.scorer(mode, **options)
                (sparse,) = scorer.distributions([sample.text], sample.prompts, top_k=10**6)
                for i in range(len(sparse)):
                    known = sample.truths[mode].next_tokens(sample.ids[:i])
                    least = math.fsum(low for low, _ in known.values())
                    if not least or math.fsum(high for _, high in known.values()) > least * (1 + FLOAT32):
                        continue  # brute force knows no better
                    part = slice(sparse.ptr[i], sparse.ptr[i + 1])
                    row = dict(
                        zip(sparse.ids[part].tolist(), np.exp(sparse.logp[part]).tolist(), strict=True)
                    )
                    much = math.fsum(max(0, p - known.get(v, (0.0, 0.0))[0] / least) for v, p in row.items())
                    limit = float(sparse.undecided_mass[i])
                    assert much <= limit + 1e-5, (mode, options, i, much, limit, sparse.missing_mass[i])

    assert not (wrong := failures(samples(kind)[:12], check)), wrong


def lost(sample: Sample, mode: str, i: int) -> float:
    """What share of P(s_1..s_i) no next token has."""
    _, high = sample.truths[mode].probability(sample.ids[:i])
    known = sample.truths[mode].next_tokens(sample.ids[:i])
    return max(0.0, 1 - math.fsum(low for low, _ in known.values()) / high) if high else 0.0


@pytest.mark.parametrize("kind", toys.KINDS)
def test_label_bounds_against_brute_force(kind: str) -> None:
    """They hold the truth, with a tolerance or without; at tolerance 0 they are the truth.

    But for what is lost of the row, which might be the label's as far as the upper bound knows: what a leaf loses once
    it was replaced is never certain (docs/mathematics.md, 12).
    """

    def check(sample: Sample) -> None:
        for mode in MODES:
            _, parts = truths(sample, mode)
            for options in ({}, {"tolerance": 0.2, "max_rows": 3}, {"tolerance": 0.0}):
                scorer = sample.scorer(mode, **options)
                (sparse,) = scorer.distributions([sample.text], sample.prompts, top_k=3)
                assert sparse.label_ids.tolist() == [*sample.ids, sample.student.eos]
                bounds = np.exp(np.stack([sparse.label_lower, sparse.label_upper], axis=1).astype(float))
                for i, (low, high) in enumerate(parts):
                    what = (mode, options, i, bounds[i], (low, high))
                    assert bounds[i, 0] <= high + FLOAT32, what
                    assert bounds[i, 1] >= low - FLOAT32, what
                    if options.get("tolerance") == 0.0:
                        assert bounds[i, 0] >= low - FLOAT32, what
                        assert bounds[i, 1] <= high + lost(sample, mode, i) + FLOAT32, what

    assert not (wrong := failures(samples(kind)[:6], check)), wrong


def test_top_k_must_be_positive() -> None:
    (sample, *_) = samples("plain")
    with pytest.raises(ValueError, match="top_k"):
        sample.scorer("renormalize").distributions([sample.text], sample.prompts, top_k=0)


def test_a_method_with_an_option_that_it_does_not_have() -> None:
    (sample, *_) = samples("plain")
    with pytest.raises(ValueError, match="width_of_beam"):
        ct.Scorer(
            ct.TableTeacher(lambda _: None), sample.pair, method="beam", method_options={"width_of_beam": 3}
        )


@pytest.mark.parametrize("first", [None, "s", "e", " a"])
def test_light_tokens_are_kept_whatever_text_comes_first(first: str | None) -> None:
    """A row without a label, the last one, lost the light mass of the token that the first text begins with."""
    text, all_ = "Return a copy of the", 10**5
    scorer = ct.Scorer(*demo_pair())
    (dense,) = scorer.distributions([text])
    sparse = scorer.distributions([text] if first is None else [first, text], top_k=all_)[-1]
    for i in range(len(sparse)):
        part = slice(sparse.ptr[i], sparse.ptr[i + 1])
        row = dense.logprobs[i].double().exp()
        found = torch.zeros_like(row)
        found[torch.from_numpy(sparse.ids[part].astype(np.int64))] = (
            torch.from_numpy(sparse.logp[part]).double().exp()
        )
        assert torch.allclose(found, row / row.sum(), atol=2e-6)
        assert math.isclose(sparse.missing_mass[i], 1 - float(row.sum()), abs_tol=1e-5)
