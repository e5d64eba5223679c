"""One test for each item of edge_cases.md that a tokenizer, its covers or the subset regime can show.

Tokenizers here are written down by hand, so that the cases run without ../shared; what needs a real one skips
where it is missing. Covers of small ones are compared with brute force (`oracle.brute`) at every byte. Items 1
and 7 are test_toys_scores.py, item 5 on real tokenizers is test_real_canonical.py.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import real
import tokenizers
from oracle import toys
from oracle.brute import BruteTokenizer, Ids

ct = pytest.importorskip("crosstok")

CL100K = toys.LLAMA3
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
EOS = "<eos>"


class Made:
    """A tokenizer from its specification, in crosstok and in Hugging Face."""

    def __init__(self, spec: toys.Spec) -> None:
        self.spec = spec
        self.tok = ct.Tokenizer.from_json(json.dumps(spec))
        self.token_bytes = toys.token_bytes(spec)
        self.eos = next(token["id"] for token in spec["added_tokens"] if token["content"] == EOS)
        self._hf = tokenizers.Tokenizer.from_str(json.dumps(spec))
        self._hf.encode_special_tokens = True

    def hf(self, text: str) -> list[int]:
        return self._hf.encode(text, add_special_tokens=False).ids

    def ids(self, *tokens: str | bytes) -> list[int]:
        """The ids of tokens, by their bytes."""
        by_bytes = {data: token for token, data in self.token_bytes.items()}
        return [by_bytes[token.encode() if isinstance(token, str) else token] for token in tokens]

    def pieces(self, text: str) -> list[bytes]:
        """The tokens of a text, as bytes. Checks that both libraries agree."""
        ids = self.tok.encode(text).tolist()
        assert ids == self.hf(text), text
        return [self.token_bytes[token] for token in ids]

    def canonical(self, *tokens: str | bytes, complete: bool = False) -> bool:
        return bool(self.tok.is_canonical(self.ids(*tokens), complete=complete))

    def covers(self, prefix: str | bytes) -> set[Ids]:
        data = prefix.encode() if isinstance(prefix, str) else prefix
        return {tuple(cover.tolist()) for cover in self.tok.covers(data)}

    def check_covers(self, *texts: str) -> None:
        """Covers at every byte of the texts, and what may follow each cover, equal brute force."""
        characters = self._characters()
        brute = BruteTokenizer(self.spec, characters, toys.longest_token(self.spec) + 2)
        for data in dict.fromkeys(
            text.encode()[:cut] for text in texts for cut in range(len(text.encode()) + 1)
        ):
            expected = brute.covers(data)
            assert self.covers(data) == expected, data
            for ids in sorted(expected)[:3]:
                following, complete = brute.canonical_next(ids)
                assert set(np.flatnonzero(self.tok.canonical_next(ids)).tolist()) == following, (data, ids)
                assert self.tok.is_canonical(ids, complete=True) == complete, (data, ids)

    def _characters(self) -> list[str]:
        """All characters that the vocabulary can spell."""
        single = {
            data for token, data in self.token_bytes.items() if token not in toys.special_ids(self.spec)
        }
        if toys.is_byte_level(self.spec):
            return toys.spellable({data[0] for data in single if len(data) == 1})
        return sorted(data.decode() for data in single if len(data.decode(errors="ignore")) == 1)


def _added(content: str, special: bool = False, **flags: bool) -> toys.Spec:
    defaults = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": -1, "content": content, "special": special, **defaults, **flags}


def _spec(
    pieces: Iterable[str], merges: Sequence[tuple[str, str]], added: Sequence[toys.Spec] = (), **fields: Any
) -> toys.Spec:
    """A specification with the vocabulary in order of appearance; `fields` of the model or of the file."""
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *(a + b for a, b in merges)]))}
    tokens = [{**token} for token in [*added, _added(EOS, special=True)]]
    for token in tokens:
        token["id"] = vocab.get(token["content"], len(vocab) + sum(t["id"] >= len(vocab) for t in tokens))
    model = {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges]}
    outer = ("normalizer", "pre_tokenizer", "post_processor")
    model |= {key: value for key, value in fields.items() if key not in outer}
    return {"added_tokens": tokens, "model": model, **{key: fields.get(key) for key in outer}}


def _level(use_regex: bool = False) -> toys.Spec:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(*patterns: str) -> toys.Spec:
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*splits, _level()]}


def _visible(data: str | bytes) -> str:
    table = toys.byte_alphabet()
    return "".join(table[byte] for byte in (data.encode() if isinstance(data, str) else data))


def byte_level(
    alphabet: str | bytes,
    *merges: str,
    pre_tokenizer: toys.Spec | None = None,
    extra: Sequence[str] = (),
    **fields: Any,
) -> Made:
    """Byte-level: the bytes of `alphabet`, merges written "left right" with ␣ for a space, tokens without merge."""
    parts = [[_visible(part.replace("␣", " ")) for part in merge.split(" ")] for merge in merges]
    pairs = [(left, right) for left, right in parts]
    # A merge of characters needs those characters: their bytes are merged first.
    characters = [char for merge in merges for char in merge.replace("␣", " ") if ord(char) > 0x7F]
    inside = [
        (_visible(data[:cut]), _visible(data[cut : cut + 1]))
        for data in dict.fromkeys(char.encode() for char in characters)
        for cut in range(1, len(data))
    ]
    data = alphabet.encode() if isinstance(alphabet, str) else alphabet
    pieces = [_visible(bytes([byte])) for byte in dict.fromkeys(data)]
    merged = list(dict.fromkeys([*inside, *pairs]))
    spec = _spec([*pieces, *(a + b for a, b in merged), *map(_visible, extra)], merged, **fields)
    spec["pre_tokenizer"] = pre_tokenizer or _level()
    return Made(spec)


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def sentencepiece(pieces: Sequence[str], *merges: str, **fields: Any) -> Made:
    """Pieces are characters; merges written "left right" with ▁ for a space."""
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    fields = {"normalizer": REPLACE, "unk_token": "<unk>", "fuse_unk": True, **fields}
    return Made(_spec(["<unk>", *pieces], pairs, **fields))


def _uniform(width: int) -> Any:
    return ct.TableTeacher(lambda path: np.full(width, -np.log(width)), width)


def _random_teacher(width: int, seed: int = 0, dead: float = 0.0) -> Any:
    def row(path: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, *path])
        logits = rng.normal(size=width) * 2
        logits[rng.random(width) < dead] = -np.inf
        return np.asarray(logits - np.logaddexp.reduce(logits))

    return ct.TableTeacher(row, width)


def _pair(teacher: Made, student: Any, eos: int | None = None) -> Any:
    """A pair; a student from `first_merges` is found its end-of-text by content."""
    if eos is None:
        eos = _id(student, EOS.encode())
    return ct.Pair(teacher.tok, student, teacher_eos=teacher.eos, student_eos=eos)


def _id(tok: Any, data: bytes) -> int:
    """The token with these bytes."""
    return next(token for token in range(tok.vocab_size) if tok.token_bytes(token) == data)


WORDS = byte_level("ab \né", "a b", "␣ a", "␣a b", "a \n", "ab é", pre_tokenizer=_level(use_regex=True))


def test_02_every_student_gives_a_text_the_same_probability() -> None:
    pytest.importorskip("torch")
    teacher = _random_teacher(WORDS.tok.vocab_size)
    for text in ("ab ab\naé", "", "  ab", "é\n\nabé b"):
        totals = []
        for merges in range(len(WORDS.spec["model"]["merges"]) + 1):
            pair = _pair(WORDS, WORDS.tok.first_merges(merges))
            for canonical in ("renormalize", "mask"):
                (score,) = ct.Scorer(teacher, pair, canonical=canonical).score([text])
                assert np.sum(score.logprobs) == pytest.approx(score.prefix_lower[-1], abs=1e-9)
                totals.append((canonical, score.total))
        for canonical in ("renormalize", "mask"):
            same = [total for mode, total in totals if mode == canonical]
            np.testing.assert_allclose(same, same[0], rtol=0, atol=1e-9)


def test_03_end_of_text_is_counted_once_and_where_the_text_may_end() -> None:
    torch = pytest.importorskip("torch")
    made = byte_level("<ae", "< e", added=[_added("<a>", special=True)])
    student = made.tok.first_merges(0)
    pair = _pair(made, student)
    width = made.tok.vocab_size
    less = _id(student, b"<")

    def total(eos: float) -> tuple[float, float]:
        row = np.full(width, 0.1)
        row[made.eos] = eos
        row[made.ids("a")[0]] = 1 - (row.sum() - row[made.ids("a")[0]])
        found = ct.Scorer(
            ct.TableTeacher(lambda path: np.log(row), width), pair, canonical="mask"
        ).next_token([])
        probabilities = torch.exp(found.logprobs)
        return float(probabilities[less]), float(probabilities.sum())

    # "<" is also how end-of-text's own content begins: mass that moves there must not reach the byte.
    assert total(0.05)[0] == pytest.approx(total(0.3)[0], abs=1e-12) == pytest.approx(0.2, abs=1e-12)
    found = ct.Scorer(_random_teacher(width), pair).next_token([])
    assert float(torch.exp(found.logprobs).sum()) == pytest.approx(1, abs=1e-12)
    # Inside a character no text ends.
    inside = byte_level("é", "\u00e9 \u00e9")
    pair = _pair(inside, inside.tok.first_merges(0))
    scorer = ct.Scorer(_random_teacher(inside.tok.vocab_size), pair)
    for prefix, ends in ((b"", True), (b"\xc3", False), (b"\xc3\xa9", True)):
        found = scorer.next_token([_id(pair.student, bytes([byte])) for byte in prefix])
        assert np.isfinite(float(found.logprobs[pair.student_eos[0]])) == ends


def test_04_the_same_tokenizer_gives_plain_log_probabilities() -> None:
    pytest.importorskip("torch")
    made = byte_level("ab")
    teacher = _random_teacher(made.tok.vocab_size)
    pair = _pair(made, made.tok, made.eos)
    assert pair.regime == "same"
    (score,) = ct.Scorer(teacher, pair).score(["abba"], prompts=[(0,)])
    ids = [*made.ids("a", "b", "b", "a"), made.eos]
    rows = teacher.rows([(0, *ids[:i]) for i in range(len(ids))]).numpy()
    np.testing.assert_allclose(score.logprobs, rows[np.arange(len(ids)), ids], rtol=0, atol=1e-12)


def test_06_parallel_equals_serial() -> None:
    pair = _pair(WORDS, WORDS.tok.first_merges(2))
    texts = ["ab " * (i % 7) + "é\n" * (i % 3) for i in range(400)]
    one, many = (pair.plan(texts, num_threads=threads) for threads in (1, 4))
    for field in (
        "node_token",
        "node_parent",
        "node_depth",
        "node_ptr",
        "range_node",
        "range_first",
        "range_last",
    ):
        assert np.array_equal(getattr(one, field), getattr(many, field)), field
    alone = [pair.plan([text]) for text in texts[:20]]
    assert one.node_ptr[20] == sum(len(plan.node_token) for plan in alone)
    long = ["ab é\n" * 20_000] * 3
    serial, parallel = (WORDS.tok.encode_batch(long, num_threads=threads) for threads in (1, 4))
    assert np.array_equal(serial.values, parallel.values)


def test_08_covers_of_nothing_and_of_what_no_text_is() -> None:
    assert WORDS.covers(b"") == {()}
    assert WORDS.covers(b"xyz") == set()
    assert WORDS.covers(b"ab\xff") == set()
    # A text that is longer than any to which the teacher gives probability.
    pytest.importorskip("torch")
    width = WORDS.tok.vocab_size
    row = np.full(width, -np.inf)
    row[WORDS.eos] = 0
    pair = _pair(WORDS, WORDS.tok.first_merges(1))
    (score,) = ct.Scorer(ct.TableTeacher(lambda path: row, width), pair).score(["ab ab"])
    assert np.all(np.isneginf(score.logprobs)) and np.all(score.status == 4)


QWEN_SPACES = byte_level("a1b \n", "␣ ␣", "␣ b", "␣␣ \n", pre_tokenizer=_split(toys.QWEN))


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
    split = _level(use_regex=True) if pattern is None else _split(pattern)
    made = byte_level(f"a{space}\n", f"{space} {space}", pre_tokenizer=split)
    made.check_covers(f"{space}\n{space}", f"a{space}{space}a", f"\n{space}a")


@pytest.mark.parametrize("name", ["qwen3", "llama3", "qwen_first_8000"])
def test_09_whitespace_in_real_tokenizers(name: str) -> None:
    found = real.load(name)
    tails = ("1", "b", "\n", "")
    encodings = found.admissible_ids(["a  " + tail for tail in tails])
    prefixes = {ids[: _cover_length(found, ids, 3)] for ids in encodings if ids is not None}
    assert len(prefixes) == 4
    covers = {tuple(cover.tolist()) for cover in found.tok.covers(b"a  ")}
    assert prefixes <= covers


def _cover_length(found: real.Real, ids: Ids, length: int) -> int:
    spelled = np.cumsum([len(found.token_bytes[token]) for token in ids])
    return int(np.searchsorted(spelled, length)) + 1


def test_10_contractions() -> None:
    gpt2 = byte_level("I'l ", "' l", "'l l", "I '", pre_tokenizer=_level(use_regex=True))
    assert gpt2.pieces("I'l") == [b"I", b"'", b"l"]
    assert gpt2.pieces("I'll") == [b"I", b"'ll"]
    assert gpt2.canonical("I", "'") and not gpt2.canonical("I'")
    gpt2.check_covers("I'll", " 'l'", "''ll")
    cl100k = byte_level("'laL", "' l", "'l l", "l a", "' L", pre_tokenizer=_split(CL100K))
    assert cl100k.pieces("'la") == [b"'l", b"a"]
    assert cl100k.pieces("'lla") == [b"'ll", b"a"]
    cl100k.check_covers("'lla", "'la'", "'LL", "'Lla")
    mixed = byte_level("Yr'e", "' r", "'r e", "' '", pre_tokenizer=_split(CL100K))
    mixed.check_covers("Y''re", "'re'r")
    # (?i:'s) also matches U+017F.
    long_s = byte_level("'sſ", "' ſ", "ſ s", pre_tokenizer=_split(toys.QWEN))
    assert long_s.pieces("'ſs") == ["'ſ".encode(), b"s"]
    long_s.check_covers("'ſs", "ſs'")


def test_11_boundaries_that_are_undone_later() -> None:
    made = byte_level("日Aa", "日 A", pre_tokenizer=_split(O200K))
    assert made.pieces("日A") == ["日".encode(), b"A"]
    assert made.pieces("日Aa") == ["日A".encode(), b"a"]
    assert made.canonical("日", "A") and made.canonical("日A")
    assert not made.canonical("日A", complete=True)
    made.check_covers("日Aa", "日AA")
    marks = byte_level("!a?/\n", "! a", "! !", "/ \n", "? /", pre_tokenizer=_split(O200K))
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
    split = _level(use_regex=True) if pattern is None else _split(pattern)
    byte_level(text, *merges, pre_tokenizer=split).check_covers(text)


def test_12_groups_of_three() -> None:
    made = byte_level("1234567", "1 2", "12 3", "3 4", "6 7", pre_tokenizer=_split(CL100K))
    assert made.pieces("1234567") == [b"123", b"4", b"5", b"6", b"7"]
    for cut in range(8):
        covers = made.covers("1234567"[:cut])
        for tail in ("", "1", "12", "71"):
            text = "1234567"[:cut] + tail
            assert sum(tuple(made.hf(text)[: len(cover)]) == cover for cover in covers) == 1


def test_13_lookahead_sees_the_end_of_a_piece() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    outer = {"type": "Sequence", "pretokenizers": [digits, _level(use_regex=True)]}
    inside = byte_level("a1 ", "␣ ␣", "␣ 1", pre_tokenizer=outer)
    alone = byte_level("a1 ", "␣ ␣", "␣ 1", pre_tokenizer=_level(use_regex=True))
    assert inside.pieces("a  1") == [b"a", b"  ", b"1"]
    assert alone.pieces("a  1") == [b"a", b" ", b" 1"]
    inside.check_covers("a  1", " 1 1")
    deepseek = byte_level("佽 1", "␣ ␣", "␣ 佽", pre_tokenizer=_split(*toys.DEEPSEEK))
    assert deepseek.pieces("1  佽") == [b"1", b"  ", "佽".encode()]
    deepseek.check_covers("  佽", "1 佽")


@pytest.mark.parametrize("text", ["你", "🙂"])
def test_14_prefixes_that_end_inside_a_character(text: str) -> None:
    made = byte_level(text + "a")
    joined = byte_level(text + "a", pre_tokenizer=_level(use_regex=True), extra=[])
    for cut in range(len(text.encode()) + 1):
        assert made.covers(text.encode()[:cut]) == {
            tuple(made.ids(*[bytes([b]) for b in text.encode()[:cut]]))
        }
        brute = BruteTokenizer(joined.spec, toys.spellable(set(text.encode()) | {0x61}), 1)
        assert joined.covers(text.encode()[:cut]) == brute.covers(text.encode()[:cut])


def test_14_tokens_that_straddle_characters() -> None:
    # Merges of the last byte of one character with the first of the next.
    spec = copy.deepcopy(byte_level("佽é").spec)
    pairs = [(b"\xbd", b"\xe4"), (b"\xbd\xe4", b"\xbd"), (b"\xe4", b"\xbd"), (b"\xa9", b"\xc3")]
    model = spec["model"]
    pieces = [*model["vocab"], *(_visible(a + b) for a, b in pairs)]
    merges = [(_visible(a), _visible(b)) for a, b in pairs]
    made = Made(_spec(pieces, merges, pre_tokenizer=_level()))
    made.check_covers("佽佽", "éé佽")
    pytest.importorskip("torch")
    teacher = _random_teacher(made.tok.vocab_size, seed=3)
    totals = []
    for count in range(len(pairs) + 1):
        (score,) = ct.Scorer(teacher, _pair(made, made.tok.first_merges(count))).score(["佽佽é"])
        totals.append(score.total)
    np.testing.assert_allclose(totals, totals[0], rtol=0, atol=1e-9)


def test_14_a_character_that_only_the_student_holds_whole() -> None:
    """Another family on the other side: the general regime, refused by name until it is there."""
    teacher = byte_level("🤌a", "a a")
    student = sentencepiece(["🤌", "a", "▁"])
    pair = ct.Pair(teacher.tok, student.tok, teacher_eos=teacher.eos, student_eos=student.eos)
    assert pair.regime == "general" and pair.reason


def test_15_invalid_utf8() -> None:
    made = byte_level(bytes(range(256)), "a b", extra=[])
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
    spec = byte_level(b"ab\xc3\xa9\xff").spec
    pairs = [(b"a", b"\xff"), (b"\xff", b"\xff"), (b"\xc3", b"a"), (b"b", b"\xc3")]
    pieces = [*spec["model"]["vocab"], *(_visible(a + b) for a, b in pairs)]
    made = Made(_spec(pieces, [(_visible(a), _visible(b)) for a, b in pairs], pre_tokenizer=_level()))
    made.check_covers("abé", "bb")
    assert not any(made.tok.canonical_next([])[made.ids(b"a\xff", b"\xff\xff", b"\xc3a", b"\xff")])
    assert made.canonical(b"b\xc3") and not made.canonical(b"b\xc3", b"b")


def test_16_ignore_merges() -> None:
    made = byte_level("ab ", "a b", pre_tokenizer=_level(use_regex=True), extra=[" aba"], ignore_merges=True)
    assert made.pieces(" aba") == [b" aba"]
    assert made.canonical(" aba") and not made.canonical(" aba", "a") and not made.canonical(" aba", "b")
    assert made.canonical(" aba", " ")
    assert made.canonical(" ", "ab", "a") and not made.canonical(" ", "ab", "a", complete=True)
    assert not made.canonical(" ", "ab", "a", " ")
    made.check_covers(" aba a", "b aba")


def test_16_llama3_jeho() -> None:
    found = real.load("llama3")
    assert found.tok.encode(" jeho x").tolist() == [101503, 865] == found.hf_ids([" jeho x"])[0]
    assert found.tok.is_canonical([101503, 865], complete=True)
    assert not found.tok.is_canonical([503, 2701, 78, 865])
    assert not found.tok.is_canonical([503, 2701, 78], complete=True)
    # Within a longer pretoken its merge encoding is what stands there.
    assert found.tok.encode(" jehox").tolist()[0] != 101503


def test_16_regime_under_ignore_merges() -> None:
    merges = ("a b", "b c", "a bc", "ab c")
    for ignore, regime in ((False, "subset"), (True, "general")):
        teacher = byte_level("abc", *merges, ignore_merges=ignore)
        student = byte_level("abc", *merges[:3], ignore_merges=ignore)
        pair = _pair(teacher, student.tok, student.eos)
        assert pair.regime == regime, pair.reason
        own = teacher.tok.first_merges(2)
        assert _pair(teacher, own).regime == "subset"


def test_17_improper_tokens() -> None:
    # Ranks fall along the derivation of "abc": its last merge comes before that of its part.
    made = byte_level("abc", "ab c", "a b", "b c")
    assert made.pieces("abcb") == [b"abc", b"b"]
    made.check_covers("abcab", "aabcc")
    for order in (("a b", "ab a", "b a"), ("ab a", "b a", "a b"), ("b a", "ab a", "a b")):
        byte_level("ab", *order).check_covers("ababa", "bbaa")


def test_17_llama3_kapsamam() -> None:
    found = real.load("llama3")
    ids = found.hf_ids([" kapsamam"])[0]
    assert [found.token_bytes[token] for token in ids] == [b" kaps", b"amam"]
    assert found.tok.encode(" kapsamam").tolist() == ids
    by_bytes = {data: token for token, data in found.token_bytes.items()}
    assert not found.tok.is_canonical([by_bytes[b" kapsam"], by_bytes[b"am"]])


def test_17_several_derivations_and_ids_out_of_order() -> None:
    spec = byte_level("abc", "b c", "a b", "ab c", "a bc").spec
    vocab = spec["model"]["vocab"]
    spec["model"]["vocab"] = dict(zip(vocab, reversed(list(vocab.values())), strict=True))
    made = Made(spec)
    made.check_covers("abcb", "aabc")
    assert made.tok.merge_dag(made.ids("abc")[0])[0] == tuple(made.ids("abc", "a", "bc"))
    # A merge that BPE never comes to: its token is never canonical.
    unreachable = byte_level("ab", "a a", "aa b", "a b", extra=["bb"])
    assert not unreachable.canonical("bb")
    unreachable.check_covers("aab", "bbab")


FALLBACK = tuple(f"<0x{byte:02X}>" for byte in sorted(set("🤌é\n".encode())))


def test_18_duplicate_bytes_and_fallback() -> None:
    made = sentencepiece([*FALLBACK, "\n", "▁", "a", "🤌"], "▁ a", byte_fallback=True)
    tok, vocab = made.tok, made.spec["model"]["vocab"]
    assert made.hf("a\n") == tok.encode("a\n").tolist() == [vocab["a"], vocab["\n"]]
    assert not tok.is_canonical([vocab["<0x0A>"]])
    assert tok.encode("é").tolist() == [vocab["<0xC3>"], vocab["<0xA9>"]]
    # 🤌 has a piece: its four fallback bytes are pairwise fine, and together not canonical.
    four = [vocab[f"<0x{byte:02X}>"] for byte in "🤌".encode()]
    assert tok.encode("🤌").tolist() == [vocab["🤌"]]
    assert tok.is_canonical(four[:3]) and not tok.is_canonical(four)
    assert tok.is_canonical(four[:2])


def test_18_gemma3() -> None:
    found = real.load("gemma3")
    vocab = found.spec["model"]["vocab"]
    assert found.tok.encode("\n").tolist() == [vocab["\n"]] == found.hf_ids(["\n"])[0]
    assert not found.tok.is_canonical([vocab["<0x0A>"]])
    four = [vocab[f"<0x{byte:02X}>"] for byte in "🤌".encode()]
    assert found.tok.encode("🤌").tolist() == [vocab["🤌"]]
    assert found.tok.is_canonical(four[:3]) and not found.tok.is_canonical(four)
    for ids in (four[:2], four[1:3], four[2:]):
        assert found.decode(ids)


def test_18_spaces_and_the_marker() -> None:
    made = sentencepiece(["▁", "a", "b"], "▁ a", "▁ ▁", "a b")
    for text in ("ab", "abab", "a  b", "   ", " a", "a ", ""):
        assert made.tok.encode(text).tolist() == made.hf(text)
        made.tok.check_admissible(text)
    for text, offset in (("a▁b", 1), ("▁", 0), (" ▁", 1)):
        with pytest.raises(ct.TextError) as caught:
            made.tok.check_admissible(text)
        assert caught.value.offset == offset
    for text, offset in (("abé", 2), ("é", 0), ("a b\n", 3)):
        with pytest.raises(ct.TextError) as caught:
            made.tok.encode(text)
        assert caught.value.offset == offset


def test_19_padded_heads() -> None:
    pytest.importorskip("torch")
    made = byte_level("ab", "a b")
    width = made.tok.vocab_size + 5
    pair = _pair(made, made.tok, made.eos)
    scorer = ct.Scorer(_uniform(width), pair, width=width)
    (score,) = scorer.score(["ab"])
    # All ids but the padding and what is not canonical here ("b" after "a" would be "ab").
    assert score.noncanonical_mass[0] == pytest.approx(5 / width, abs=1e-12)
    assert scorer.next_token([]).logprobs.shape == (width,)
    assert np.all(np.isneginf(np.asarray(scorer.next_token([]).logprobs[made.tok.vocab_size :])))
    with pytest.raises(ct.TeacherError):
        ct.Scorer(_uniform(made.tok.vocab_size - 2), pair).score(["ab"])


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("model", "type"), "Unigram", "model.type"),
        (("model", "type"), "WordPiece", "model.type"),
        (("model", "type"), "WordLevel", "model.type"),
        (("model", "dropout"), 0.1, "model.dropout"),
        (("model", "continuing_subword_prefix"), "##", "model.continuing_subword_prefix"),
        (("model", "end_of_word_suffix"), "</w>", "model.end_of_word_suffix"),
        (("pre_tokenizer",), _split(r"(?<=a)b"), "pre_tokenizer"),
        (("pre_tokenizer",), _split(r"a(?=bc)"), "pre_tokenizer"),
        (("pre_tokenizer",), _split(r"a+?"), "pre_tokenizer"),
        (("pre_tokenizer",), _split(r"a++"), "pre_tokenizer"),
        (("pre_tokenizer",), _split(r"(a)\1"), "pre_tokenizer"),
        (("pre_tokenizer",), _split(r"[\p{L}&&[a-z]]"), "pre_tokenizer"),
        (("pre_tokenizer",), {"type": "Punctuation", "behavior": "Isolated"}, "pre_tokenizer"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "pre_tokenizer"),
        (("normalizer",), {"type": "Lowercase"}, "normalizer"),
    ],
)
def test_20_unsupported(path: tuple[str, ...], value: Any, field: str) -> None:
    spec = byte_level("ab", "a b").spec
    inner = spec["model"] if path[0] == "model" else spec
    inner[path[-1]] = value
    with pytest.raises(ct.UnsupportedTokenizerError, match=field.replace(".", r"\.")):
        ct.Tokenizer.from_json(json.dumps(spec))


def test_20_empty_prefix_and_suffix_mean_absent() -> None:
    spec = byte_level("ab", "a b").spec
    spec["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "dropout": None}
    assert ct.Tokenizer.from_json(json.dumps(spec)).encode("ab").tolist() == [2]


class Recorder:
    """A uniform teacher that remembers what it was asked."""

    def __init__(self, width: int) -> None:
        self.paths: set[Ids] = set()
        self.teacher = ct.TableTeacher(self._row, width)
        self._width = width

    def _row(self, path: Ids) -> np.ndarray:
        self.paths.add(path)
        return np.full(self._width, -np.log(self._width))


def test_21_what_the_teacher_sees_first() -> None:
    pytest.importorskip("torch")
    bos: dict[str, Any] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
    }
    bos["single"].append({"Sequence": {"id": "A", "type_id": 0}})
    for first in (None, 0):
        spec = byte_level("<s>a", "a a", added=[_added("<s>", special=True)]).spec
        if first == 0:
            # The id of the beginning is 0: every ordinary piece moves up by one.
            spec["model"]["vocab"] = {"<s>": 0} | {p: i + 1 for p, i in spec["model"]["vocab"].items()}
            for token in spec["added_tokens"]:
                token["id"] = 0 if token["content"] == "<s>" else len(spec["model"]["vocab"])
            tokens = {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
            spec["post_processor"] = {**bos, "pair": bos["single"], "special_tokens": tokens}
        made = Made(spec)
        assert made.tok.bos_id == first
        recorder = Recorder(made.tok.vocab_size)
        scorer = ct.Scorer(recorder.teacher, _pair(made, made.tok.first_merges(0)))
        context = made.eos if first is None else first
        for text in ("aa", "a", ""):
            recorder.paths.clear()
            (score,) = scorer.score([text])
            assert len(score.logprobs) == len(text) + 1
            assert np.isfinite(score.logprobs).all()
            assert (context,) in recorder.paths
            assert all(path[0] == context for path in recorder.paths)
            recorder.paths.clear()
            scorer.score([text], prompts=[()])
            assert () in recorder.paths


def test_21_dummy_prefix_with_and_without_a_prompt() -> None:
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}
    made = sentencepiece(["▁", "a", "b"], "▁ a", "a b", normalizer=prepend)
    vocab = made.spec["model"]["vocab"]
    assert made.tok.encode("ab", start=True).tolist() == made.hf("ab") == [vocab["▁a"], vocab["b"]]
    assert made.tok.encode("ab").tolist() == [vocab["ab"]]
    assert made.tok.encode(" ab").tolist() == [vocab["▁a"], vocab["b"]]
    assert made.tok.encode("", start=True).tolist() == made.hf("") == []
    assert not made.tok.is_canonical([vocab["ab"]], start=True) and made.tok.is_canonical([vocab["ab"]])
    assert not made.tok.is_canonical([vocab["▁"]], complete=True, start=True)
    pytest.importorskip("torch")
    pair = _pair(made, made.tok, made.eos)
    recorder = Recorder(made.tok.vocab_size)
    scorer = ct.Scorer(recorder.teacher, pair)
    assert scorer.score(["ab"])[0].student_ids.tolist() == [vocab["▁a"], vocab["b"], made.eos]
    assert scorer.score(["ab"], prompts=[(0,)])[0].student_ids.tolist() == [vocab["ab"], made.eos]


def test_21_llama2_dummy_prefix() -> None:
    found = real.load("llama2")
    for text in ("hello", " hello", "\nhello", "", " ", "1", "🙂"):
        assert found.tok.encode(text, start=True).tolist() == found.hf_ids([text], start=True)[0]
        assert found.tok.encode(text).tolist() == found.hf_ids([text])[0]
    assert found.tok.decode(found.tok.encode("hello", start=True)) == b" hello"


def test_22_special_and_added_tokens() -> None:
    made = byte_level(
        "<a>b", "< a", added=[_added("<a>"), _added("<a>b"), _added("a>b"), _added("bb", special=True)]
    )
    for text in ("<a>", "<a>b", "<a>bb", "ba>b", "<a<a>b>", "bbb", "<a>>", "a>bb", "<a>ba>b"):
        assert made.tok.encode(text).tolist() == made.hf(text), text
    made.check_covers("<a>bb", "a>bb<")
    plain = byte_level("<eos>")
    assert plain.pieces(EOS) == [b"<", b"e", b"o", b"s", b">"]
    assert not plain.tok.canonical_next([])[plain.eos]
    assert not plain.tok.is_canonical([plain.eos])


def test_22_runs_as_added_tokens() -> None:
    """Gemma 3 matches runs of newlines up to 31: a shorter one can never be followed by another."""
    runs = ["\n" * length for length in range(2, 32)]
    made = byte_level("\na ", "\n \n", "\n\n \n\n", "␣ a", added=[_added(run) for run in runs])
    assert made.pieces("\n" * 33 + "a") == [b"\n" * 31, b"\n" * 2, b"a"]
    first = made.tok.canonical_next([])
    assert first[made.ids("\n", *runs)].all()
    assert not made.canonical("\n", "\n") and not made.canonical(runs[0], runs[0])
    assert made.canonical(runs[-1], runs[0]) and not made.canonical(runs[-1], runs[0], "\n")
    assert made.canonical(runs[3], "a", runs[5], " a")


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
def test_22_flags_of_added_tokens(flag: str) -> None:
    with pytest.raises(ct.UnsupportedTokenizerError, match=rf"added_tokens\[0\]\.{flag}"):
        byte_level("ab ", added=[_added("ab", **{flag: True})])
    # Special tokens are text here: their flags are of no account.
    made = byte_level("ab ", added=[_added("ab", special=True, **{flag: True})])
    assert made.pieces("a ab b") == [b"a", b" ", b"a", b"b", b" ", b"b"]


def test_22_qwen3_think() -> None:
    found = real.load("qwen3")
    (think,) = (token["id"] for token in found.spec["added_tokens"] if token["content"] == "<think>")
    assert found.tok.encode("a<think>b").tolist()[1] == think
    assert found.tok.encode("<|im_end|>").tolist() == found.hf_ids(["<|im_end|>"])[0]
    assert len(found.tok.encode("<|im_end|>")) > 1
    open_tag, (end,) = found.tok.encode("<think").tolist(), found.tok.encode(">").tolist()
    assert found.tok.is_canonical(open_tag, complete=True) and not found.tok.is_canonical([*open_tag, end])
    assert not found.tok.canonical_next(open_tag)[end]


def test_22_gemma3_table() -> None:
    found = real.load("gemma3")
    vocab = found.spec["model"]["vocab"]
    assert found.tok.encode("<table>").tolist() == found.hf_ids(["<table>"])[0] == [vocab["<table>"]]
    assert not found.tok.is_canonical([vocab["<"], vocab["table"], vocab[">"]])
    assert found.tok.is_canonical([vocab["<"], vocab["table"]])
    assert not found.tok.canonical_next([vocab["<"], vocab["table"]])[vocab[">"]]
    # Runs of newlines are added tokens too: the longest at each place.
    two, three = vocab["\n\n"], vocab["\n\n\n"]
    assert found.tok.is_canonical([three]) and not found.tok.is_canonical([two, two])
    assert not found.tok.is_canonical([vocab["\n"], two])
    assert found.tok.canonical_next([]).sum() > 200_000


def test_23_nfc() -> None:
    cedilla, acute = "\u0327", "\u0301"
    made = byte_level(
        f"ae{cedilla}{acute}", f"{cedilla} {cedilla}", f"{acute} {acute}", normalizer={"type": "NFC"}
    )
    for text in ("e" + acute, "a" + cedilla + acute, acute + cedilla):
        assert made.tok.normalize(text) != text
        with pytest.raises(ct.TextError):
            made.tok.check_admissible(text)
    assert made.canonical("a", cedilla) and made.canonical(cedilla, acute)
    assert not made.canonical("a", cedilla, acute)
    # The text may end before the mark, so the letter alone is fine.
    assert made.canonical("e") and not made.canonical("e", acute)
    made.check_covers("a" + cedilla, cedilla + acute)


@pytest.mark.parametrize("name", ["qwen3", "qwen_first_8000"])
def test_23_nfc_in_qwen(name: str) -> None:
    found = real.load(name)
    encode = found.tok.encode
    for left, right in (("e", "\u0301"), ("\u1100", "\u1161"), ("가", "\u11a8"), ("a\u0327", "\u0301")):
        assert found.tok.normalize(left + right) != left + right
        with pytest.raises(ct.TextError):
            found.tok.check_admissible(left + right)
        assert found.tok.is_canonical(encode(left), complete=True)
        assert found.tok.is_canonical(encode(right), complete=True)
        assert not found.tok.is_canonical([*encode(left), *encode(right)])


def test_23_a_student_that_rewrites_what_the_teacher_spells() -> None:
    """Only one side normalises: such texts are not pair-admissible, and the pair is not of the exact regimes."""
    teacher = byte_level("e\u0301")
    student = byte_level("e\u0301é", normalizer={"type": "NFC"})
    pair = ct.Pair(teacher.tok, student.tok, teacher_eos=teacher.eos, student_eos=student.eos)
    assert pair.regime == "general"
    with pytest.raises(ct.TextError):
        pair.encode("e\u0301")


def test_24_everything_is_scored() -> None:
    pytest.importorskip("torch")
    pair = _pair(WORDS, WORDS.tok.first_merges(0))
    text = "a\nb é\n\nabé ab\n"
    (score,) = ct.Scorer(_random_teacher(WORDS.tok.vocab_size), pair).score([text])
    assert len(score.logprobs) == len(text.encode()) + 1
    assert np.isfinite(score.logprobs).all() and np.all(score.logprobs <= 0)
    assert pair.student.decode(score.student_ids[:-1]) == text.encode()


def test_25_several_ends_of_text_are_one_event() -> None:
    pytest.importorskip("torch")
    made = byte_level("ab", "a b", added=[_added("<turn>", special=True)])
    ends = [made.eos, next(t["id"] for t in made.spec["added_tokens"] if t["content"] == "<turn>")]
    student = made.tok.first_merges(1)
    eos = [int(id) for id in student.special_ids]
    teacher = _random_teacher(made.tok.vocab_size)
    pair = ct.Pair(made.tok, student, teacher_eos=ends, student_eos=eos)
    (score,) = ct.Scorer(teacher, pair, canonical="mask").score(["ab"], prompts=[(0,)])
    row = np.asarray(teacher.rows([(0, *made.tok.encode("ab").tolist())]))[0]
    assert score.logprobs[-1] == pytest.approx(np.logaddexp(*row[ends]), abs=1e-12)
    assert score.student_ids[-1] == eos[0]


def test_25_llama3_ends() -> None:
    found = real.load("llama3")
    tok = ct.Tokenizer.from_pretrained(str(real.SHARED / "tokenizers" / "llama3"))
    assert {found.token_bytes[id] for id in tok.eos_ids} == {b"<|eot_id|>", b"<|end_of_text|>"}


def test_26_extreme_probabilities() -> None:
    torch = pytest.importorskip("torch")
    width = WORDS.tok.vocab_size
    pair = _pair(WORDS, WORDS.tok.first_merges(1))
    (a,) = WORDS.ids("a")

    def row(path: Ids) -> np.ndarray:
        out = np.full(width, -np.inf)
        out[a], out[WORDS.eos] = -100.0, np.log1p(-np.exp(-100.0))
        return out

    (score,) = ct.Scorer(ct.TableTeacher(row, width), pair).score(["aaa"])
    np.testing.assert_allclose(score.logprobs[:3], -100, rtol=0, atol=1e-9)
    assert score.total == pytest.approx(-300, abs=1e-9)
    # A range of nothing but −inf, and a node at which nothing canonical is left.
    for dead in (lambda path: np.full(width, -np.inf), row):
        scorer = ct.Scorer(ct.TableTeacher(dead, width), pair)
        (score,) = scorer.score(["b a"])
        assert np.isneginf(score.logprobs).all() and not np.isnan(score.noncanonical_mass).any()
        assert np.all(score.status == 4)
        with pytest.raises(ct.ZeroProbabilityError):
            scorer.next_token(pair.student.encode("b"))
        for found in scorer.distributions(["b"]):
            assert not torch.isnan(found.logprobs).any()


def test_26_long_texts_do_not_underflow() -> None:
    pytest.importorskip("torch")
    width = WORDS.tok.vocab_size
    pair = _pair(WORDS, WORDS.tok.first_merges(1))
    (score,) = ct.Scorer(_uniform(width), pair).score(["ab é\n" * 800])
    assert len(score.logprobs) >= 4000
    assert np.isfinite(score.logprobs).all()
    assert score.total == pytest.approx(score.logprobs.sum(), rel=1e-9) and score.total < -1000


LONG = ("a" * 10_000, " " * 10_000, "7" * 10_000, "abcde" * 1_000, "\n" * 10_000, "é" * 5_000, "'s" * 5_000)


@pytest.mark.parametrize("name", real.NAMES)
def test_27_long_runs(name: str) -> None:
    """Nothing here is quadratic, or the time-out of the suite would tell."""
    found = real.load(name)
    expected = found.hf_ids(LONG)
    for text, ids in zip(LONG, expected, strict=True):
        assert found.tok.encode(text).tolist() == ids
        assert found.tok.is_canonical(ids, complete=True)
        assert found.tok.canonical_next(ids[:-1])[ids[-1]]


def test_27_plans_of_long_runs() -> None:
    made = QWEN_SPACES
    pair = _pair(made, made.tok.first_merges(1))
    for text in ("a" * 10_000, " " * 10_000, "1" * 10_000, "\n" * 10_000, "ab" * 5_000):
        plan = pair.plan([text])
        assert np.diff(plan.student_ptr)[0] == len(made.tok.first_merges(1).encode(text))
        assert len(plan.node_token) <= 3 * len(text) + 3


def test_28_threads_share_a_tokenizer() -> None:
    text = "ab é\n ab" * 50
    expected = WORDS.hf(text)
    results: list[bool] = []

    def work() -> None:
        fine = all(WORDS.tok.encode(text).tolist() == expected for _ in range(20))
        results.append(fine and WORDS.tok.is_canonical(expected, complete=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [True] * 4
