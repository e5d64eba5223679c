"""edge_cases.md, Special tokens, templates, normalizers, for unrelated tokenizers: what is rare in items 21 to 23.

Scores, next tokens and distributions, between bounds and at tolerance 0, against brute force. Templates (24) are in
`test_cli_general.py`, Ctrl-C (28) in `test_processes.py`.
"""

from __future__ import annotations

import pytest
from handmade import byte_level, ct, sentencepiece, with_bos
from made_pairs import check_pair, sample_of
from oracle import toys

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

BOS = toys.added_token("<s>", special=True)


@pytest.mark.parametrize("prompt", [None, (), (0,)])
@pytest.mark.parametrize("text", ["ab", "a", ""])
def test_21_bos_on_one_side(text: str, prompt: tuple[int, ...] | None) -> None:
    """The teacher sees its own, or its end-of-text where it has none; the student's is never next."""
    bos = with_bos(byte_level("ab", "a b", added=[BOS]))
    none = byte_level("ab", "b a", "a a")
    assert (bos.tok.bos_id, none.tok.bos_id) == (0, None)
    for teacher, student in ((bos, none), (none, bos)):
        sample = sample_of(teacher, student, text, "ab", prompt)
        check_pair(sample)
        if student is bos:
            (rows,) = sample.scorer("renormalize").distributions([text], sample.prompts)
            assert torch.isneginf(rows.logprobs[:, 0]).all()


def test_21_what_the_teacher_is_asked_first() -> None:
    """Its BOS without a prompt, whether the student has one or not; the prompt alone with one."""
    bos = with_bos(byte_level("ab", "a b", added=[BOS]))
    none = byte_level("ab", "b a")
    for teacher, student in ((bos, none), (none, bos)):
        sample = sample_of(teacher, student, "ab", "ab", None)
        asked: set[tuple[int, ...]] = set()

        def row(path: tuple[int, ...], sample=sample, asked=asked):  # type: ignore[no-untyped-def]
            asked.add(tuple(path))
            return sample.fn(path)

        first = 0 if teacher is bos else teacher.eos
        scorer = ct.Scorer(ct.TableTeacher(row, teacher.tok.vocab_size), sample.pair)
        scorer.distributions(["ab"])
        assert asked and all(path[0] == first for path in asked)
        asked.clear()
        scorer.score(["ab"], [(1,)])
        assert asked and all(path[0] == 1 for path in asked)


@pytest.mark.parametrize("text", ["<a>b", "<a>", "<a", "a>b<"])
def test_22_nested_and_overlapping_added_tokens(text: str) -> None:
    """`<a>b` holds `<a>` and ends as `a>b` does; whether `<a` goes on, the text to come says."""
    added = [toys.added_token(content) for content in ("<a>", "<a>b", "a>b")]
    nested = byte_level("<a>b", "a >", added=added)
    plain = byte_level("<a>b", "< a", "> b", "b <")
    check_pair(sample_of(nested, plain, text, "<a>b"))
    check_pair(sample_of(plain, nested, text, "<a>b"))


@pytest.mark.parametrize("text", ["\u1100", "가", "가\u1161", "\u1161가", "\u11a8"])
def test_23_hangul(text: str) -> None:
    """Jamo that the student composes: a prefix that ends before a vowel or a final may become another character."""
    jamo = "\u1100\u1161\u11a8"
    teacher = sentencepiece([*jamo, "가"], "\u1161 \u11a8", "가 가")
    student = byte_level(f"{jamo}가각", "가 가", normalizer={"type": "NFC"})
    check_pair(sample_of(teacher, student, text, f"{jamo}가"))


@pytest.mark.parametrize("text", ["가", "\u1100", "가\u1161"])
def test_23_hangul_on_both_sides(text: str) -> None:
    """Both compose: what NFC rewrites is not canonical, and nothing is lost."""
    jamo = "\u1100\u1161"
    teacher = sentencepiece([*jamo, "가"], "가 가", normalizer={"type": "NFC"})
    student = byte_level(f"{jamo}가", "\u1161 \u1161", normalizer={"type": "NFC"})
    check_pair(sample_of(teacher, student, text, f"{jamo}가"))
