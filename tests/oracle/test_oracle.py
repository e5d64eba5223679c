"""The oracle against hand-computed cases, and against itself where definitions must agree."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from . import toys
from .brute import BruteTokenizer
from .scores import BrutePair, BruteScorer, UndecidedError, random_teacher

BYTES = toys.byte_alphabet()


def _make(
    pieces: str,
    merges: str,
    pre_tokenizer: toys.Spec | None = None,
    normalizer: toys.Spec | None = None,
    **model: object,
) -> toys.Spec:
    """A spec from words: `pieces` and `merges` are blank-separated, a merge is written `left+right`; '<e>'
    gets the last id.
    """
    spec = toys.bare_spec(pieces.split(), pre_tokenizer, normalizer, **model)
    vocab = spec["model"]["vocab"]
    for merge in merges.split():
        left, right = merge.split("+")
        spec["model"]["merges"].append([left, right])
        vocab.setdefault(left + right, len(vocab))
    spec["added_tokens"].append({**toys.added_token("<e>", special=True), "id": len(vocab)})
    return spec


def _names(spec: toys.Spec, names: str) -> tuple[int, ...]:
    return tuple(spec["model"]["vocab"][name] for name in names.split())


QWEN = toys.patterns(toys.QWEN)


def test_qwen_prefix_that_no_round_trip_finds() -> None:
    spec = _make("a Ġ 1", "Ġ+Ġ", QWEN)
    brute = BruteTokenizer(spec, ["a", " ", "1"], 4)
    assert brute.encode("a  1") == _names(spec, "a Ġ Ġ 1")
    assert brute.encode("a  ") == _names(spec, "a ĠĠ")
    assert brute.is_canonical(_names(spec, "a Ġ Ġ"))
    assert not brute.is_canonical(_names(spec, "a Ġ Ġ"), complete=True)
    assert brute.canonical_next(_names(spec, "a Ġ Ġ")) == ({*_names(spec, "a 1")}, False)
    assert brute.covers(b"a  ") == {_names(spec, "a ĠĠ"), _names(spec, "a Ġ Ġ")}
    assert brute.covers(b"") == {()}


def test_no_witness_no_prefix() -> None:
    """Design.md, fact 1: every pair and boundary of [a, ␣, ␣] is fine, yet nothing yields it."""
    spec = _make("a Ġ 1", "Ġ+a Ġ+1 Ġ+Ġ", toys.byte_level(True))
    brute = BruteTokenizer(spec, ["a", " ", "1"], 5)
    assert not brute.is_canonical(_names(spec, "a Ġ Ġ"))
    assert brute.is_canonical(_names(spec, "a Ġ Ġa"))


def test_whole_pretoken_look_up() -> None:
    """A token that no merge reaches is canonical only as a whole pretoken, and the pretoken's merge encoding
    is not.
    """
    spec = _make("a b ab", "", QWEN, ignore_merges=True)
    brute = BruteTokenizer(spec, ["a", "b"], 5)
    assert brute.encode("ab") == _names(spec, "ab")
    assert brute.encode("aba") == _names(spec, "a b a")
    assert brute.canonical_next(_names(spec, "ab")) == (set(), True)
    assert brute.is_canonical(_names(spec, "a b")) and not brute.is_canonical(
        _names(spec, "a b"), complete=True
    )


def test_fallback_bytes_of_a_character_with_a_piece_are_not_canonical() -> None:
    spec = _make(
        "<unk> <0xC3> <0xA9> <0xAA> é a", "", None, toys.replace(), unk_token="<unk>", byte_fallback=True
    )
    brute = BruteTokenizer(spec, ["é", "ê", "a"], 3)
    assert brute.encode("é") == _names(spec, "é")
    assert brute.encode("ê") == _names(spec, "<0xC3> <0xAA>")
    assert not brute.is_canonical(_names(spec, "<0xC3> <0xA9>"))
    assert brute.canonical_next(_names(spec, "<0xC3>")) == ({*_names(spec, "<0xAA>")}, False)
    assert brute.covers("é".encode()[:1]) == {_names(spec, "é"), _names(spec, "<0xC3>")}


def test_normalizer_and_added_tokens() -> None:
    spec = _make("a Ì § ģ", "", toys.byte_level(False), {"type": "NFC"})
    assert {BYTES[byte] for byte in "\u0327\u0301".encode()} <= set(spec["model"]["vocab"])
    brute = BruteTokenizer(spec, ["a", toys.CEDILLA, toys.ACUTE], 3)
    assert brute.encode("a" + toys.CEDILLA) is not None
    assert brute.encode(toys.CEDILLA + toys.ACUTE) is not None
    assert brute.encode("a" + toys.CEDILLA + toys.ACUTE) is None  # Together they compose to á with a cedilla.
    spec = _make("< a > b", "", toys.byte_level(False))
    for content, special in (("<a>", False), ("b<", True)):
        spec["added_tokens"].append(
            {**toys.added_token(content, special=special), "id": toys.vocab_size(spec)}
        )
    brute = BruteTokenizer(spec, ["<", "a", ">", "b"], 4)
    assert brute.encode("<a>") == (5,)
    assert not brute.is_canonical(_names(spec, "< a >"))
    # The special token is found first and skipped, and what it hides is not found any more.
    assert brute.encode("b<a>") == _names(spec, "b < a >")


def test_dummy_prefix() -> None:
    spec = _make("<unk> ▁ a", "▁+a", None, {"type": "Sequence", "normalizers": []}, unk_token="<unk>")
    spec["normalizer"]["normalizers"] = [{"type": "Prepend", "prepend": "▁"}, toys.replace()]
    begun = BruteTokenizer(spec, ["a", " "], 4, start=True)
    inner = BruteTokenizer(spec, ["a", " "], 4)
    assert begun.encode("a a") == _names(spec, "▁a ▁a") and inner.encode("a a") == _names(spec, "a ▁a")
    assert begun.encode("") == () == inner.encode("") and begun.encode(" ") == _names(spec, "▁ ▁")
    assert begun.covers(b"") == {()} and begun.covers(b"a") == {_names(spec, "▁a")}
    assert not begun.is_canonical(_names(spec, "a")) and inner.is_canonical(_names(spec, "a"))
    spec["normalizer"], spec["pre_tokenizer"] = None, toys.metaspace("first", True)
    begun = BruteTokenizer(spec, ["a", " "], 4, start=True)
    assert begun.encode("a") == _names(spec, "▁a") and begun.raw_encode(" a") == _names(spec, "▁a")
    assert begun.encode(" a") is None


def test_byte_student_by_hand() -> None:
    """Teacher tokens a, b, ab: P("a") = q(a) + q(ab); after "a" the student's b can only come from ab."""
    spec = _make("a b", "a+b", toys.byte_level(False))
    student = _make("a b", "", toys.byte_level(False))
    rows: dict[tuple[int, ...], list[float]] = {(): [0.2, 0.3, 0.1, 0.4], (0,): [0.25, 0.5, 0.05, 0.2]}
    pair = BrutePair(BruteTokenizer(spec, ["a", "b"], 4), BruteTokenizer(student, ["a", "b"], 4))
    scorers = {
        mode: BruteScorer(lambda ids: np.log(rows.get(ids, [0.25] * 4)), pair, [3], 2, mode)
        for mode in ("renormalize", "mask")
    }
    assert pair.relative_covers((0,)).covers == {((0,), False), ((2,), False)}
    assert pair.relative_covers((0, 1)).covers == {((2,), False)}
    for scorer in scorers.values():
        assert scorer.probability((0,)) == pytest.approx((0.3, 0.3))
        assert scorer.next_tokens((0,))[1] == pytest.approx((0.1, 0.1))
    # After a, "b" is not canonical (it would have merged): 0.5 is removed.
    assert scorers["renormalize"].next_tokens((0,))[2][0] == pytest.approx(0.2 * 0.2 / 0.5)
    assert scorers["mask"].next_tokens((0,))[2][0] == pytest.approx(0.2 * 0.2)
    ended = scorers["mask"].score((0,), ended=True)
    assert np.exp(ended.logprobs) == pytest.approx([0.3, 0.04 / 0.3])
    assert ended.noncanonical_mass == pytest.approx([0.0, 0.5])


def test_straddling_teacher_is_followed_or_reported() -> None:
    """Teacher a|b, student ab: [a] is undecided for s = [a], its continuations are not. General regime."""
    teacher = _make("a b", "", toys.byte_level(False))
    student = _make("a b", "a+b", toys.byte_level(False))
    pair = BrutePair(BruteTokenizer(teacher, ["a", "b"], 4), BruteTokenizer(student, ["a", "b"], 4), look=1)
    split = pair.relative_covers((0,))
    assert split.covers == {((0, 0), False), ((0,), True)} and not split.undecided
    assert pair.relative_covers((2,)).covers == {((0, 1), False)}


def _no_merges(spec: toys.Spec) -> toys.Spec:
    """The spec's own symbols as a student: no merges, no whole-pretoken look-up."""
    spec = dict(spec, model=dict(spec["model"], merges=[], ignore_merges=False))
    return spec


def _check_closed(toy: toys.Toy, brute: BruteTokenizer, rng: random.Random) -> None:
    """What random tokens spell, if it is a text, is a text over the toy's characters."""
    ordinary = sorted(set(range(brute.vocab_size)) - brute.special)
    assert toys.longest_token(toy.spec) <= toys.MAX_TOKEN_CHARS + 1 and len(toy.chars) <= 6
    for _ in range(50):
        spelled = brute.decode(rng.choices(ordinary, k=3))
        try:
            assert set(spelled.decode()) <= set(toy.chars)
        except UnicodeDecodeError:
            continue


def _check_same(same: BruteScorer, ids: tuple[int, ...]) -> float:
    """The plain chain rule for the tokenizer itself, every number of it. Returns log P of all tokens."""
    score = same.score(ids, inadmissible=True)
    for i, token in enumerate(ids):
        assert score.prefix_logprobs[i] == pytest.approx(_log(same.q(ids[: i + 1])))
        if np.isfinite(score.prefix_logprobs[i]):
            assert score.noncanonical_mass[i] == pytest.approx(1 - same.node(ids[:i])[2])
        assert token in same.node(ids[:i])[0]
    assert np.all(np.isnan(score.inadmissible_mass) | (np.abs(score.inadmissible_mass) < 1e-12))
    return float(score.prefix_logprobs[-1])


def _check_other(other: BruteScorer, ids: tuple[int, ...], total: float) -> None:
    """Another student: the parts telescope, and the total does not depend on it."""
    parts = other.score(ids, inadmissible=True)
    assert parts.exact.all()
    assert parts.prefix_logprobs[-1] == pytest.approx(total)
    if np.isfinite(parts.logprobs).all():
        assert parts.logprobs.sum() == pytest.approx(parts.prefix_logprobs[-1])
    assert np.all(np.isnan(parts.inadmissible_mass) | (np.abs(parts.inadmissible_mass) < 1e-12))


@pytest.mark.parametrize("kind", toys.KINDS)
def test_toys_load_and_consequences_hold(kind: str) -> None:
    """For random toys: the closed alphabet, Σ_v P(v | s) = 1 for the same tokenizer, totals equal for an
    unmerged student.
    """
    real = 0
    for seed in range(3):
        rng = random.Random(f"{kind} oracle {seed}")
        toy = toys.make_toy(kind, rng, max_texts=1100)
        brute = BruteTokenizer(toy.spec, toy.chars, toy.ahead, start=rng.random() < 0.5)
        _check_closed(toy, brute, rng)
        texts = [text for text in brute.texts if 1 <= len(text) <= 3]
        if not texts:
            continue
        text = rng.choice(texts)
        ids = brute.texts[text]
        assert brute.is_canonical(ids, complete=True)
        fn = random_teacher(brute.vocab_size, seed, dead=0.05 if seed % 2 else 0.0)
        total = _check_same(BruteScorer(fn, BrutePair(brute, brute), [toy.eos], toy.eos), ids)
        unmerged = BruteTokenizer(_no_merges(toy.spec), toy.chars, toy.ahead, start=brute.dummy)
        small = unmerged.encode(text)
        if small is not None and kind != "added":
            _check_other(BruteScorer(fn, BrutePair(brute, unmerged), [toy.eos], toy.eos), small, total)
        real += 1
    assert real >= 2


@pytest.mark.parametrize("kind", toys.KINDS)
def test_enumeration_goes_far_enough(kind: str) -> None:
    """One more character past the stem changes no answer: `Toy.look` is large enough."""
    checked = 0
    for seed in range(3):
        rng = random.Random(f"{kind} horizon {seed}")
        toy = toys.make_toy(kind, rng, max_texts=1100)
        near, far = (BruteTokenizer(toy.spec, toy.chars, toy.ahead + more) for more in (0, 1))
        for text in rng.sample(sorted(near.texts), min(3, len(near.texts))):
            ids = near.texts[text]
            some = ids[: rng.randint(0, min(2, len(ids)))]
            assert near.canonical_next(some) == far.canonical_next(some)
            assert near.covers(text.encode()[:2]) == far.covers(text.encode()[:2])
            checked += 1
    assert checked


def test_teacher_table() -> None:
    fn = random_teacher(7, 3, dead=0.3)
    assert np.array_equal(fn((1, 2)), fn((1, 2))) and not np.array_equal(fn((1,)), fn((1, 0)))
    assert np.exp(fn(())).sum() == pytest.approx(1.0) and fn(()).dtype == np.float64


def test_exact_value_of_something_undecided_is_refused() -> None:
    """Student merges (a, a): whether a run of a's is [aa] or [a] first depends on nothing near, so it stays
    undecided.
    """
    teacher = _make("a b", "", toys.byte_level(False))
    student = _make("a b", "a+b a+ab", toys.byte_level(False))
    pair = BrutePair(BruteTokenizer(teacher, ["a", "b"], 3), BruteTokenizer(student, ["a", "b"], 3), look=3)
    scorer = BruteScorer(random_teacher(3, 0), pair, [2], 4)
    low, high = scorer.probability((0,))
    assert low < high
    with pytest.raises(UndecidedError):
        scorer.distribution((0,), 5)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf
