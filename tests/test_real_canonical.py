"""Canonical prefixes of every tokenizer in ../shared, judged by what Hugging Face makes of whole texts.

*Completeness* (edge_cases.md, item 5): of a text x·w, cut at any byte, the shortest prefix of the encoding that
reaches the cut is the only cover of x that the encoding starts with, and `is_canonical` and `canonical_next`
admit all of it. *Soundness*: what they admit, some text yields. A text that yields e is a *witness* of e; it is
searched for among decode(e)·w, with w from a bank of continuations of every kind, then with all the tokens.
What they reject must have no witness in the bank.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest
import real
from real import NAMES, Ids, Real

pytestmark = pytest.mark.parametrize("name", NAMES)

CASES = 10_000
HEADS = 60
"""Short x whose covers are listed."""
POSITIONS = 200
"""Places at which entries of `canonical_next` are sampled."""
SEQUENCES = 600
"""Texts that are spelled in other tokens."""
SEED = 0
CONTINUATIONS = 8
"""Continuations w of each text x."""

FEW = ("", "a", "1", " ", "\n", "!", " a", "  ", "s", "\u0301")
BANK = (
    *("b", "A", "Z", "é", "x1", "ab", "the", "ll", "re", "'s", "'", "'ll", "S", "ſ", "ing", "er", "e", "on"),
    *(
        "0",
        "9",
        "12",
        "123",
        "1234",
        "٣",
        "½",
        "１",
        "\t",
        "\r",
        "\r\n",
        "\n\n",
        "\n\n\n",
        " \n",
        "\n ",
        "\n\na",
    ),
    *(
        "   ",
        "    a",
        " 1",
        "  1",
        "  a",
        "  !",
        " !",
        "\ta",
        "\u00a0",
        "\u00a0a",
        "\u3000",
        "\u2028",
        "\u0085",
    ),
    *(".", ",", "?", "...", "!!", "!\n", ")", "(", "<", ">", "|", "|>", "/", "=", "_", "-", "\\", '"', ":"),
    *("\u0327", "\u0301\u0327", "\u200d", "\ufe0f", "你", "好a", "の", "カ", "가", "\u11a8", "я", "ा", "ש"),
    *("🙂", "🤌", "€", "\x00", "日A", "日Aa", " the", " The", " of the", " kaps", "\U0010fffd"),
)
"""Beginnings of every branch of every pattern, and of the negation of its lookahead."""


def _random_continuation(found: Real, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice((*FEW, *BANK))
    return real.random_piece(found, rng) + (rng.choice(FEW) if rng.random() < 0.5 else "")


class Masks:
    """`canonical_next`, asked once for each prefix."""

    def __init__(self, found: Real, start: bool) -> None:
        self._found, self._start = found, start
        self._known: dict[Ids, np.ndarray] = {}

    def __call__(self, ids: Ids) -> np.ndarray:
        if ids not in self._known:
            self._known[ids] = self._found.tok.canonical_next(ids, start=self._start)
        return self._known[ids]


def _reach(found: Real, ids: Ids, length: int) -> int:
    """The number of tokens of the shortest prefix whose bytes reach `length`."""
    spelled, count = 0, 0
    while spelled < length:
        spelled += len(found.token_bytes[ids[count]])
        count += 1
    return count


def test_completeness(name: str) -> None:
    found = real.load(name)
    rng = random.Random(f"completeness {name} {SEED}")
    cases = 0
    while cases < CASES:
        start = found.dummy and rng.random() < 0.5
        heads = [real.random_text(found, rng, 4)[:40] for _ in range(100)]
        texts = [head + _random_continuation(found, rng) for head in heads for _ in range(CONTINUATIONS)]
        masks = Masks(found, start)
        for text, ids in zip(texts, found.admissible_ids(texts, start), strict=True):
            if ids is None:
                continue
            cases += 1
            assert found.tok.is_canonical(ids, complete=True, start=start), (text, ids)
            # The root's mask is asked for once; a cut at byte 0 has the empty cover.
            length = len(text.encode()) + (start and bool(text))
            cut = rng.randint(min(1, length), length)
            crossing = _reach(found, ids, cut)
            for count in (crossing - 1, crossing):
                assert count < 0 or found.tok.is_canonical(ids[:count], start=start), (text, ids[:count])
            if crossing:
                assert masks(ids[: crossing - 1])[ids[crossing - 1]], (text, ids[:crossing])
    assert cases >= CASES


def _short_heads(found: Real, rng: random.Random, wanted: int) -> list[bytes]:
    """Byte strings of a few characters, whole or cut, with not too many covers."""
    heads: dict[bytes, None] = {}
    while len(heads) < wanted:
        text = "".join(real.random_piece(found, rng)[:3] for _ in range(rng.randint(1, 3)))[-4:]
        if found.admissible_ids([text])[0] is None:
            continue
        data = text.encode()
        data = data[: rng.randint(max(1, len(data) - 3), len(data))] if data else data
        # A single ASCII character is the beginning of thousands of tokens.
        if len(data) >= 2:
            heads[data] = None
    return list(heads)


def _texts_from(head: bytes, tails: Iterable[str], rng: random.Random) -> list[str]:
    """Texts that start with the bytes of `head` and go on with each of `tails`."""
    return [text + tail for tail in tails for text in _completions(head, rng, 3)]


def _completions(data: bytes, rng: random.Random, limit: int) -> list[str]:
    """The bytes as text; those that end inside a character with ways to complete it, at most `limit` of them."""
    whole = len(data)
    while whole > 0 and len(data) - whole < 3 and data[whole - 1] & 0xC0 == 0x80:
        whole -= 1
    lead = data[whole - 1] if whole else 0
    size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    missing = size - (len(data) - whole + 1)
    if lead >= 0xF5:
        return []  # no character begins so
    if size == 1 or missing <= 0:
        return list(_decoded([data]))
    ways = 64**missing
    chosen = range(ways) if ways <= limit else (rng.randrange(ways) for _ in range(8 * limit))
    tails = (bytes(0x80 | way >> 6 * place & 0x3F for place in range(missing)) for way in chosen)
    return list(itertools.islice(_decoded(data + tail for tail in tails), limit))


def _decoded(strings: Iterable[bytes]) -> Iterator[str]:
    """Those that are UTF-8."""
    return (data.decode() for data in strings if _is_text(data))


def _is_text(data: bytes) -> bool:
    return data.decode(errors="ignore").encode() == data


def test_covers(name: str) -> None:
    """Of short x: each text that starts with x has exactly one cover, and each cover has a witness."""
    found = real.load(name)
    rng = random.Random(f"covers {name} {SEED}")
    asked: list[Ids] = []
    for head in _short_heads(found, rng, HEADS):
        covers = {tuple(cover.tolist()) for cover in found.tok.covers(head)}
        tails = [_random_continuation(found, rng) for _ in range(20)]
        for text, ids in _encoded(found, _texts_from(head, tails, rng), start=False):
            cover = ids[: _reach(found, ids, len(head))]
            starting = [ids[:count] for count in range(len(ids) + 1) if ids[:count] in covers]
            assert starting == [cover], (head, text, ids)
        for cover in covers:
            assert found.decode(cover).startswith(head)
            assert len(found.decode(cover[:-1])) < len(head)
        asked += rng.sample(sorted(covers), min(20, len(covers)))
    missing = _without_witness(found, asked, start=False, rng=rng, every=True)
    assert not missing, [(ids, found.decode(ids)) for ids in missing[:20]]


def _encoded(found: Real, texts: Sequence[str], start: bool) -> list[tuple[str, Ids]]:
    """The admissible ones of the texts, with their encodings."""
    encodings = found.admissible_ids(texts, start)
    return [(text, ids) for text, ids in zip(texts, encodings, strict=True) if ids is not None]


def _without_witness(
    found: Real, asked: Sequence[Ids], start: bool, rng: random.Random, every: bool
) -> list[Ids]:
    """Those of the sequences that no text tried yields. `every`: each token is tried as a continuation."""
    stems = {}
    for ids in dict.fromkeys(asked):
        data = found.decode(ids)
        stems[ids] = data[1:] if start and data else data
    for tails in (FEW, BANK):
        texts = {
            ids: [head + tail for head in _completions(data, rng, 4) for tail in tails]
            for ids, data in stems.items()
        }
        stems = _still_open(found, stems, texts, start)
    # A character may have to be completed in one way of many.
    few = ("", "a", "!", "  ")
    texts = {
        ids: [head + tail for head in _completions(data, rng, 4200) for tail in few]
        for ids, data in stems.items()
    }
    stems = _still_open(found, stems, texts, start)
    for ids, data in list(stems.items()) if every else []:
        # Tokens that complete one may begin another.
        longer = (data + token for token in found.token_bytes.values())
        limit = 2 if _is_text(data) else 64
        texts = {ids: [text for more in longer for text in _completions(more, rng, limit)]}
        if not _still_open(found, {ids: data}, texts, start):
            del stems[ids]
    return list(stems)


def _still_open(
    found: Real, stems: dict[Ids, bytes], texts: dict[Ids, list[str]], start: bool
) -> dict[Ids, bytes]:
    """Those of the stems that none of their texts yields."""
    owners = [ids for ids in stems for _ in texts[ids]]
    encodings = found.admissible_ids([text for ids in stems for text in texts[ids]], start)
    pairs = zip(owners, encodings, strict=True)
    done = {ids for ids, got in pairs if got is not None and got[: len(ids)] == ids}
    return {ids: data for ids, data in stems.items() if ids not in done}


def _candidates(found: Real, mask: np.ndarray, rng: random.Random) -> list[int]:
    """Tokens to ask about: of all kinds, the rare ones more often than their share."""
    kinds = _kinds(found)
    asked = [rng.choice(pool) for pool in kinds if pool for _ in range(2)]
    allowed, refused = np.flatnonzero(mask), np.flatnonzero(~mask)
    for pool in (allowed, refused):
        asked += [int(pool[rng.randrange(len(pool))]) for _ in range(4) if len(pool)]
    return [token for token in asked if token not in found.special and token in found.token_bytes]


@functools.cache
def _kinds(found: Real) -> list[list[int]]:
    """Ordinary tokens by kind; a token may be of several."""
    matched = {token["id"] for token in found.spec["added_tokens"] if not token["special"]}
    ordinary = [(token, data) for token, data in found.token_bytes.items() if token not in found.special]
    tests: tuple[Callable[[int, bytes], bool], ...] = (
        lambda token, data: token in matched,
        lambda token, data: data.isspace(),
        lambda token, data: not _is_text(data),
        lambda token, data: len(data) == 1,
        lambda token, data: len(data) <= 3 and data.isascii() and not data.isalnum(),
        lambda token, data: data.decode(errors="ignore").isnumeric(),
        lambda token, data: data.startswith(b"'"),
        lambda token, data: not data.isascii(),
    )
    return [[token for token, data in ordinary if test(token, data)] for test in tests]


def test_next_tokens(name: str) -> None:
    """Sampled entries of `canonical_next` along texts: True ones have a witness, False ones have none."""
    found = real.load(name)
    rng = random.Random(f"next {name} {SEED}")
    yes: dict[bool, list[Ids]] = {False: [], True: []}
    no: dict[bool, list[Ids]] = {False: [], True: []}
    for _ in range(POSITIONS):
        start = found.dummy and rng.random() < 0.5
        (ids,) = found.admissible_ids([real.random_text(found, rng, 3)[:24]], start)
        if ids is None:
            continue
        ids = ids[: rng.randint(0, len(ids))]
        mask = found.tok.canonical_next(ids, start=start)
        for token in _candidates(found, mask, rng):
            (yes if mask[token] else no)[start].append((*ids, token))
    assert sum(map(len, yes.values())) >= 500
    assert sum(map(len, no.values())) >= 300
    for start, asked in yes.items():
        missing = _without_witness(found, asked, start, rng, every=True)
        assert not missing, [(ids, found.decode(ids)) for ids in missing[:20]]
    for start, asked in no.items():
        witnessed = set(asked) - set(_without_witness(found, asked, start, rng, every=False))
        assert not witnessed, [(ids, found.decode(ids)) for ids in sorted(witnessed)[:20]]


def _resegment(found: Real, ids: Ids, rng: random.Random) -> Ids:
    """The same bytes in other tokens: a stretch of one to three tokens is cut up anew, at random."""
    at = rng.randrange(len(ids))
    end = min(len(ids), at + rng.randint(1, 3))
    data, tokens = found.decode(ids[at:end]), []
    while data:
        lengths = [length for length in range(1, len(data) + 1) if data[:length] in _by_bytes(found)]
        if not lengths:
            return ids
        # Long tokens first: most sequences of single bytes are nothing special.
        length = lengths[-1] if rng.random() < 0.5 else rng.choice(lengths)
        tokens.append(rng.choice(_by_bytes(found)[data[:length]]))
        data = data[length:]
    # What follows the stretch may or may not be said: a prefix that ends early leaves more open.
    return (*ids[:at], *tokens, *ids[end : rng.randint(end, len(ids))])


@functools.cache
def _by_bytes(found: Real) -> dict[bytes, list[int]]:
    table: dict[bytes, list[int]] = {}
    for token, data in found.token_bytes.items():
        if token not in found.special:
            table.setdefault(data, []).append(token)
    return table


def test_resegmented(name: str) -> None:
    """Sequences that spell a text in other tokens: canonical only with a witness, refused only without one."""
    found = real.load(name)
    rng = random.Random(f"resegmented {name} {SEED}")
    for start in (False, True) if found.dummy else (False,):
        texts = [real.random_text(found, rng, 2)[:16] for _ in range(SEQUENCES)]
        encodings = [ids for ids in found.admissible_ids(texts, start) if ids]
        asked = {_resegment(found, ids, rng) for ids in encodings for _ in range(3)}
        canonical = {ids for ids in asked if found.tok.is_canonical(ids, start=start)}
        missing = _without_witness(found, sorted(canonical), start, rng, every=True)
        assert not missing, [(ids, found.decode(ids)) for ids in missing[:20]]
        refused = asked - canonical
        witnessed = refused - set(_without_witness(found, sorted(refused), start, rng, every=False))
        assert not witnessed, [(ids, found.decode(ids)) for ids in sorted(witnessed)[:20]]
        assert min(len(canonical), len(refused)) >= SEQUENCES // 10
