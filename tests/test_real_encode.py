"""`encode` of every tokenizer in ../shared equals Hugging Face on every text (design.md, section 8)."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real import NAMES, Real

ct = pytest.importorskip("crosstok")

pytestmark = pytest.mark.parametrize("name", NAMES)

ANCHOR = "\n"
"""A piece that no tokenizer with a dummy prefix merges with what follows it."""


def _expected(found: Real, texts: Sequence[str]) -> dict[bool, list[list[int]]]:
    """Hugging Face's ids, by `start`. Those of texts that do not start a document follow an anchor."""
    started = found.hf_ids(texts, start=True)
    if not found.dummy:
        return {True: started, False: started}
    (head,) = found.hf_ids([ANCHOR], start=True)
    anchored = found.hf_ids([ANCHOR + text for text in texts], start=True)
    assert all(ids[: len(head)] == head for ids in anchored)
    return {True: started, False: [ids[len(head) :] for ids in anchored]}


def _check_batch(found: Real, texts: Sequence[str], expected: dict[bool, list[list[int]]]) -> None:
    """Texts that the vocabulary can spell, in batches."""
    for start, encodings in expected.items():
        got = found.tok.encode_batch(texts, start=start)
        assert got.values.dtype == got.offsets.dtype == np.int64
        flat = np.concatenate([np.array(ids, np.int64) for ids in encodings])
        offsets = np.cumsum([0, *map(len, encodings)])
        if not (np.array_equal(got.values, flat) and np.array_equal(got.offsets, offsets)):
            for text, ids in zip(texts, encodings, strict=True):
                assert found.tok.encode(text, start=start).tolist() == ids, (start, text)
            pytest.fail("a batch differs from its texts encoded one by one")


def _check_any(found: Real, texts: Sequence[str]) -> int:
    """Any texts: equal ids, or TextError where Hugging Face drops characters. Returns the number of errors."""
    errors = 0
    for start, encodings in _expected(found, texts).items():
        for text, ids in zip(texts, encodings, strict=True):
            if found.spells(text, ids, start):
                assert found.tok.encode(text, start=start).tolist() == ids, (start, text)
            else:
                errors += 1
                with pytest.raises(ct.TextError):
                    found.tok.encode(text, start=start)
    return errors


def test_gsm8k(name: str) -> None:
    found = real.load(name)
    _check_batch(found, real.gsm8k(), _expected(found, real.gsm8k()))


def test_python_sources(name: str) -> None:
    found = real.load(name)
    texts = real.python_sources(2_000_000)
    expected = _expected(found, texts)
    good = [found.spells(text, ids, start=True) for text, ids in zip(texts, expected[True], strict=True)]
    assert sum(good) >= 0.9 * len(texts)
    _check_batch(
        found,
        list(itertools.compress(texts, good)),
        {start: list(itertools.compress(encodings, good)) for start, encodings in expected.items()},
    )
    _check_any(found, [text[:2000] for text, fine in zip(texts, good, strict=True) if not fine])


def test_code_points(name: str) -> None:
    """Code points in the contexts in which classes of characters matter."""
    found = real.load(name)
    # The two ranges at the end are numbers since Unicode 17 only.
    points = [*range(0x3000), *range(0x3000, 0xD800, 5), *range(0xE000, sys.maxunicode + 1, 37)]
    points += [*range(0x11DD8, 0x11DF0), *range(0x16FF0, 0x16FF8)]
    texts = [f"{c} {c}a{c}1{c}\n{c}'s{c}!{c}" for c in map(chr, points)]
    errors = _check_any(found, texts)
    assert (errors > 0) == (name == "smollm2")


def test_mixed(name: str) -> None:
    found = real.load(name)
    rng = random.Random(f"mixed {name}")
    _check_any(found, [real.random_text(found, rng, 12) for _ in range(4000)])


PIECES: st.SearchStrategy[str] = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(categories=["Zs", "Zl", "Zp", "Cc"]), max_size=6),
    st.text(st.characters(categories=["Nd", "Nl", "No"]), max_size=6),
    st.text(st.characters(categories=["Mn", "Mc", "Me", "Lo"]), max_size=6),
    st.text(st.sampled_from(" \n\t\r"), max_size=20),
    st.text(st.sampled_from("'sStTdDmMlLrReEvVſ "), max_size=8),
    st.sampled_from([*real.SPACES, *real.DIGITS, *real.CONTRACTIONS, *real.MARKS]),
    st.sampled_from([*real.SCRIPTS, *real.SYMBOLS, *real.WORDS]),
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_unicode(name: str, data: Any) -> None:
    found = real.load(name)
    added = st.sampled_from(found.added)
    texts = st.lists(st.lists(PIECES | added, max_size=6).map("".join), min_size=1, max_size=12)
    _check_any(found, data.draw(texts))
