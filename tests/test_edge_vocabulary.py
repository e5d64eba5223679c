"""edge_cases.md, Vocabulary: items 16 to 20."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import real
from handmade import Made, byte_level, ct, pair_of, sentencepiece, uniform
from oracle import toys


def test_16_ignore_merges() -> None:
    made = byte_level("ab ", "a b", pre_tokenizer=toys.byte_level(True), extra=[" aba"], ignore_merges=True)
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
        pair = pair_of(teacher, student.tok, student.eos)
        assert pair.regime == regime, pair.reason
        own = teacher.tok.first_merges(2)
        assert pair_of(teacher, own).regime == "subset"


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
    pair = pair_of(made, made.tok, made.eos)
    scorer = ct.Scorer(uniform(width), pair, width=width)
    (score,) = scorer.score(["ab"])
    # All ids but the padding and what is not canonical here ("b" after "a" would be "ab").
    assert score.noncanonical_mass[0] == pytest.approx(5 / width, abs=1e-12)
    assert scorer.next_token([]).logprobs.shape == (width,)
    assert np.all(np.isneginf(np.asarray(scorer.next_token([]).logprobs[made.tok.vocab_size :])))
    with pytest.raises(ct.TeacherError):
        ct.Scorer(uniform(made.tok.vocab_size - 2), pair).score(["ab"])


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("model", "type"), "Unigram", "model.type"),
        (("model", "type"), "WordPiece", "model.type"),
        (("model", "type"), "WordLevel", "model.type"),
        (("model", "dropout"), 0.1, "model.dropout"),
        (("model", "continuing_subword_prefix"), "##", "model.continuing_subword_prefix"),
        (("model", "end_of_word_suffix"), "</w>", "model.end_of_word_suffix"),
        (("pre_tokenizer",), toys.patterns(r"(?<=a)b"), "pre_tokenizer"),
        (("pre_tokenizer",), toys.patterns(r"a(?=bc)"), "pre_tokenizer"),
        (("pre_tokenizer",), toys.patterns(r"a+?"), "pre_tokenizer"),
        (("pre_tokenizer",), toys.patterns(r"a++"), "pre_tokenizer"),
        (("pre_tokenizer",), toys.patterns(r"(a)\1"), "pre_tokenizer"),
        (("pre_tokenizer",), toys.patterns(r"[\p{L}&&[a-z]]"), "pre_tokenizer"),
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
