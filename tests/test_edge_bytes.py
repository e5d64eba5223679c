"""edge_cases.md, Bytes: items 14 and 15."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import byte_level, byte_merges, ct, pair_of, random_teacher, sentencepiece
from oracle import toys
from oracle.brute import BruteTokenizer


@pytest.mark.parametrize("text", ["你", "🙂"])
def test_14_prefixes_that_end_inside_a_character(text: str) -> None:
    made = byte_level(text + "a")
    joined = byte_level(text + "a", pre_tokenizer=toys.byte_level(True))
    brute = BruteTokenizer(joined.spec, toys.spellable(set(text.encode()) | {0x61}), 1)
    for cut in range(len(text.encode()) + 1):
        assert made.covers(text.encode()[:cut]) == {
            tuple(made.ids(*[bytes([b]) for b in text.encode()[:cut]]))
        }
        assert joined.covers(text.encode()[:cut]) == brute.covers(text.encode()[:cut])


def test_14_tokens_that_straddle_characters() -> None:
    # Merges of the last byte of one character with the first of the next.
    pairs = [(b"\xbd", b"\xe4"), (b"\xbd\xe4", b"\xbd"), (b"\xe4", b"\xbd"), (b"\xa9", b"\xc3")]
    made = byte_merges("佽é", pairs)
    made.check_covers("佽佽", "éé佽")
    pytest.importorskip("torch")
    teacher = random_teacher(made.tok.vocab_size, seed=3)
    totals = []
    for count in range(len(pairs) + 1):
        (score,) = ct.Scorer(teacher, pair_of(made, made.tok.first_merges(count))).score(["佽佽é"])
        totals.append(score.total)
    np.testing.assert_allclose(totals, totals[0], rtol=0, atol=1e-9)


def test_14_a_character_that_only_the_student_holds_whole() -> None:
    """Another family on the other side: the general regime (`test_edge_general_text.py` scores such pairs)."""
    teacher = byte_level("🤌a", "a a")
    student = sentencepiece(["🤌", "a", "▁"])
    pair = ct.Pair(teacher.tok, student.tok, teacher_eos=teacher.eos, student_eos=student.eos)
    assert pair.regime == "general" and pair.reason


def test_15_invalid_utf8() -> None:
    made = byte_level(bytes(range(256)), "a b")
    for data, offset in ((b"ab\xff", 2), (b"a\xc3", 1), (b"\xed\xa0\x80", 0), (b"a\x80b", 1)):
        with pytest.raises(ct.TextError) as caught:
            made.tok.encode(data)
        assert caught.value.offset == offset
        with pytest.raises(ct.TextError) as caught:
            made.tok.encode_batch(["ab", data])
        assert caught.value.index == 1
        assert made.tok.encode("ab ab").tolist() == made.hf("ab ab")
    with pytest.raises(ct.TextError):
        made.tok.encode("a\ud800")
    first = made.tok.canonical_next([])
    impossible = [*range(0x80, 0xC2), *range(0xF5, 0x100)]
    assert not first[made.ids(*[bytes([byte]) for byte in impossible])].any()
    for bad in (b"\xc3a", b"\xe0\x80", b"\xed\xa0", b"\xf0\x80", b"\xf4\x90", b"a\xff"):
        assert not made.canonical(*[bytes([byte]) for byte in bad])
        assert made.covers(bad) == set()
    for good in (b"\xc3", b"\xed\x9f", b"\xf4\x8f", b"a\xe0\xa0"):
        assert made.canonical(*[bytes([byte]) for byte in good])
        assert not made.canonical(*[bytes([byte]) for byte in good], complete=True)


def test_15_tokens_that_no_text_holds() -> None:
    pairs = [(b"a", b"\xff"), (b"\xff", b"\xff"), (b"\xc3", b"a"), (b"b", b"\xc3")]
    made = byte_merges(b"ab\xc3\xa9\xff", pairs)
    made.check_covers("abé", "bb")
    assert not any(made.tok.canonical_next([])[made.ids(b"a\xff", b"\xff\xff", b"\xc3a", b"\xff")])
    assert made.canonical(b"b\xc3") and not made.canonical(b"b\xc3", b"b")
