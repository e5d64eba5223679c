"""The methods that go by bytes, strict_1to1 and bpm, against slow oracles (`oracle.methods`) and by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from general_checks import ESTIMATED, UNSUPPORTED, equal, truths
from general_pairs import Sample, draw_sample, load
from method_checks import TOLERANCE, check_all, check_shape, draw, method_of, of_sample, request_of
from oracle import toys
from oracle.brute import Ids
from oracle.methods import ByteMethods, Row
from oracle.scores import random_teacher

pytest.importorskip("torch")

import crosstok as ct
from crosstok.requests import Request


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest, one_thread: None) -> list[Sample]:
    """Some samples whose teacher is of a kind."""
    return draw(request.param)


@pytest.fixture(scope="module")
def tally() -> Counter[str]:
    """How often the interesting cases came up."""
    return Counter()


def test_one_to_one(drawn: list[Sample], tally: Counter[str]) -> None:
    def check(sample: Sample, mode: str) -> None:
        oracle = ByteMethods(sample.truths[mode], sample.text, sample.continued)
        for ended in (True, False):
            (score,) = of_sample("strict_1to1", sample, mode).score([request_of(sample, ended)])
            check_shape(sample, score, ended)
            for i, value in enumerate(score.logprobs):
                wanted = oracle.one_to_one(i)
                p = 0.0 if wanted is None or oracle.reach(i) == 0 else wanted
                equal(value, (p, p), f"{mode}, strict_1to1 at {i}")
                assert wanted is not None or score.status[i] == UNSUPPORTED
                tally["agreed" if wanted is not None else "apart"] += 1
            assert score.rows.sum() <= len(oracle.tau) + 1

    check_all(drawn, check)


def test_one_to_one_is_exact_where_nothing_else_covers(drawn: list[Sample], tally: Counter[str]) -> None:
    """Where s_<i and s_1..s_i have one cover each, a token of both is the whole truth."""

    def check(sample: Sample, mode: str) -> None:
        (score,) = of_sample("strict_1to1", sample, mode).score([request_of(sample)])
        covers = ct.enumerate_covers(sample.pair, [sample.ids])
        tau = tuple(sample.pair.teacher.encode(sample.text).tolist())

        def is_only(place: int, path: Ids) -> bool:
            sure = covers.status[covers.position_ptr[place] : covers.position_ptr[place + 1]].tolist() == [1]
            return sure and tuple(covers.paths(place)[0].tolist()) == path

        parts = truths(sample, mode)[1]
        for i, node in itertools.product(range(len(sample.ids)), range(len(tau))):
            agreed = np.isfinite(score.logprobs[i])  # a longer teacher token may be the only cover, too
            if agreed and is_only(i, tau[:node]) and is_only(i + 1, tau[: node + 1]):
                equal(score.logprobs[i], parts[i], f"{mode}, strict_1to1 at {i}")
                tally["single covers"] += 1

    check_all([sample for sample in drawn if sample.prompt is not None], check)


def test_byte_prefixes(drawn: list[Sample], tally: Counter[str]) -> None:
    tally["kinds"] += 1

    def check(sample: Sample, mode: str) -> None:
        oracle = ByteMethods(sample.truths[mode], sample.text, sample.continued)
        for ended in (True, False):
            (score,) = of_sample("bpm", sample, mode).score([request_of(sample, ended)])
            check_shape(sample, score, ended)
            for i, (id, value) in enumerate(zip(score.student_ids, score.logprobs, strict=True)):
                p = oracle.prefixes(i)[0].get(int(id), 0.0) if oracle.reach(i) > 0 else 0.0
                equal(value, (p, p), f"{mode}, bpm at {i}")
                tally["inside a teacher token"] += not oracle.meets(i)

    check_all(drawn, check)


def test_distributions_by_bytes(drawn: list[Sample]) -> None:
    def check(sample: Sample, mode: str) -> None:
        oracle = ByteMethods(sample.truths[mode], sample.text, sample.continued)
        for name in ("strict_1to1", "bpm"):
            method = of_sample(name, sample, mode)
            for ended in (True, False):
                (found,) = method.distributions([request_of(sample, ended)])
                rows = found.logprobs.exp().double().numpy()
                assert found.student_ids.tolist() == list(sample.ids)
                assert rows.shape == (len(sample.ids) + 1, method.width) and not np.isnan(rows).any()
                for place, row in enumerate(rows):
                    given, lost = _oracle_row(oracle, name, place)
                    wanted = np.zeros(method.width)
                    if oracle.reach(place) > 0:
                        wanted[list(given)] = list(given.values())
                    np.testing.assert_allclose(row, wanted, atol=1e-6, err_msg=f"{sample} {name} {place}")
                    assert abs(float(found.undecided_mass[place]) - lost) < 1e-6, (name, place)

    check_all(drawn, check)


def _oracle_row(oracle: ByteMethods, name: str, place: int) -> tuple[Row, float]:
    """A row, and what has gone to no student token."""
    if name == "bpm":
        row, _ = oracle.prefixes(place)
        return row, 1 - math.fsum(row.values())
    row = oracle.shared(place)
    total = math.fsum(row.values())
    return {token: q / total for token, q in row.items() if total > 0}, 1 - total


def test_the_same_tokenizer_twice(drawn: list[Sample]) -> None:
    """Where teacher and student encode alike all methods give the teacher's own probabilities."""
    for sample in drawn:
        pair = ct.Pair(sample.pair.teacher, sample.pair.teacher, sample.teacher_eos, sample.teacher_eos)
        assert pair.regime == "same"
        request = request_of(sample)
        exact = ct.Scorer(ct.TableTeacher(sample.fn), pair)
        (wanted,) = exact.score([sample.text], sample.prompts)
        for name in ("strict_1to1", "bpm", "beam"):
            (score,) = method_of(name, sample.fn, pair).score([request])
            np.testing.assert_allclose(
                np.exp(score.logprobs), np.exp(wanted.logprobs), atol=TOLERANCE, err_msg=f"{sample} {name}"
            )


def test_by_hand(one_thread: None) -> None:
    """Teacher a b ␣ ab aba, student without aba: "aba ab" is aba ␣ ab, and ab a ␣ ab."""
    spec = toys.bare_spec(["a", "b", "Ġ"], toys.byte_level(False), None)
    for left, right in (("a", "b"), ("ab", "a")):
        spec["model"]["merges"].append([left, right])
        spec["model"]["vocab"][left + right] = len(spec["model"]["vocab"])
    spec["added_tokens"] = [{**toys.added_token("<e>", special=True), "id": 5}]
    teacher = load(spec)
    pair = ct.Pair(teacher, teacher.first_merges(1), 5, 4)
    fn = random_teacher(6, 7)
    own = ct.Scorer(ct.TableTeacher(fn), ct.Pair(teacher, teacher, 5, 5))
    first, space, last = (own.next_token(ids, ()).logprobs.exp().tolist() for ids in ([], [4], [4, 2]))
    request = Request("aba ab", (), False)
    assert pair.encode("aba ab").tolist() == [3, 0, 2, 3] and teacher.encode("aba ab").tolist() == [4, 2, 3]
    (strict,) = method_of("strict_1to1", fn, pair).score([request])
    assert np.exp(strict.logprobs) == pytest.approx([0, 0, space[2], last[3]])
    assert strict.status.tolist() == [UNSUPPORTED, UNSUPPORTED, ESTIMATED, ESTIMATED]
    assert strict.rows.tolist() == [1, 0, 1, 1]
    (bpm,) = method_of("bpm", fn, pair).score([request])
    # Behind "ab" of "aba" only aba goes on; the last ab may have been aba.
    assert np.exp(bpm.logprobs) == pytest.approx([first[3] + first[4], 1, space[2], last[3] + last[4]])
    assert (bpm.lower == -np.inf).all() and (bpm.upper == 0).all() and bpm.total == bpm.logprobs.sum()


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("sentencepiece", "sentencepiece"),
        ("sentencepiece", "sentencepiece_fallback"),
        ("sentencepiece", "gpt2"),
        ("plain", "sentencepiece_fallback"),
    ],
)
def test_dummy_prefixes(kind: str, other: str, one_thread: None, tally: Counter[str]) -> None:
    """Of one tokenizer or both: the text begins in the same place for both."""
    samples = [draw_sample(kind, other, 500 + n) for n in range(24)]
    dummies = [s for s in samples if s.brute.teacher.dummy or s.brute.student.dummy]
    assert dummies
    test_one_to_one(dummies, Counter())
    test_byte_prefixes(dummies, Counter())
    test_distributions_by_bytes(dummies)
    for sample in dummies:
        tally[f"dummies {sample.brute.teacher.dummy:d}{sample.brute.student.dummy:d}"] += 1


def test_the_samples_were_worth_it(tally: Counter[str]) -> None:
    """Counts of the tests above, over all kinds."""
    if tally["kinds"] < len(toys.KINDS):
        pytest.skip("only where all kinds ran")
    print(dict(tally))
    assert tally["single covers"] > 20
    assert min(tally["dummies 11"], tally["dummies 10"], tally["dummies 01"]) > 0
    assert min(tally["agreed"], tally["apart"], tally["inside a teacher token"]) > 200
