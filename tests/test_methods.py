"""What all methods to be compared with have in common: batches, models, empty texts, options and refusals.

Their numbers: `test_methods_bytes.py`, `test_methods_beam.py`, `test_methods_recursion.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from general_pairs import Sample, draw_sample, load
from method_checks import draw, method_of, of_sample, request_of
from oracle import toys
from oracle.scores import random_teacher

pytest.importorskip("torch")

import crosstok as ct
from crosstok import methods
from crosstok.reading import Reading
from crosstok.requests import Request
from crosstok.results import Timings

NAMES = ("beam", "strict_1to1", "bpm", "recursion")


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest, one_thread: None) -> list[Sample]:
    """Some samples whose teacher is of a kind."""
    return draw(request.param)


def test_batches_prompts_and_temperature(drawn: list[Sample]) -> None:
    """Several texts together give what each gives alone, to the last bit; temperature divides logits."""
    for sample in drawn[:3]:
        texts = (sorted(sample.brute.texts(3)) * 3)[:3]
        prompts, flags = ((0,), sample.prompt, (1, 2)), (True, False, True)
        texts[1] = sample.text  # admissible where a text starts a document
        batch = [
            Request(*each) for each in zip(texts, prompts, flags, strict=True) if student_fits(sample, *each)
        ]
        squared = _squared(sample)
        for name in ("beam", "strict_1to1", "bpm"):
            method = of_sample(name, sample, "renormalize", temperature=0.5)
            together = method.score(batch)
            others = method_of(name, squared, sample.pair).score(batch)
            for request, score, other in zip(batch, together, others, strict=True):
                (alone,) = method.score([request])
                for field in ("logprobs", "rows", "status", "noncanonical_mass"):
                    np.testing.assert_array_equal(getattr(score, field), getattr(alone, field), err_msg=field)
                np.testing.assert_allclose(np.exp(score.logprobs), np.exp(other.logprobs), atol=1e-12)


def student_fits(sample: Sample, text: str, prompt: Any, _: bool) -> bool:
    """Whether a text is admissible after a prompt."""
    try:
        sample.pair.encode(text, prompt is None)
    except ct.TextError:
        return False
    return True


def _squared(sample: Sample) -> Callable[[Any], Any]:
    return lambda ids: 2.0 * sample.fn(ids)


def test_a_packed_model(one_thread: None) -> None:
    """A model of transformers and its rows as a table give the same."""
    import hf_models

    toy = toys.make_toy("plain", random.Random(5), alphabet=("a", "b", " "))
    other = toys.make_toy("gpt2", random.Random(6), alphabet=("a", "b", " "))
    pair = ct.Pair(load(toy.spec), load(other.spec), toy.eos, other.eos)
    teacher = ct.HFTeacher(hf_models.make("llama"))
    table = ct.TableTeacher(lambda ids: teacher.rows([ids])[0].double(), teacher.vocab_size)
    batch = [Request("ab ba", (1, 2)), Request("a  bab", (0,), False)]
    for name in ("beam", "strict_1to1", "bpm"):
        for got, want in zip(
            method_of(name, teacher, pair).score(batch),
            method_of(name, table, pair).score(batch),
            strict=True,
        ):
            np.testing.assert_allclose(np.exp(got.logprobs), np.exp(want.logprobs), atol=1e-4, err_msg=name)
            np.testing.assert_array_equal(got.rows, want.rows)


@pytest.mark.parametrize("name", NAMES)
def test_no_texts_and_empty_texts(name: str) -> None:
    toy = toys.make_toy("plain", random.Random(3), alphabet=("a", "b"))
    toy.spec["pre_tokenizer"] = toys.byte_level(False)
    pair = ct.Pair(load(toy.spec), load(toy.spec), toy.eos, toy.eos)
    fn = random_teacher(toys.vocab_size(toy.spec), 3)
    method = method_of(name, fn, pair)
    assert method.score([]) == []
    cut, ended = method.score([Request("", (), False), Request("", (), True)])
    assert cut.student_ids.tolist() == [] and cut.total == 0.0
    assert ended.student_ids.tolist() == [toy.eos]
    (wanted,) = ct.Scorer(ct.TableTeacher(fn), pair).score([""], [()])
    assert ended.logprobs == pytest.approx(wanted.logprobs)
    if name in ("strict_1to1", "bpm"):
        (found,) = method.distributions([Request("", (), False)])
        assert found.logprobs.shape == (1, method.width)
        assert float(found.logprobs.exp().sum()) == pytest.approx(1)


def test_errors_name_the_text(one_thread: None) -> None:
    sample = draw_sample("nfc", "plain", 1)
    for name in ("beam", "strict_1to1", "bpm"):
        method = of_sample(name, sample, "renormalize")
        with pytest.raises(ct.TextError, match="text 1"):
            method.score([request_of(sample), Request(b"\xff", sample.prompt)])


def test_options_and_refusals() -> None:
    toy = toys.make_toy("plain", random.Random(2), alphabet=("a", "b"))
    pair = ct.Pair(load(toy.spec), load(toy.spec), toy.eos, toy.eos)
    fn = random_teacher(toys.vocab_size(toy.spec), 2)
    for name, options, culprit in (
        ("auto", {}, "'auto'"),
        ("bpm", {"beam_width": 3}, "beam_width"),
        ("beam", {"beam_width": 0}, "width 0"),
        ("beam", {"beam_floor": 2.0}, "beam_floor"),
        ("recursion", {"budget": 0}, "budget"),
    ):
        with pytest.raises(ValueError, match=culprit):
            methods.open(name, Reading(ct.TableTeacher(fn), "mask", 1.0, 1, Timings()), pair, 9, **options)
    request = Request("ab", ())
    for name in ("beam", "recursion"):
        with pytest.raises(ct.PlanError, match=name):
            method_of(name, fn, pair).distributions([request])
    for name in NAMES:
        with pytest.raises(ct.PlanError, match=name):
            method_of(name, fn, pair).distributions([request], top_k=4)
