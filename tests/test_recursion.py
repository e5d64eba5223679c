"""The merge recursion against brute force, where it holds, and its refusals where it does not.

`crosstok.recursion` decides nothing itself, so the rest of crosstok is checked with it; here it is checked: against
sums over whole texts (HF's encodings alone), against the definitions for teachers of every kind, and against the signed
sums of the paper, term by term.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from oracle import toys
from oracle.brute import BruteTokenizer, Ids
from oracle.scores import BrutePair, BruteScorer, Floats, TeacherFn, random_teacher

pytest.importorskip("torch")

import crosstok as ct
from crosstok.recursion import BUDGET, recursion, recursions
from crosstok.recursion.merges import END, check_symbols, student_merges, undo

WHOLE = toys.byte_level(False)
TOLERANCE = 1e-9
# Characters that brute force adds to a student prefix; those that decide a teacher prefix for any student here.
MOST_TEXTS, LOOK = 800, 3


def _load(spec: toys.Spec) -> Any:
    return ct.Tokenizer.from_json(json.dumps(spec, ensure_ascii=False))


def _made(
    pieces: str,
    merges: str = "",
    pre_tokenizer: toys.Spec | None = WHOLE,
    normalizer: toys.Spec | None = None,
    **model: Any,
) -> toys.Spec:
    """A file from words: pieces separated by blanks, merges as left+right; '<e>' gets the last id."""
    spec = toys.bare_spec(pieces.split(), pre_tokenizer, normalizer, **model)
    vocab = spec["model"]["vocab"]
    for merge in merges.split():
        left, right = merge.split("+")
        spec["model"]["merges"].append([left, right])
        vocab.setdefault(left + right, len(vocab))
    spec["added_tokens"] = [{**toys.added_token("<e>", special=True), "id": len(vocab)}]
    return spec


def _spaced(pieces: str, merges: str = "", **model: Any) -> toys.Spec:
    """A file whose pieces are characters, with spaces written ▁."""
    return _made(pieces, merges, None, toys.replace(), **model)


def _of(teacher: toys.Spec, student: toys.Spec) -> Any:
    """The pair of two files of `_made`."""
    eos = (toys.vocab_size(teacher) - 1, toys.vocab_size(student) - 1)
    return ct.Pair(_load(teacher), _load(student), teacher_eos=eos[0], student_eos=eos[1])


def _student(rng: random.Random, teacher: Any, chars: Sequence[str], kind: str) -> toys.Toy:
    """A toy of a kind for which the recursion holds, with any teacher over these characters."""
    while True:
        toy = toys.make_toy(kind, rng, alphabet=chars)
        if kind != "sentencepiece":
            toy.spec["pre_tokenizer"] = WHOLE
        try:
            check_symbols(teacher, _load(toy.spec))
        except ct.PlanError:
            continue
        return toy


# --- right ---


def test_one_merge_by_hand() -> None:
    """Teacher a, b; student also ab: P(a) = P(bytes a) − P(bytes ab)."""
    pair = _of(_made("a b"), _made("a b", "a+b"))
    assert pair.regime == "general"
    rows = {(): [0.5, 0.3, 0.2], (0,): [0.25, 0.5, 0.25]}
    teacher = ct.TableTeacher(lambda ids: np.log(rows.get(ids, [0.25, 0.25, 0.5])))
    merges = student_merges(pair.student)
    assert undo(merges, (0,), BUDGET) == {(b"a", False): 1, (b"ab", False): -1}
    assert undo(merges, (0, 1), BUDGET) == {} and undo(merges, (), BUDGET) == {(b"", False): 1}
    assert undo(merges, (0, END), BUDGET) == {(b"a", True): 1}
    got = recursion(teacher, pair, [0], prompt=(), ended=True)
    assert np.exp(got.log_p) == pytest.approx([1, 0.5 * 0.5, 0.5 * 0.25], abs=1e-15)
    assert np.exp(got.logprobs) == pytest.approx([0.25, 0.5])
    assert got.student_ids.tolist() == [0, 3] and got.terms.tolist() == [1, 2, 1]
    assert got.rows.tolist() == [0, 2, 2] and got.log_p.dtype == np.float64
    assert np.exp(recursion(teacher, pair, [2], prompt=()).log_p) == pytest.approx([1, 0.25], abs=1e-15)


def _ending(fn: TeacherFn, eos: int, length: int) -> TeacherFn:
    """The teacher that ends every text after `length` ids."""

    def row(ids: Ids) -> Floats:
        logs = fn(ids)
        return logs if len(ids) < length else np.where(np.arange(len(logs)) == eos, 0.0, -np.inf)

    return row


def _whole_texts(brute: BruteTokenizer, fn: TeacherFn, eos: int, context: Ids) -> dict[str, float]:
    """All texts of a teacher that ends, with their probabilities.

    Without pretokenizer and with one byte a character, e is a canonical prefix if it is the encoding of its text.
    """
    ordinary = sorted(set(brute.token_bytes) - brute.special)
    texts: dict[str, float] = {}
    waiting: list[tuple[Ids, float]] = [((), 1.0)]
    for ids, q in waiting:
        row = np.exp(fn(context + ids))
        longer = [(*ids, token) for token in ordinary if row[token] > 0]
        longer = [more for more in longer if brute.raw_encode(brute.decode(more).decode()) == more]
        mass = math.fsum([*(row[more[-1]] for more in longer), row[eos]])
        texts[brute.decode(ids).decode()] = q * row[eos] / mass
        waiting += [(more, q * row[more[-1]] / mass) for more in longer]
    return texts


@pytest.mark.parametrize("kind", ["plain", "derivations", "improper"])
def test_plain_pairs_equal_sums_over_whole_texts(kind: str) -> None:
    """Every prefix, end-of-text included, of texts and of ids that no text has. Several derivations do no harm."""
    general = merged = 0
    for seed in range(14):
        rng = random.Random(f"recursion {kind} {seed}")
        chars = rng.choice((("a", "b"), ("a", "b", "c"), ("a", " ", "1")))
        toy = toys.make_toy("plain", rng, alphabet=chars)
        student = _student(rng, _load(toy.spec), chars, kind)
        pair = ct.Pair(_load(toy.spec), _load(student.spec), teacher_eos=toy.eos, student_eos=student.eos)
        general += pair.regime == "general"
        brute = BruteTokenizer(student.spec, chars, 1)
        context = (rng.randrange(toys.vocab_size(toy.spec)),)
        fn = _ending(random_teacher(toys.vocab_size(toy.spec), seed), toy.eos, 4)
        texts = _whole_texts(BruteTokenizer(toy.spec, chars, 1), fn, toy.eos, context)
        assert math.fsum(texts.values()) == pytest.approx(1)
        begun: defaultdict[Ids, float] = defaultdict(float)
        complete: defaultdict[Ids, float] = defaultdict(float)
        for text, q in texts.items():
            ids = brute.raw_encode(text)
            complete[ids] += q
            for i in range(len(ids) + 1):
                begun[ids[:i]] += q
        tokens = range(toys.vocab_size(student.spec))
        others = rng.choices(list(itertools.product(tokens, repeat=3)), k=30)
        for ids in [*rng.sample(sorted(complete), min(5, len(complete))), *others]:
            got = recursion(ct.TableTeacher(fn), pair, ids, prompt=context, ended=True)
            expected = [begun[ids[:i]] for i in range(len(ids) + 1)] + [complete[ids]]
            np.testing.assert_allclose(np.exp(got.log_p), expected, rtol=1e-9, atol=0)
            merged += max(got.terms.tolist()) > 1
    assert general > 5 and merged > 50


def _samples(kind: str, count: int) -> Iterator[tuple[Any, BrutePair, toys.Toy, toys.Toy, random.Random]]:
    """Pairs with a teacher of a kind; the student's vocabulary spells what the teacher's does."""
    for seed in range(count):
        rng = random.Random(f"recursion teacher {kind} {seed}")
        toy = toys.make_toy(kind, rng, max_texts=300)
        own = "sentencepiece" if kind == "sentencepiece" and seed % 2 else "plain"
        student = _student(rng, _load(toy.spec), toy.chars, own)
        pair = ct.Pair(_load(toy.spec), _load(student.spec), teacher_eos=toy.eos, student_eos=student.eos)
        most = toy.ahead + 1
        while len(toy.chars) ** (most + 1) <= MOST_TEXTS:
            most += 1
        teacher = BruteTokenizer(toy.spec, toy.chars, most)
        brute = BrutePair(teacher, BruteTokenizer(student.spec, toy.chars, 0), LOOK)
        yield pair, brute, toy, student, rng


@pytest.mark.parametrize("kind", toys.KINDS)
def test_any_teacher_in_both_modes_equals_the_definition(kind: str) -> None:
    """Pretokenizers, normalizers, added tokens and fallback of the teacher are its own affair; so are dead rows."""
    seen = 0
    for seed, (pair, brute, toy, student, rng) in enumerate(_samples(kind, 5)):
        fn = random_teacher(toys.vocab_size(toy.spec), seed, dead=0.08 if seed % 2 else 0.0)
        texts = {text: sigma for text, (_, sigma) in brute.texts_from(b"").items() if 1 <= len(text) <= 3}
        ids = texts[rng.choice(sorted(texts))] if texts else ()
        for mode in ("renormalize", "mask"):
            truth = BruteScorer(fn, brute, [toy.eos], student.eos, mode, (0,))
            got = recursion(ct.TableTeacher(fn), pair, ids, prompt=(0,), ended=True, canonical=mode)
            for i in range(len(ids) + 2):
                low, high = truth.probability(ids[:i], ended=i > len(ids))
                p = math.exp(got.log_p[i])
                assert low - TOLERANCE <= p <= high + TOLERANCE, (seed, mode, ids, i)
                seen += high - low < TOLERANCE
    assert seen >= 20


def test_it_is_the_signed_sum_of_the_paper() -> None:
    """Where no row loses mass, Σ c · P(bytes) over `undo` and plain byte covers gives the same."""
    terms = 0
    for seed, (pair, brute, toy, student, rng) in enumerate(_samples("plain", 4)):
        fn = random_teacher(toys.vocab_size(toy.spec), seed)
        truth = BruteScorer(fn, brute, [toy.eos], student.eos, context=(0,))
        merges = student_merges(pair.student)
        for _ in range(4):
            ids = brute.student.raw_encode(toy.random_text(rng, 4))
            got = recursion(ct.TableTeacher(fn), pair, ids, prompt=(0,))
            for i in range(len(ids) + 1):
                signed = 0.0
                for term, factor in undo(merges, ids[:i], BUDGET).items():
                    covers = pair.teacher.covers(term.data)
                    signed += factor * math.fsum(truth.q(tuple(cover.tolist())) for cover in covers)
                    terms += 1
                assert math.exp(got.log_p[i]) == pytest.approx(signed, abs=TOLERANCE)
    assert terms > 50


def test_first_merges_equal_the_scorer() -> None:
    """In the regime "subset" `Scorer` is exact, by other means; so is the order of its numbers."""
    for seed in range(6):
        rng = random.Random(f"recursion subset {seed}")
        toy = toys.make_toy("plain", rng)
        teacher = _load(toy.spec)
        student = teacher.first_merges(rng.randint(0, len(toy.spec["model"]["merges"])))
        pair = ct.Pair(teacher, student, teacher_eos=toy.eos, student_eos=int(student.special_ids[0]))
        try:
            student_merges(student)
        except ct.PlanError:  # improper
            continue
        fn = random_teacher(toys.vocab_size(toy.spec), seed, dead=0.05)
        text = _spelled(toy, teacher, rng)
        for mode in ("renormalize", "mask"):
            (score,) = ct.Scorer(ct.TableTeacher(fn), pair, canonical=mode, temperature=1.5).score([text])
            request = ct.Request(text)
            (got,) = recursions(ct.TableTeacher(fn), pair, [request], canonical=mode, temperature=1.5)
            np.testing.assert_array_equal(got.student_ids, score.student_ids)
            np.testing.assert_allclose(got.log_p[1:], score.prefix_lower, rtol=0, atol=TOLERANCE)
            np.testing.assert_allclose(got.logprobs, score.logprobs, rtol=0, atol=TOLERANCE)


def _spelled(toy: toys.Toy, tokenizer: Any, rng: random.Random) -> str:
    """A random text that the tokenizer can spell."""
    while True:
        text = toy.random_text(rng, 5)
        try:
            tokenizer.check_admissible(text)
        except ct.TextError:
            continue
        return text


def test_a_text_has_the_same_probability_for_every_student() -> None:
    teacher = _made("a b", "a+b b+a ab+a")
    students = [_made("b a"), _made("a b", "b+b a+a"), _made("a b", "a+b ab+b a+abb")]
    fn = random_teacher(toys.vocab_size(teacher), 5)
    totals = []
    for student in students:
        requests = [ct.Request(text, prompt=(2,)) for text in ("abbab", "", "aaa")]
        found = list(recursions(ct.TableTeacher(fn), _of(teacher, student), requests))
        totals.append([one.log_p[-1] for one in found])
        assert [float(one.log_p[0]) for one in found] == [0.0] * 3
    np.testing.assert_allclose(totals, [totals[0]] * 3, rtol=0, atol=1e-12)


def test_rows_of_other_widths_and_texts_that_end_in_two_ways() -> None:
    spec, student = _made("a b", "a+b"), _made("a b", "b+a")
    spec["added_tokens"].append({**toys.added_token("<f>", special=True), "id": 4})
    pair = ct.Pair(_load(spec), _load(student), teacher_eos=[3, 4], student_eos=3)
    one = ct.Pair(_load(spec), _load(student), teacher_eos=[3], student_eos=3)
    rows = np.log([0.3, 0.2, 0.1, 0.15, 0.05, 0.2])  # the last entry is padding

    def table(width: int) -> Any:
        return ct.TableTeacher(lambda _: rows[:width])

    got = recursion(table(6), pair, [0], prompt=(), ended=True, canonical="mask")
    # The start: a, ab; after a: not b, which would have merged.
    assert np.exp(got.log_p) == pytest.approx([1, 0.4, 0.3 * 0.2])
    got = recursion(table(6), pair, [0], prompt=(), ended=True)
    first, after = 0.8, 0.3 + 0.1 + 0.2
    assert np.exp(got.log_p) == pytest.approx([1, 0.4 / first, 0.3 / first * 0.2 / after])
    assert np.exp(recursion(table(4), one, [0], prompt=()).log_p[1]) == pytest.approx(0.4 / 0.75)
    with pytest.raises(ct.TeacherError, match="4 entries, fewer than its tokenizer has tokens"):
        recursion(table(4), pair, [0], prompt=())
    with pytest.raises(ct.TeacherError, match="NaN"):
        recursion(ct.TableTeacher(lambda _: rows * np.nan), pair, [0], prompt=())


def test_what_has_no_probability() -> None:
    """Ids that no text has, tokens that are special or unknown to the vocabulary, and rows without canonical mass."""
    pair = _of(_made("a b"), _made("a b", "a+b"))
    teacher = ct.TableTeacher(random_teacher(3, 0))
    for ids in ([0, 1], [0, 3], [0, 99]):
        got = recursion(teacher, pair, ids, prompt=(), ended=True)
        assert np.isfinite(got.log_p[:2]).all() and np.isneginf(got.log_p[2:]).all()
        assert np.isfinite(got.logprobs[0]) and np.isneginf(got.logprobs[1:]).all()
    dead = ct.TableTeacher(lambda ids: random_teacher(3, 0)(ids) if len(ids) < 1 else [-np.inf] * 3)
    assert np.isneginf(recursion(dead, pair, [0], prompt=()).log_p[1])  # a undecided, and nothing after it
    assert np.isfinite(recursion(dead, pair, [1], prompt=()).log_p[1])
    with pytest.raises(ValueError, match="id -1 is negative"):
        recursion(teacher, pair, [-1], prompt=())
    with pytest.raises(ValueError, match="canonical must be"):
        recursion(teacher, pair, [0], prompt=(), canonical="no")
    with pytest.raises(ValueError, match="temperature must be positive"):
        recursion(teacher, pair, [0], prompt=(), temperature=0.0)


# --- refused ---

A_SPLIT = {**toys.split(" "), "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
REFUSED = {
    "with the normalizer NFC": _made("a b", normalizer={"type": "NFC"}),
    "with a pretokenizer that cuts, ByteLevel": _made("a b", pre_tokenizer=toys.byte_level(True)),
    "with a pretokenizer that cuts, Split": _made("a b", pre_tokenizer=toys.patterns(toys.QWEN)),
    "with a pretokenizer that cuts, Metaspace": _made("▁ a b", pre_tokenizer=toys.metaspace("never", True)),
    "with byte fallback": _spaced("a b <0x61>", byte_fallback=True),
    "with ignore_merges and 'ba', which merging does not make": _made("a b ba", ignore_merges=True),
    "with the improper token b'aab': a later merge makes its part b'ab'": _made("a b ab", "a+ab a+b"),
    "that cannot spell b'b' of the teacher's token b'b'": _made("a"),
    "that cannot spell b' ' of the teacher's token b' '": _spaced("a b"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused_students(why: str) -> None:
    teacher = _made("a b" + " Ġ" * ("b' '" in why))
    pair = _of(teacher, REFUSED[why])
    with pytest.raises(ct.PlanError, match="the recursion does not hold for a student ") as caught:
        recursion(ct.TableTeacher(random_teacher(toys.vocab_size(teacher), 0)), pair, [0], prompt=())
    assert str(caught.value).endswith(why)


def test_refused_added_and_special_tokens() -> None:
    added, special = _made("a b", "a+b"), _made("a b", "a+b")
    added["added_tokens"].append({**toys.added_token("ba", special=False), "id": 4})
    special["added_tokens"].append({**toys.added_token("ab", special=True), "id": 2})
    for spec, why in ((added, "added token 'ba', which is not special"), (special, "special token b'ab'")):
        pair = ct.Pair(_load(_made("a b")), _load(spec), teacher_eos=2, student_eos=3)
        with pytest.raises(ct.PlanError, match=why):
            recursion(ct.TableTeacher(random_teacher(3, 0)), pair, [0], prompt=())


def test_refused_dummy_prefixes() -> None:
    plain = _spaced("▁ a b")
    dummy = _made("▁ a b", pre_tokenizer=None, normalizer=toys.prepend())
    teacher = ct.TableTeacher(random_teacher(4, 0))
    for whose, pair in (("teacher", _of(dummy, plain)), ("student", _of(plain, dummy))):
        assert np.isfinite(recursion(teacher, pair, [1], prompt=()).log_p).all()
        with pytest.raises(ct.PlanError, match=rf"{whose} with a dummy prefix .* pass a prompt"):
            recursion(teacher, pair, [1])


def test_what_looks_like_a_refusal_and_is_none() -> None:
    """Without effect: a split at spaces that are written ▁, look-up of what merging makes, fallback without bytes."""
    teacher = _spaced("▁ a b")
    harmless = (
        _made("▁ a b", "▁+a", A_SPLIT, toys.replace()),
        _spaced("▁ a b", "▁+a", byte_fallback=True),
        _spaced("▁ a b", "▁+a", ignore_merges=True),
        _made("▁ a b", "▁+a", toys.metaspace("never", False)),
    )
    fn = random_teacher(4, 1)
    logs = [recursion(ct.TableTeacher(fn), _of(teacher, one), [0, 2, 3], prompt=()).log_p for one in harmless]
    np.testing.assert_array_equal(logs, [logs[0]] * len(logs))
    assert np.isfinite(logs[0]).all()


def test_budget() -> None:
    letters = "abcdefgh"
    merges = " ".join(f"{left}+{right}" for left, right in itertools.product(letters, repeat=2))
    pair = _of(_made(" ".join(letters)), _made(" ".join(letters), merges))
    teacher = ct.TableTeacher(random_teacher(9, 0))
    with pytest.raises(
        ct.PlanError, match="more than 5 steps of the recursion for a student prefix of length 1"
    ):
        recursion(teacher, pair, [7], prompt=(), budget=5)
    student = _load(_made(" ".join(letters)))
    none = ct.Pair(pair.teacher, student, teacher_eos=8, student_eos=8)
    assert recursion(teacher, none, [0] * 5, prompt=(), budget=5).rows.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ct.PlanError, match="more than 4 teacher prefixes or 400 covers for b'aaaaa'"):
        recursion(teacher, none, [0] * 5, prompt=(), budget=4)


def test_a_pair_that_is_listed_twice_has_its_later_rank() -> None:
    student = student_merges(_load(_made("a b", "a+b b+a a+b")))
    assert student.steps == [(1, 0, 3), (0, 1, 2)]


def test_errors_name_the_text() -> None:
    pair = _of(_made("a b"), _made("a b", "a+b"))
    teacher = ct.TableTeacher(random_teacher(3, 0))
    good = ct.Request("a", prompt=())
    with pytest.raises(ct.TextError, match="text 1"):
        list(recursions(teacher, pair, [good, ct.Request("c", prompt=())]))
    with pytest.raises(ct.PlanError, match="text 1: more than 2 teacher prefixes"):
        list(recursions(teacher, pair, [good, ct.Request("bbbb", prompt=())], budget=2))
    broken = ct.TableTeacher(lambda ids: random_teacher(3, 0)(ids) * (np.nan if ids == (1,) else 1))
    with pytest.raises(ct.TeacherError, match="text 1"):
        list(recursions(broken, pair, [good, ct.Request("ba", prompt=())]))
