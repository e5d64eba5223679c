"""The methods to be compared with, against slow oracles (`oracle.methods`) and against each other."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from general_checks import ESTIMATED, EXACT, UNSUPPORTED, equal, failures, truths
from general_pairs import MODES, Sample, draw_sample, load
from oracle import toys
from oracle.brute import BruteTokenizer, Ids
from oracle.methods import ByteMethods, Row
from oracle.pairs import student_kind
from oracle.scores import random_teacher

pytest.importorskip("torch")

import crosstok as ct
from crosstok import methods
from crosstok.merges import check_symbols
from crosstok.reading import Reading
from crosstok.requests import Request
from crosstok.results import Timings

TOLERANCE = 1e-9
# Pairs a kind of teacher: each with a student of another kind.
PAIRS = 6
NAMES = ("beam", "strict_1to1", "bpm", "recursion")


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest, one_thread: None) -> list[Sample]:
    """Some samples whose teacher is of a kind."""
    kind = request.param
    return [draw_sample(kind, student_kind(kind, 2 * n + 1), 100 + n) for n in range(PAIRS)]


@pytest.fixture(scope="module")
def tally() -> Counter[str]:
    """How often the interesting cases came up."""
    return Counter()


def _method(
    name: str, fn: Any, pair: Any, mode: str = "renormalize", temperature: float = 1.0, **options: Any
) -> Any:
    teacher = fn if hasattr(fn, "rows") else ct.TableTeacher(fn)
    reading = Reading(teacher, mode, temperature, 1, Timings())
    return methods.open(name, reading, pair, pair.student.vocab_size + 3, **options)


def _of(name: str, sample: Sample, mode: str, **options: Any) -> Any:
    return _method(name, sample.fn, sample.pair, mode, **options)


def _request(sample: Sample, ended: bool = True) -> Request:
    return Request(sample.text, sample.prompt, ended)


def _check(drawn: list[Sample], check: Callable[[Sample, str], None]) -> None:
    def both(sample: Sample) -> None:
        for mode in MODES:
            check(sample, mode)

    assert not (found := failures(drawn, both)), found


def _check_shape(sample: Sample, score: Any, ended: bool) -> None:
    """What `Score` promises whatever the method."""
    assert score.student_ids.tolist() == [*sample.ids, *[sample.student.eos] * ended]
    for name in ("logprobs", "lower", "upper", "prefix_lower", "prefix_upper", "noncanonical_mass"):
        values = getattr(score, name)
        assert values.dtype == np.float64 and len(values) == len(score.student_ids), name
        assert not np.isnan(values).any(), name
    assert (score.lower <= score.logprobs).all() and (score.logprobs <= score.upper).all()
    assert score.rows.dtype == np.int64 and (score.rows >= 0).all() and score.status.dtype == np.uint8


# --- strict_1to1 and bpm ---


def test_one_to_one(drawn: list[Sample], tally: Counter[str]) -> None:
    def check(sample: Sample, mode: str) -> None:
        oracle = ByteMethods(sample.truths[mode], sample.text, sample.continued)
        for ended in (True, False):
            (score,) = _of("strict_1to1", sample, mode).score([_request(sample, ended)])
            _check_shape(sample, score, ended)
            for i, value in enumerate(score.logprobs):
                wanted = oracle.one_to_one(i)
                p = 0.0 if wanted is None or oracle.reach(i) == 0 else wanted
                equal(value, (p, p), f"{mode}, strict_1to1 at {i}")
                assert wanted is not None or score.status[i] == UNSUPPORTED
                tally["agreed" if wanted is not None else "apart"] += 1
            assert score.rows.sum() <= len(oracle.tau) + 1

    _check(drawn, check)


def test_one_to_one_is_exact_where_nothing_else_covers(drawn: list[Sample], tally: Counter[str]) -> None:
    """Where s_<i and s_1..s_i have one cover each, a token of both is the whole truth."""

    def check(sample: Sample, mode: str) -> None:
        (score,) = _of("strict_1to1", sample, mode).score([_request(sample)])
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

    _check([sample for sample in drawn if sample.prompt is not None], check)


def test_byte_prefixes(drawn: list[Sample], tally: Counter[str]) -> None:
    def check(sample: Sample, mode: str) -> None:
        oracle = ByteMethods(sample.truths[mode], sample.text, sample.continued)
        for ended in (True, False):
            (score,) = _of("bpm", sample, mode).score([_request(sample, ended)])
            _check_shape(sample, score, ended)
            for i, (id, value) in enumerate(zip(score.student_ids, score.logprobs, strict=True)):
                p = oracle.prefixes(i)[0].get(int(id), 0.0) if oracle.reach(i) > 0 else 0.0
                equal(value, (p, p), f"{mode}, bpm at {i}")
                tally["inside a teacher token"] += not oracle.meets(i)

    _check(drawn, check)


def test_distributions_by_bytes(drawn: list[Sample]) -> None:
    def check(sample: Sample, mode: str) -> None:
        oracle = ByteMethods(sample.truths[mode], sample.text, sample.continued)
        for name in ("strict_1to1", "bpm"):
            method = _of(name, sample, mode)
            for ended in (True, False):
                (found,) = method.distributions([_request(sample, ended)])
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

    _check(drawn, check)


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
        request = _request(sample)
        exact = ct.Scorer(ct.TableTeacher(sample.fn), pair)
        (wanted,) = exact.score([sample.text], sample.prompts)
        for name in ("strict_1to1", "bpm", "beam"):
            (score,) = _method(name, sample.fn, pair).score([request])
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
    (strict,) = _method("strict_1to1", fn, pair).score([request])
    assert np.exp(strict.logprobs) == pytest.approx([0, 0, space[2], last[3]])
    assert strict.status.tolist() == [UNSUPPORTED, UNSUPPORTED, ESTIMATED, ESTIMATED]
    assert strict.rows.tolist() == [1, 0, 1, 1]
    (bpm,) = _method("bpm", fn, pair).score([request])
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


# --- beam ---


def test_a_wide_and_long_beam_is_exact(drawn: list[Sample]) -> None:
    """Then it is the sum over all covers; what it leaves undecided has next to no mass."""

    def check(sample: Sample, mode: str) -> None:
        method = _of("beam", sample, mode, beam_width=300, beam_length=12, beam_floor=0.0)
        for ended in (True, False):
            (score,) = method.score([_request(sample, ended)])
            _check_shape(sample, score, ended)
            for i, part in enumerate(truths(sample, mode, ended)[1]):
                equal(score.logprobs[i], part, f"{mode}, beam at {i}")

    _check(drawn, check)


def test_short_beams_miss_something(drawn: list[Sample], tally: Counter[str]) -> None:
    """The shortest beam is often right and sometimes not: otherwise these samples would tell nothing."""
    for sample in drawn:
        (score,) = _of("beam", sample, "renormalize", beam_width=1, beam_length=0).score([_request(sample)])
        for value, part in zip(score.logprobs, truths(sample, "renormalize")[1], strict=True):
            right = part[0] - TOLERANCE <= math.exp(value) <= part[1] + TOLERANCE
            tally["right" if right else "wrong"] += 1


def test_a_narrow_beam_is_cheap(drawn: list[Sample]) -> None:
    for sample in drawn:
        for width, length in ((1, 0), (1, 2), (3, 2)):
            method = _of("beam", sample, "renormalize", beam_width=width, beam_length=length)
            (score,) = method.score([_request(sample)])
            (plain,) = sample.scorer("renormalize").score([sample.text], sample.prompts)
            _check_shape(sample, score, True)
            assert (score.rows - plain.rows <= width * length).all()
            if np.isfinite(score.logprobs).all():
                total = sample.truths["renormalize"].probability(sample.ids, True)
                equal(float(score.logprobs.sum()), total, "sum of a beam's labels", scale=total[1])


# --- recursion ---


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
            scores = _method("recursion", fn, pair, mode).score(batch)
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
        _method("recursion", fn, pair, budget=1).score([Request("abab", ())])


# --- all ---


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
            method = _of(name, sample, "renormalize", temperature=0.5)
            together = method.score(batch)
            others = _method(name, squared, sample.pair).score(batch)
            for request, score, other in zip(batch, together, others, strict=True):
                (alone,) = method.score([request])
                for field in ("logprobs", "rows", "status", "noncanonical_mass"):
                    np.testing.assert_array_equal(getattr(score, field), getattr(alone, field), err_msg=field)
                np.testing.assert_allclose(np.exp(score.logprobs), np.exp(other.logprobs), atol=1e-12)


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
            _method(name, teacher, pair).score(batch), _method(name, table, pair).score(batch), strict=True
        ):
            np.testing.assert_allclose(np.exp(got.logprobs), np.exp(want.logprobs), atol=1e-4, err_msg=name)
            np.testing.assert_array_equal(got.rows, want.rows)


def student_fits(sample: Sample, text: str, prompt: Any, _: bool) -> bool:
    """Whether a text is admissible after a prompt."""
    try:
        sample.pair.encode(text, prompt is None)
    except ct.TextError:
        return False
    return True


def _squared(sample: Sample) -> Callable[[Any], Any]:
    return lambda ids: 2.0 * sample.fn(ids)


@pytest.mark.parametrize("name", NAMES)
def test_no_texts_and_empty_texts(name: str) -> None:
    toy = toys.make_toy("plain", random.Random(3), alphabet=("a", "b"))
    toy.spec["pre_tokenizer"] = toys.byte_level(False)
    pair = ct.Pair(load(toy.spec), load(toy.spec), toy.eos, toy.eos)
    fn = random_teacher(toys.vocab_size(toy.spec), 3)
    method = _method(name, fn, pair)
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
        method = _of(name, sample, "renormalize")
        with pytest.raises(ct.TextError, match="text 1"):
            method.score([_request(sample), Request(b"\xff", sample.prompt)])


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
            _method(name, fn, pair).distributions([request])
    for name in NAMES:
        with pytest.raises(ct.PlanError, match=name):
            _method(name, fn, pair).distributions([request], top_k=4)


def test_the_samples_were_worth_it(tally: Counter[str]) -> None:
    """Counts of the tests above, over all kinds."""
    if tally["right"] + tally["wrong"] < 2 * PAIRS * len(toys.KINDS):
        pytest.skip("only where all kinds ran")
    print(dict(tally))
    assert min(tally["right"], tally["wrong"]) > 40
    assert tally["single covers"] > 20
    assert min(tally["dummies 11"], tally["dummies 10"], tally["dummies 01"]) > 0
    assert min(tally["agreed"], tally["apart"], tally["inside a teacher token"]) > 200
