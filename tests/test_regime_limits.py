"""Pairs and files at the edge of the regimes. Each case was a bug once (docs/mathematics.md, section 6)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from handmade import Made, byte_level, ct, pair_of, uniform
from oracle import toys


def test_a_pair_that_looks_up_whole_pretokens_alike() -> None:
    """Regime "same" under `ignore_merges`: a token that no merge reaches is spelled as itself."""
    made = byte_level("abc", "a b", pre_tokenizer=toys.byte_level(True), extra=["cab"], ignore_merges=True)
    pair = pair_of(made, made.tok)
    assert pair.regime == "same" and made.tok.encode("cab").tolist() == made.ids("cab")
    scorer = ct.Scorer(uniform(made.tok.vocab_size), pair)
    score = scorer.score(["cab"], prompts=[(0,)])[0]
    # Six may come first (a, b, c, ab, cab, the end); behind a whole pretoken there is only the end.
    assert score.logprobs == pytest.approx([-np.log(6), 0.0]) and not score.status.any()
    assert scorer.next_token([], prompt=(0,)).logprobs.exp().sum() == pytest.approx(1.0)
    covers = ct.enumerate_covers(pair, [made.ids("cab")])
    assert [path.tolist() for path in covers.paths(1)] == [made.ids("cab")]


def test_an_added_token_that_is_looked_up_where_it_is_hidden() -> None:
    """Hidden by a special token, the added token is a whole pretoken: a student without look-up spells it otherwise."""
    added = [toys.added_token("ab"), toys.added_token("1ab", special=True)]
    fields: dict[str, Any] = {
        "pre_tokenizer": toys.byte_level(True),
        "extra": ["ab"],
        "added": added,
        "ignore_merges": True,
    }
    made = byte_level("ab1", **fields)
    assert made.pieces("ab") == [b"ab"] and made.pieces("1ab") == [b"1", b"ab"]
    pair = pair_of(made, made.tok.first_merges(0))
    assert pair.regime == "general" and "hide" in pair.reason


def test_a_special_token_that_merges_make() -> None:
    """The student's encoding of "abb" holds its special token: no such text is admissible."""
    made = byte_level("ab", "a b", "ab b", added=[toys.added_token("ab", special=True)])
    student = made.tok.first_merges(1)
    with pytest.raises(ct.TextError, match="special token"):
        student.check_admissible("abb")
    pair = pair_of(made, student)
    assert pair.regime == "general" and "special" in pair.reason


def test_added_tokens_that_normalize_alike_are_refused() -> None:
    """Hugging Face finds one or the other, by the order of a hash map."""
    added = [toys.added_token(content, normalized=True) for content in ("\u00e9", "e\u0301")]
    spec = byte_level("ae\u00e9\u0301", normalizer={"type": "NFC"}).spec
    width = toys.vocab_size(spec)
    spec["added_tokens"] += [{**token, "id": width + i} for i, token in enumerate(added)]
    with pytest.raises(ct.UnsupportedTokenizerError, match=r"added_tokens\[2\]\.content"):
        ct.Tokenizer.from_json(json.dumps(spec))
    del spec["added_tokens"][2]
    assert Made(spec).pieces("a\u00e9") == [b"a", "\u00e9".encode()]


def test_errors_of_a_single_text_have_no_index() -> None:
    made = byte_level("ab")
    for call in (made.tok.encode, made.tok.check_admissible):
        with pytest.raises(ct.TextError) as caught:
            call("abc")
        assert (caught.value.index, caught.value.offset) == (None, 2)
    with pytest.raises(ct.TextError) as caught:
        made.tok.encode_batch(["ab", "abc"])
    assert (caught.value.index, caught.value.offset) == (1, 2)
