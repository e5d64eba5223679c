"""edge_cases.md, Pretokenizer lookahead and Bytes, for unrelated tokenizers: items 9 to 15.

Scores, next tokens and distributions, between bounds and at tolerance 0, against brute force.
"""

from __future__ import annotations

import pytest
from handmade import byte_level, byte_merges, ct, random_teacher, sentencepiece
from made_pairs import check_pair, general, sample_of
from oracle import toys
from test_edge_lookahead import CL100K, O200K

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

GPT2 = toys.byte_level(True)
QWEN = toys.patterns(toys.QWEN)


@pytest.mark.parametrize("text", ["a  a", "a  \n", "a  ", " \n a", "\n \n"])
def test_09_whitespace(text: str) -> None:
    """The teacher takes spaces up to a newline, the student does not; what follows tells them apart."""
    qwen = byte_level("a \n", "␣ ␣", "␣ a", "␣ \n", pre_tokenizer=QWEN)
    gpt2 = byte_level("a \n", "␣ ␣", "␣ a", "\n \n", pre_tokenizer=GPT2)
    check_pair(sample_of(qwen, gpt2, text, "a \n"))
    check_pair(sample_of(gpt2, qwen, text, "a \n"))


@pytest.mark.parametrize("text", ["'lla", "'la", "a'l"])
def test_10_contractions(text: str) -> None:
    cl100k = byte_level("'la", "' l", "l a", "l l", pre_tokenizer=toys.patterns(CL100K))
    gpt2 = byte_level("'la", "' l", "l l", "' ll", pre_tokenizer=GPT2)
    check_pair(sample_of(cl100k, gpt2, text, "'la"))
    check_pair(sample_of(gpt2, cl100k, text, "'la"))


@pytest.mark.parametrize("text", ["!Aa", "!A", "A!a", "aAa"])
def test_11_boundaries_that_are_undone_later(text: str) -> None:
    """Whether a pretoken ends before the capital, the next letter says."""
    o200k = byte_level("!Aa", "! A", "A a", "a A", pre_tokenizer=toys.patterns(O200K))
    plain = byte_level("!Aa", "a A", "! A", "A A")
    check_pair(sample_of(o200k, plain, text, "!Aa"))
    check_pair(sample_of(plain, o200k, text, "!Aa"))


@pytest.mark.parametrize("text", ["1111", "11a1", "a111"])
def test_12_digits(text: str) -> None:
    """Groups of three on one side, of any length on the other; single digits on one side."""
    groups = byte_level("1a", "1 1", "11 1", pre_tokenizer=toys.patterns(CL100K))
    runs = byte_level("1a", "1 1", "11 11", "1 a", pre_tokenizer=GPT2)
    single = byte_level("1a", "1 1", "a a", pre_tokenizer=QWEN)
    check_pair(sample_of(groups, runs, text, "1a"))
    check_pair(sample_of(runs, groups, text, "1a"))
    check_pair(sample_of(groups, single, text, "1a"))


@pytest.mark.parametrize("text", ["a  1", " 1 1", "1  "])
def test_13_lookahead_that_sees_the_end_of_a_piece(text: str) -> None:
    digits = toys.sequence({"type": "Digits", "individual_digits": True}, GPT2)
    inside = byte_level("a1 ", "␣ ␣", "␣ 1", "␣ a", pre_tokenizer=digits)
    alone = byte_level("a1 ", "␣ ␣", "␣ 1", pre_tokenizer=GPT2)
    check_pair(sample_of(inside, alone, text, "a1 "))
    check_pair(sample_of(alone, inside, text, "a1 "))


@pytest.mark.parametrize("text", ["éa", "aé", "éé", ""])
def test_14_tokens_that_end_inside_a_character(text: str) -> None:
    """Teacher tokens that end inside a character which the student holds as one piece, or that straddle two."""
    bytewise = byte_merges("éa", [(b"a", b"\xc3"), (b"\xa9", b"a"), (b"\xa9", b"\xc3")])
    whole = sentencepiece(["é", "a", "▁"], "a é", normalizer=toys.replace())
    check_pair(sample_of(bytewise, whole, text, "éa"))
    lone = byte_merges("éa", [(b"\xa9", b"\xa9"), (b"\xc3", b"\xa9")])
    check_pair(sample_of(bytewise, lone, text, "éa"))
    check_pair(sample_of(lone, bytewise, text, "éa"))


def test_15_invalid_utf8() -> None:
    """Refused with the text's number, before any other text of the call is lost, whatever is asked for."""
    teacher, student = byte_level(b"ab\xc3\xa9\xff", "a b"), byte_level("abé", "b a")
    scorer = ct.Scorer(random_teacher(teacher.tok.vocab_size), general(teacher, student), tolerance=0.01)
    for bad in (b"ab\xff", b"a\xc3", b"\xa9"):
        for ask in (scorer.score, scorer.distributions, lambda texts: scorer.distributions(texts, top_k=2)):
            with pytest.raises(ct.TextError) as caught:
                ask(["ab", bad])
            assert caught.value.index == 1


def test_15_bytes_that_no_text_holds() -> None:
    """The student has no such byte, the teacher can never use it: nothing is lost to it."""
    teacher = byte_merges(b"ab\xc3\xa9\xff", [(b"a", b"\xff"), (b"b", b"\xc3")])
    student = byte_level("abé", "b a")
    check_pair(sample_of(teacher, student, "abé", "abé"))
