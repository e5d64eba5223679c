"""edge_cases.md, Numbers and size: items 26 to 28."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import real
from handmade import QWEN_SPACES, WORDS, ct, pair_of, uniform
from oracle.brute import Ids


def test_26_extreme_probabilities() -> None:
    torch = pytest.importorskip("torch")
    width = WORDS.tok.vocab_size
    pair = pair_of(WORDS, WORDS.tok.first_merges(1))
    (a,) = WORDS.ids("a")

    def row(path: Ids) -> np.ndarray:
        out = np.full(width, -np.inf)
        out[a], out[WORDS.eos] = -100.0, np.log1p(-np.exp(-100.0))
        return out

    (score,) = ct.Scorer(ct.TableTeacher(row, width), pair).score(["aaa"])
    np.testing.assert_allclose(score.logprobs[:3], -100, rtol=0, atol=1e-9)
    assert score.total == pytest.approx(-300, abs=1e-9)
    # A range of nothing but −inf, and a node at which nothing canonical is left.
    for dead in (lambda path: np.full(width, -np.inf), row):
        scorer = ct.Scorer(ct.TableTeacher(dead, width), pair)
        (score,) = scorer.score(["b a"])
        assert np.isneginf(score.logprobs).all() and not np.isnan(score.noncanonical_mass).any()
        assert np.all(score.status == 4)
        with pytest.raises(ct.ZeroProbabilityError):
            scorer.next_token(pair.student.encode("b"))
        for found in scorer.distributions(["b"]):
            assert not torch.isnan(found.logprobs).any()


def test_26_long_texts_do_not_underflow() -> None:
    pytest.importorskip("torch")
    width = WORDS.tok.vocab_size
    pair = pair_of(WORDS, WORDS.tok.first_merges(1))
    (score,) = ct.Scorer(uniform(width), pair).score(["ab é\n" * 800])
    assert len(score.logprobs) >= 4000
    assert np.isfinite(score.logprobs).all()
    assert score.total == pytest.approx(score.logprobs.sum(), rel=1e-9) and score.total < -1000


LONG = ("a" * 10_000, " " * 10_000, "7" * 10_000, "abcde" * 1_000, "\n" * 10_000, "é" * 5_000, "'s" * 5_000)


@pytest.mark.parametrize("name", real.NAMES)
def test_27_long_runs(name: str) -> None:
    """Nothing here is quadratic, or the time-out of the suite would tell."""
    found = real.load(name)
    expected = found.hf_ids(LONG)
    for text, ids in zip(LONG, expected, strict=True):
        assert found.tok.encode(text).tolist() == ids
        assert found.tok.is_canonical(ids, complete=True)
        assert found.tok.canonical_next(ids[:-1])[ids[-1]]


def test_27_plans_of_long_runs() -> None:
    student = QWEN_SPACES.tok.first_merges(1)
    pair = pair_of(QWEN_SPACES, student)
    for text in ("a" * 10_000, " " * 10_000, "1" * 10_000, "\n" * 10_000, "ab" * 5_000):
        plan = pair.plan([text])
        assert np.diff(plan.student_ptr)[0] == len(student.encode(text))
        assert len(plan.node_token) <= 3 * len(text) + 3


def test_28_threads_share_a_tokenizer() -> None:
    text = "ab é\n ab" * 50
    expected = WORDS.hf(text)
    results: list[bool] = []

    def work() -> None:
        fine = all(WORDS.tok.encode(text).tolist() == expected for _ in range(20))
        results.append(fine and WORDS.tok.is_canonical(expected, complete=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [True] * 4
