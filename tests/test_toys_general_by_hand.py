"""The general regime on pairs small enough to do by hand: each shows one thing that random pairs show rarely."""

from __future__ import annotations

from typing import Any

import crosstok as ct
import numpy as np
import pytest
from general_pairs import load
from oracle import toys

pytest.importorskip("torch")


def _file(pieces: str, merges: str, **fields: Any) -> Any:
    """A tokenizer from words: ids in order, '<e>' has the last one. A merge is written `left+right`."""
    spec = toys.bare_spec(pieces.split(), fields.pop("pre_tokenizer", toys.byte_level(False)), **fields)
    spec["model"]["merges"] = [merge.split("+") for merge in merges.split()]
    special = [piece for piece in ("<unk>", "<e>") if piece == "<e>" or piece in spec["model"]["vocab"]]
    for piece in special:
        number = spec["model"]["vocab"].get(piece, len(spec["model"]["vocab"]))
        spec["added_tokens"].append({**toys.added_token(piece, special=True), "id": number})
    return load(spec)


def _pair(teacher: Any, student: Any) -> Any:
    pair = ct.Pair(teacher, student, teacher_eos=teacher.vocab_size - 1, student_eos=student.vocab_size - 1)
    assert pair.regime == "general"
    return pair


def _prefixes(
    pair: Any, text: str, row: list[float], prompt: tuple[int, ...] | None, mode: str
) -> list[float]:
    """P(s_1..s_i), with all expansion there is, under a teacher that has the same row everywhere."""
    scorer = ct.Scorer(ct.TableTeacher(lambda ids: np.log(row)), pair, mode, tolerance=0.0)
    (score,) = scorer.score([text], None if prompt is None else [prompt])
    np.testing.assert_allclose(score.prefix_lower, score.prefix_upper, rtol=1e-12)
    found: list[float] = np.exp(score.prefix_lower).tolist()
    return found


@pytest.mark.parametrize(("mode", "second"), [("mask", 0.25), ("renormalize", 0.25 / 0.75)])
def test_what_the_teacher_rules_out_leaves_nothing_undecided(mode: str, second: float) -> None:
    """After "a" alone a student's "ab" could follow, but this teacher has a token for that: [a] is a cover.

    So P(a) = q(a) = 1/4. The row after "a" (its b is not canonical) does not come into it: in mode "mask" that would
    lose a quarter.
    """
    pair = _pair(_file("a b ab", "a+b"), _file("a b ab bb", "a+b b+b"))
    covers = ct.enumerate_covers(pair, [[0]])
    assert [path.tolist() for path in covers.paths(1)] == [[0]] and covers.status.tolist() == [1, 1]
    assert _prefixes(pair, "aa", [0.25] * 4, (), mode) == pytest.approx(
        [0.25, 0.25 * second, 0.25 * second**2]
    )


def test_a_cover_counts_whole() -> None:
    """The student cannot spell "c", nor a text with it: but [a] is in, and what is lost is lost after it."""
    pair = _pair(_file("a b c ab", "a+b"), _file("a b ab bb", "a+b b+b"))
    found = _prefixes(pair, "aa", [0.2] * 5, (), "renormalize")
    assert found == pytest.approx([0.2, 0.2 / 4, 0.2 / 16])


def test_dummy_prefix_of_the_student_alone() -> None:
    """Every text but the empty one, and those with a space of their own in front, starts with the student's space."""
    student = _file("<unk> a ▁", "", pre_tokenizer=toys.metaspace("first", False), unk_token="<unk>")
    pair = _pair(_file("a Ġ", ""), student)
    assert student.encode("a", start=True).tolist() == [2, 1]
    found = _prefixes(pair, "a", [0.5, 0.3, 0.2], None, "renormalize")
    assert found == pytest.approx([0.5, 0.5, 0.1])
    scorer = ct.Scorer(ct.TableTeacher(lambda ids: np.log([0.5, 0.3, 0.2])), pair)
    assert np.exp(scorer.next_token([]).logprobs.numpy()) == pytest.approx([0, 0, 0.5, 0.2])
    assert np.exp(scorer.next_token([2]).logprobs.numpy()) == pytest.approx([0, 1, 0, 0])


def test_a_student_token_over_two_teacher_tokens() -> None:
    """[a] is undecided until the next token is known; what follows an "a" makes "ab" of it, or does not."""
    pair = _pair(_file("a b", ""), _file("a b ab", "a+b"))
    row = [0.5, 0.3, 0.2]
    assert _prefixes(pair, "aa", row, (), "renormalize")[:2] == pytest.approx([0.5 * 0.7, 0.25 * 0.7])
    assert _prefixes(pair, "ab", row, (), "renormalize") == pytest.approx([0.15, 0.03])


def test_long_spaces_are_followed_to_the_end() -> None:
    """Any number of spaces may still become one pretoken with a newline behind them: bounds close as rows are read."""
    student = _file("Ġ Ċ a ĊĠ", "Ċ+Ġ", pre_tokenizer=toys.patterns(toys.QWEN))
    pair = _pair(_file("Ġ Ċ a", ""), student)
    teacher = ct.TableTeacher(lambda ids: np.log([0.4, 0.2, 0.3, 0.1]))
    # Lost is what goes on with spaces and then a newline, not a letter or the end: 0.4, and of that 0.2 in 0.6.
    truth = 0.2 * (1 - 0.4 / 3)
    widths = []
    for rows in (0, 1, 4, 16, None):
        scorer = ct.Scorer(teacher, pair, tolerance=0.0, max_rows=rows)
        (score,) = scorer.score(["\na"], [()])
        low, high = np.exp(score.prefix_lower[0]), np.exp(score.prefix_upper[0])
        assert low <= truth * (1 + 1e-12) and high >= truth * (1 - 1e-12)
        widths.append(high - low)
    assert (
        widths == sorted(widths, reverse=True) and widths[0] > 0.01 > 1e-3 > widths[3] and widths[4] < 1e-12
    )


def test_all_readings_may_agree_on_a_text_that_nobody_can_read() -> None:
    """After "a" a student without "Z" reads on only into its added token "Zb": teacher token "aZc" has no text."""
    teacher = _file("a Z c b aZ aZc", "a+Z aZ+c")
    spec = toys.bare_spec(["a", "c", "b"], toys.byte_level(False))
    spec["added_tokens"] = [
        {**toys.added_token("Zb", special=False), "id": 3},
        {**toys.added_token("<e>", special=True), "id": 4},
    ]
    student = load(spec)
    pair = _pair(teacher, student)
    assert sorted(path.tolist() for path in ct.enumerate_covers(pair, [[0]]).paths(1)) == [[0], [4]]
    score = ct.Scorer(ct.TableTeacher(lambda ids: np.log(np.full(7, 1 / 7))), pair, tolerance=0.0).score(
        ["a"], [()]
    )[0]
    assert np.exp(score.prefix_upper[0]) == pytest.approx(2 / 7)
