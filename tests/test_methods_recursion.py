"""The merge recursion as a method: the numbers of `auto` at tolerance 0, and a limit that names the text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from general_checks import EXACT, UNSUPPORTED
from general_pairs import MODES, load
from method_checks import TOLERANCE, method_of
from oracle import toys
from oracle.brute import BruteTokenizer
from oracle.scores import random_teacher

pytest.importorskip("torch")

import crosstok as ct
from crosstok.recursion.merges import check_symbols
from crosstok.requests import Request


def _whole_student(rng: random.Random, teacher: Any, chars: Sequence[str]) -> toys.Toy | None:
    """A student that the recursion does not refuse, if one draw gives it: plain merges and no pretokenizer."""
    toy = toys.make_toy("plain", rng, alphabet=chars)
    toy.spec["pre_tokenizer"] = toys.byte_level(False)
    try:
        check_symbols(teacher, load(toy.spec))
    except ct.PlanError:
        return None
    return toy


@pytest.mark.parametrize("kind", toys.KINDS)
def test_recursion_is_auto_at_tolerance_zero(kind: str, one_thread: None) -> None:
    compared = 0
    for seed in range(12):
        rng = random.Random(f"method recursion {kind} {seed}")
        toy = toys.make_toy(kind, rng, max_texts=300)
        student = _whole_student(rng, load(toy.spec), toy.chars)
        if student is None:
            continue
        pair = ct.Pair(load(toy.spec), load(student.spec), toy.eos, student.eos)
        fn = random_teacher(toys.vocab_size(toy.spec), seed, dead=0.05 if seed % 2 else 0.0)
        brute = BruteTokenizer(toy.spec, toy.chars, 3)
        texts = [text for text in brute.texts if text and student_has(pair, text)]
        if not texts:
            continue
        batch = [
            Request(text, (0,), rng.random() < 0.7) for text in rng.sample(sorted(texts), min(3, len(texts)))
        ]
        for mode in MODES:
            scores = method_of("recursion", fn, pair, mode).score(batch)
            exact = ct.Scorer(ct.TableTeacher(fn), pair, canonical=mode, tolerance=0.0)
            for request, score in zip(batch, scores, strict=True):
                (wanted,) = exact.score([request.text], [(0,)], request.ended)
                for name in ("logprobs", "prefix_lower", "prefix_upper"):
                    got, want = np.exp(getattr(score, name)), np.exp(getattr(wanted, name))
                    np.testing.assert_allclose(got, want, atol=TOLERANCE, err_msg=f"{kind} {seed} {name}")
                assert set(score.status.tolist()) <= {EXACT, UNSUPPORTED}
                assert score.rows.dtype == np.int64 and len(score.rows) == len(score.student_ids)
                compared += 1
    assert compared >= 6


def student_has(pair: Any, text: str) -> bool:
    """Whether a text is admissible for the pair."""
    try:
        pair.encode(text)
    except ct.TextError:
        return False
    return True


def test_recursion_names_the_text_that_takes_too_long() -> None:
    toy = toys.make_toy("plain", random.Random(1), alphabet=("a", "b"))
    teacher = load(toy.spec)
    pair = ct.Pair(teacher, teacher, toy.eos, toy.eos)
    fn = random_teacher(toys.vocab_size(toy.spec), 1)
    with pytest.raises(ct.PlanError, match="text 0"):
        method_of("recursion", fn, pair, budget=1).score([Request("abab", ())])


def test_a_pair_is_refused_before_any_text_is_read() -> None:
    """What is wrong with the student is no text's fault: the error has no index, and comes with the scorer."""
    toy = toys.make_toy("plain", random.Random(1), alphabet=("a", "b"))
    toy.spec["pre_tokenizer"] = toys.byte_level(True)
    tokenizer = load(toy.spec)
    pair = ct.Pair(tokenizer, tokenizer, toy.eos, toy.eos)
    teacher = ct.TableTeacher(random_teacher(toys.vocab_size(toy.spec), 1))
    with pytest.raises(ct.PlanError, match=r"^the recursion does not hold .* a pretokenizer that cuts"):
        ct.Scorer(teacher, pair, method="recursion")
