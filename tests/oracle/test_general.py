"""The oracle of the general regime against hand-computed cases, and against itself where it sees further."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from . import toys
from .brute import BruteTokenizer, Ids
from .general import IN, OUT, UNDECIDED, GeneralPair, GeneralScorer
from .pairs import brute_pair, some_text, student_kind, two_toys
from .scores import BrutePair, Floats, TeacherFn, random_teacher

PAIRS = 6


def _spec(pieces: str, merges: str, pre_tokenizer: toys.Spec) -> toys.Spec:
    """A byte-level file from words; '<e>' gets the last id."""
    spec = toys.bare_spec(pieces.split(), pre_tokenizer)
    vocab = spec["model"]["vocab"]
    for merge in merges.split():
        left, right = merge.split("+")
        spec["model"]["merges"].append([left, right])
        vocab.setdefault(left + right, len(vocab))
    spec["added_tokens"].append({**toys.added_token("<e>", special=True), "id": len(vocab)})
    return spec


def _pair(teacher: toys.Spec, student: toys.Spec, chars: list[str]) -> GeneralPair:
    ahead = toys.longest_token(teacher) + 2
    far = toys.longest_token(student) + 2
    return GeneralPair(BruteTokenizer(teacher, chars, ahead), BruteTokenizer(student, chars, 0), far)


def test_straddling_student_token_by_hand() -> None:
    """Teacher a|b, student ab: after a teacher's "a" the student has "a" or "ab", after the next token it is known."""
    plain = toys.byte_level(False)
    pair = _pair(_spec("a b", "", plain), _spec("a b", "a+b", plain), ["a", "b"])
    a, b, ab = 0, 1, 2
    assert pair.byte_covers((a,)) == {(a,): UNDECIDED}
    assert pair.byte_covers((ab,)) == {(a, b): IN}
    assert pair.byte_covers((b, a)) == {(b, a): UNDECIDED}
    assert pair.decide((a, b), (a,)) == OUT and pair.decide((a, a), (a,)) == IN
    split = pair.relative_covers((a,))
    assert split.covers == {((a, a), False), ((a,), True)} and not split.undecided
    rows: dict[Ids, list[float]] = {(): [0.6, 0.3, 0.1], (a,): [0.5, 0.2, 0.3]}
    scorer = GeneralScorer(lambda ids: np.log(rows.get(ids, [0.4, 0.4, 0.2])), pair, [2], 3)
    assert scorer.probability((a,)) == pytest.approx((0.48, 0.48))
    assert scorer.probability((ab,)) == pytest.approx((0.12, 0.12))
    assert scorer.probability((a,), ended=True) == pytest.approx((0.18, 0.18))
    assert scorer.next_tokens(())[b] == pytest.approx((0.3, 0.3))


def test_what_the_student_cannot_spell_is_out() -> None:
    plain = toys.byte_level(False)
    pair = _pair(_spec("a b", "a+b", plain), _spec("a", "a+a", plain), ["a", "b"])
    a, ab = 0, 2
    assert pair.chars == ["a"]
    assert pair.byte_covers((0,)) == {(a,): UNDECIDED, (ab,): OUT}
    scorer = GeneralScorer(lambda ids: np.log([0.2, 0.1, 0.3, 0.4]), pair, [3], 2)
    # Not canonical: b after a. One a and the end, or two, never ab.
    after = 0.2 + 0.3 + 0.4
    assert scorer.probability((0,)) == pytest.approx(2 * (0.2 * 0.4 / after,))
    assert scorer.probability((1,)) == pytest.approx(2 * (0.2 * 0.2 / after,))
    assert sum(low for low, _ in scorer.next_tokens(()).values()) < 1


def test_spaces_stay_undecided_until_they_end() -> None:
    """Qwen's pattern joins any number of newlines and spaces to a last newline: no horizon shows that for a prefix."""
    teacher = _spec("Ġ Ċ a", "", toys.byte_level(False))
    student = _spec("Ġ Ċ a", "Ċ+Ġ", toys.patterns(toys.QWEN))
    pair = _pair(teacher, student, [" ", "\n", "a"])
    space, newline = 0, 1
    for spaces in range(1, 12):
        assert pair.decide((newline, *(space,) * spaces), (newline,)) == UNDECIDED
    assert pair.decide((newline, space, space, newline), (newline,)) == OUT
    assert pair.decide((newline, space, space, 2), (newline,)) == IN
    split = pair.relative_covers((newline,))
    assert split.undecided == {(newline, *(space,) * (1 + pair.far))}
    lower, upper = GeneralScorer(random_teacher(4, 1), pair, [3], 4).probability((newline,))
    assert 0 < upper - lower < 1e-12


def _decisions(pair: GeneralPair, text: str, rng: random.Random) -> dict[tuple[Ids, Ids], int]:
    """Decisions for the covers of a text's prefixes, and for some continuations of the undecided ones."""
    sigma = pair.student.encode(text)
    assert sigma is not None
    for i in range(len(sigma) + 1):
        waiting = [
            (e, sigma[:i]) for e, decision in pair.byte_covers(sigma[:i]).items() if decision == UNDECIDED
        ]
        for e, s in rng.sample(waiting, min(2, len(waiting))):
            for token in pair.teacher.canonical_next(e)[0]:
                pair.decide((*e, token), s)
    return dict(pair._decided)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_decisions_come_early_enough(kind: str) -> None:
    """An enumeration that sees two characters further, and random texts far beyond it, change no decision."""
    seen: Counter[int] = Counter()
    for number in range(PAIRS):
        rng = random.Random(f"{kind} far {number}")
        teacher, student = two_toys(kind, student_kind(kind, 2 * number + 1), rng)
        near, far = (brute_pair(teacher, student, more=more) for more in (0, 2))
        text = some_text(near, rng, least=1, size=3)
        if text is None or len(near.chars) ** far.far > 3000:
            continue
        for (e, s), decision in _decisions(near, text, rng).items():
            where = (kind, number, student.kind, text, e, s)
            assert decision == far.decide(e, s), where
            assert decision == near.distant(e, s, rng, 12, near.far + 6), where
            seen[decision] += 1
    assert sum(seen.values()) >= 20 and seen[IN] and seen[UNDECIDED], seen


def _hasty_teacher(size: int, seed: int, eos: int) -> TeacherFn:
    """A random teacher that ends a text after most tokens, so that short texts have nearly all mass."""
    wild = random_teacher(size, seed)

    def row(ids: Ids) -> Floats:
        p = 0.05 * np.exp(wild(ids))
        p[eos] += 0.95
        return np.log(p)

    return row


@pytest.mark.parametrize("kind", toys.KINDS)
def test_prefixes_have_the_mass_of_their_texts(kind: str) -> None:
    """P(s) against the plain sum over complete texts whose student encoding starts with s: no covers, no decisions."""
    tight = 0
    for number in range(PAIRS):
        rng = random.Random(f"{kind} mass {number}")
        teacher, student = two_toys(kind, student_kind(kind, 2 * number), rng)
        pair = brute_pair(teacher, student)
        text = some_text(pair, rng, size=3)
        if text is None:
            continue
        fn = _hasty_teacher(toys.vocab_size(teacher.spec), number, teacher.eos)
        scorer = GeneralScorer(fn, pair, [teacher.eos], student.eos)
        short = (pair for known, pair in pair.texts_from(b"").items() if len(known) <= 3)
        spelled = dict(short)
        weights = {tau: scorer.q(tau, True) for tau in spelled}
        sigma = pair.student.encode(text) or ()
        # Mass of longer texts, and of those that are not the student's.
        other = 1 - sum(weights.values())
        for i in range(len(sigma) + 1):
            low, high = scorer.probability(sigma[:i])
            mass = sum(weights[tau] for tau, found in spelled.items() if found[:i] == sigma[:i])
            assert mass - 1e-12 <= high and low <= mass + other + 1e-12, (kind, number, text, i)
        tight += other < 0.02
    assert tight >= PAIRS // 3


@pytest.mark.parametrize("kind", ["plain", "gpt2", "qwen", "derivations", "improper", "deepseek"])
def test_where_nothing_is_undecided_both_oracles_agree(kind: str) -> None:
    """A student without merges: the walk over all texts (`BrutePair`) gives the same covers."""
    checked = 0
    for number in range(3):
        rng = random.Random(f"{kind} unmerged {number}")
        toy = toys.make_toy(kind, rng, 300)
        model = dict(toy.spec["model"], merges=[], ignore_merges=False)
        spec = dict(toy.spec, model=model, pre_tokenizer=toys.byte_level(False))
        pair = brute_pair(toy, replace(toy, spec=spec))
        old = BrutePair(pair.teacher, pair.student, toy.look)
        text = some_text(pair, rng, least=1)
        sigma = () if text is None else pair.student.encode(text) or ()
        for i in range(len(sigma) + 1):
            split = pair.relative_covers(sigma[:i])
            assert split == old.relative_covers(sigma[:i]) and not split.undecided
            checked += 1
        assert pair.relative_covers(sigma, True) == old.relative_covers(sigma, True)
    assert checked >= 4
