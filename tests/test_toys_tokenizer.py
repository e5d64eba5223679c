"""`crosstok.Tokenizer` against brute force on random toys: encodings, canonical prefixes and covers.

24 toys of each kind (edge_cases.md, items 1, 5, 8 to 18, 22, 23). Each is asked about random texts, about
the prefixes of one text's encoding, about the covers of that text's byte prefixes (also those that end
inside a character), and about random token sequences, most of them not canonical.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import toys
from oracle.brute import BruteTokenizer, Ids

ct = pytest.importorskip("crosstok")

TOYS_PER_KIND = 24


def _load(toy: toys.Toy, folder: Path, name: str) -> Any:
    path = folder / f"{name}.json"
    path.write_text(toy.json(), encoding="utf-8")
    return ct.Tokenizer.from_file(str(path))


def _check_encode(tok: Any, brute: BruteTokenizer, toy: toys.Toy, rng: random.Random, start: bool) -> int:
    """Admissible texts encode as in Hugging Face, all others are refused. Returns the number of the first."""
    texts = [toy.random_text(rng, 10) for _ in range(60)]
    admissible = [text for text in texts if brute.encode(text) is not None]
    for text in texts:
        expected = brute.encode(text)
        if expected is None:
            with pytest.raises(ct.TextError):
                tok.check_admissible(text, start=start)
        else:
            tok.check_admissible(text, start=start)
            got = tok.encode(text, start=start)
            assert got.dtype == np.int64
            assert tuple(got.tolist()) == expected, text
            assert tok.encode(text.encode(), start=start).tolist() == list(expected), text
            assert tok.decode(got) == brute.decode(expected), text
            assert tok.normalize(text) == text, text
    batch = tok.encode_batch(admissible, start=start)
    assert batch.values.tolist() == [token for text in admissible for token in brute.encode(text) or ()]
    assert np.diff(batch.offsets).tolist() == [len(brute.encode(text) or ()) for text in admissible]
    return len(admissible)


def _check_prefix(tok: Any, brute: BruteTokenizer, ids: Ids, start: bool) -> bool:
    """One token sequence, canonical or not: both kinds of canonicality, and what may follow. Returns the
    first.
    """
    canonical = brute.is_canonical(ids)
    assert tok.is_canonical(list(ids), start=start) == canonical, ids
    following, complete = brute.canonical_next(ids)
    assert tok.is_canonical(list(ids), complete=True, start=start) == complete, ids
    if canonical:
        mask = tok.canonical_next(list(ids), start=start)
        assert mask.dtype == np.bool_ and mask.shape == (brute.vocab_size,)
        assert set(np.flatnonzero(mask).tolist()) == following, ids
    return canonical


def _random_ids(brute: BruteTokenizer, rng: random.Random) -> Ids:
    """A short sequence of ordinary tokens: at random, or a canonical one with one token changed."""
    ordinary = sorted(set(brute.token_bytes) - brute.special)
    ids = [rng.choice(ordinary) for _ in range(rng.randint(1, 3))]
    known = list(brute.texts.values())
    if known and rng.random() < 0.5:
        ids = list(rng.choice(known)[:3]) or ids
        ids[rng.randrange(len(ids))] = rng.choice(ordinary)
    return tuple(ids)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_toys(kind: str, tmp_path: Path) -> None:
    real = started = canonical = rejected = 0
    for seed in range(TOYS_PER_KIND):
        rng = random.Random(f"{kind} tokenizer {seed}")
        toy = toys.make_toy(kind, rng, max_texts=3200 if seed % 4 == 0 else 1100)
        tok = _load(toy, tmp_path, str(seed))
        assert tok.vocab_size == toys.vocab_size(toy.spec)
        brutes = {start: BruteTokenizer(toy.spec, toy.chars, toy.ahead, start) for start in (False, True)}
        for token, data in brutes[False].token_bytes.items():
            assert tok.token_bytes(token) == data, token
        assert [tuple(cover) for cover in tok.covers(b"")] == [()]
        for start in (False, True) if toy.has_dummy_prefix else (seed % 2 == 1,):
            brute = brutes[start]
            admissible = _check_encode(tok, brute, toy, rng, start)
            texts = [text for text in brute.texts if len(text) >= 2]
            if not admissible or not texts:
                continue
            text = rng.choice(texts)
            longer = brute.encode_all([text + tail for tail in ("", *texts)])
            text = rng.choice([whole for whole, encoded in longer.items() if encoded is not None])
            ids = brute.encode(text)
            if ids is None:
                continue
            prefixes = [ids[:length] for length in rng.sample(range(len(ids) + 1), min(4, len(ids) + 1))]
            if not start:
                data = text.encode()
                for cut in rng.sample(range(len(data) + 1), min(4, len(data) + 1)):
                    expected = brute.covers(data[:cut])
                    got = [tuple(cover.tolist()) for cover in tok.covers(data[:cut])]
                    assert len(got) == len(set(got))
                    assert set(got) == expected, data[:cut]
                    prefixes.append(rng.choice(sorted(expected)))
            prefixes += [_random_ids(brute, rng) for _ in range(4)]
            verdicts = [_check_prefix(tok, brute, prefix, start) for prefix in prefixes]
            canonical += sum(verdicts)
            rejected += len(verdicts) - sum(verdicts)
            started += start
            real += not start or not toy.has_dummy_prefix
    assert real >= 20 and canonical >= 100 and rejected >= 10
    if kind.startswith("sentencepiece"):
        assert started >= 8
