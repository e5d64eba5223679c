"""edge_cases.md, Pretokenizer lookahead: items 9 to 13. Covers are compared with brute force at every byte."""

from __future__ import annotations

import pytest
import real
from handmade import QWEN_SPACES, byte_level
from oracle import toys

CL100K = toys.LLAMA3

O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_09_qwen_whitespace_before_each_kind() -> None:
    made = QWEN_SPACES
    seen = {
        "a  1": [b"a", b" ", b" ", b"1"],
        "a  b": [b"a", b" ", b" b"],
        "a  \n": [b"a", b"  \n"],
        "a  ": [b"a", b"  "],
    }
    covers = made.covers("a  ")
    for text, pieces in seen.items():
        assert made.pieces(text) == pieces
        starting = [cover for cover in covers if tuple(made.hf(text)[: len(cover)]) == cover]
        assert len(starting) == 1
        assert b"".join(made.token_bytes[token] for token in starting[0]).startswith(b"a  ")
    assert len({tuple(pieces[:3]) for pieces in seen.values()}) == 4
    assert made.tok.is_canonical(made.ids("a", " ", " ")) and not made.canonical("a", " ", " ", complete=True)
    made.check_covers("a  1", "  \n  a", "a \n\n b", "\n \n")


@pytest.mark.parametrize("pattern", [toys.QWEN, CL100K, None], ids=["qwen", "llama3", "gpt2"])
@pytest.mark.parametrize("space", ["\r", "\u00a0", "\u3000", "\u2028", "\u0085"], ids=ascii)
def test_09_other_whitespace(pattern: str | None, space: str) -> None:
    split = toys.byte_level(True) if pattern is None else toys.patterns(pattern)
    made = byte_level(f"a{space}\n", f"{space} {space}", pre_tokenizer=split)
    made.check_covers(f"{space}\n{space}", f"a{space}{space}a", f"\n{space}a")


@pytest.mark.parametrize("name", ["qwen3", "llama3", "qwen_first_8000"])
def test_09_whitespace_in_real_tokenizers(name: str) -> None:
    found = real.load(name)
    tails = ("1", "b", "\n", "")
    encodings = found.admissible_ids(["a  " + tail for tail in tails])
    prefixes = {ids[: found.reaching(ids, 3)] for ids in encodings if ids is not None}
    assert len(prefixes) == 4
    covers = {tuple(cover.tolist()) for cover in found.tok.covers(b"a  ")}
    assert prefixes <= covers


def test_10_contractions() -> None:
    gpt2 = byte_level("I'l ", "' l", "'l l", "I '", pre_tokenizer=toys.byte_level(True))
    assert gpt2.pieces("I'l") == [b"I", b"'", b"l"]
    assert gpt2.pieces("I'll") == [b"I", b"'ll"]
    assert gpt2.canonical("I", "'") and not gpt2.canonical("I'")
    gpt2.check_covers("I'll", " 'l'", "''ll")
    cl100k = byte_level("'laL", "' l", "'l l", "l a", "' L", pre_tokenizer=toys.patterns(CL100K))
    assert cl100k.pieces("'la") == [b"'l", b"a"]
    assert cl100k.pieces("'lla") == [b"'ll", b"a"]
    cl100k.check_covers("'lla", "'la'", "'LL", "'Lla")
    mixed = byte_level("Yr'e", "' r", "'r e", "' '", pre_tokenizer=toys.patterns(CL100K))
    mixed.check_covers("Y''re", "'re'r")
    # (?i:'s) also matches U+017F.
    long_s = byte_level("'sſ", "' ſ", "ſ s", pre_tokenizer=toys.patterns(toys.QWEN))
    assert long_s.pieces("'ſs") == ["'ſ".encode(), b"s"]
    long_s.check_covers("'ſs", "ſs'")


def test_11_boundaries_that_are_undone_later() -> None:
    made = byte_level("日Aa", "日 A", pre_tokenizer=toys.patterns(O200K))
    assert made.pieces("日A") == ["日".encode(), b"A"]
    assert made.pieces("日Aa") == ["日A".encode(), b"a"]
    assert made.canonical("日", "A") and made.canonical("日A")
    assert not made.canonical("日A", complete=True)
    made.check_covers("日Aa", "日AA")
    marks = byte_level("!a?/\n", "! a", "! !", "/ \n", "? /", pre_tokenizer=toys.patterns(O200K))
    assert marks.pieces("!!a") == [b"!!", b"a"] and marks.pieces("!a") == [b"!a"]
    assert marks.pieces("?/\n") == [b"?", b"/\n"]
    marks.check_covers("!!a", "?/\n", "/\n/")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (CL100K, "1212121"),
        (toys.QWEN, "12 1"),
        (None, " 12 21"),
        (CL100K, "１１１１"),
        (CL100K, "٣1٣1"),
        (O200K, "1a11"),
    ],
    ids=["groups", "single", "gpt2", "fullwidth", "arabic", "o200k"],
)
def test_12_digits(pattern: str | None, text: str) -> None:
    first, second = text[0], text[1]
    merges = [f"{first} {second}".replace("  ", " ␣")] if " " not in (first, second) else ["␣ 1"]
    split = toys.byte_level(True) if pattern is None else toys.patterns(pattern)
    byte_level(text, *merges, pre_tokenizer=split).check_covers(text)


def test_12_groups_of_three() -> None:
    made = byte_level("1234567", "1 2", "12 3", "3 4", "6 7", pre_tokenizer=toys.patterns(CL100K))
    assert made.pieces("1234567") == [b"123", b"4", b"5", b"6", b"7"]
    for cut in range(8):
        covers = made.covers("1234567"[:cut])
        for tail in ("", "1", "12", "71"):
            text = "1234567"[:cut] + tail
            assert sum(tuple(made.hf(text)[: len(cover)]) == cover for cover in covers) == 1


def test_13_lookahead_sees_the_end_of_a_piece() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    outer = toys.sequence(digits, toys.byte_level(True))
    inside = byte_level("a1 ", "␣ ␣", "␣ 1", pre_tokenizer=outer)
    alone = byte_level("a1 ", "␣ ␣", "␣ 1", pre_tokenizer=toys.byte_level(True))
    assert inside.pieces("a  1") == [b"a", b"  ", b"1"]
    assert alone.pieces("a  1") == [b"a", b" ", b" 1"]
    inside.check_covers("a  1", " 1 1")
    deepseek = byte_level("佽 1", "␣ ␣", "␣ 佽", pre_tokenizer=toys.patterns(*toys.DEEPSEEK))
    assert deepseek.pieces("1  佽") == [b"1", b"  ", "佽".encode()]
    deepseek.check_covers("  佽", "1 佽")
