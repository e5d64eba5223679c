"""Toys with added tokens."""

from __future__ import annotations

import itertools
import random

from .alphabets import MARKED, Alphabet, byte_pieces
from .byte_kinds import some_byte_pretokenizer
from .merges import MAX_TOKEN_CHARS, add_merges
from .reading import Spec, is_byte_level
from .toy import Toy, finish
from .writing import added_token, bare_spec, replace, split_after_spaces


def added(rng: random.Random, given: Alphabet = None) -> Toy:
    """Non-special added tokens, nested and overlapping, and special ones that overlap them.

    Hugging Face finds special tokens in the text even where it is told to leave them alone, and only then
    skips them: a special token can hide a non-special one that starts later inside it or that is its
    beginning.
    """
    spec, chars = _without_added(list(rng.choice(MARKED) if given is None else given), rng)
    add_merges(spec, chars, rng, rng.randint(3, 8))
    contents = _contents(spec, chars)
    rng.shuffle(contents)
    plain, special = contents[: rng.randint(1, 3)], contents[3 : 3 + rng.randint(0, 2)]
    normalized = rng.random() < 0.4
    spec["added_tokens"] = [
        added_token(c, special=False, normalized=normalized and rng.random() < 0.6) for c in plain
    ]
    # A special token may not be an ordinary token of the vocabulary too: its id would stand for both.
    spec["added_tokens"] += [added_token(c, special=True) for c in special if c not in spec["model"]["vocab"]]
    return finish("added", spec, chars, rng, 2)


def _without_added(chars: list[str], rng: random.Random) -> tuple[Spec, list[str]]:
    """A byte-level or SentencePiece-style spec without merges, and the closed list of its characters."""
    if rng.random() < 0.6:
        pieces, chars = byte_pieces(chars, rng, drop=0.1)
        normalizer = {"type": "NFC"} if rng.random() < 0.2 else None
        return bare_spec(pieces, some_byte_pretokenizer(rng), normalizer), chars
    pieces = ["<unk>", *(char.replace(" ", "▁") for char in chars)]
    pre_tokenizer = rng.choice([None, split_after_spaces()])
    return bare_spec(pieces, pre_tokenizer, replace(), unk_token="<unk>", fuse_unk=True), chars


def _contents(spec: Spec, chars: list[str]) -> list[str]:
    """What an added token may be: short strings over the toy's characters that begin and end alike."""
    contents = ["<a>", "<a>b", "b<", "ab", "aa", "aba", ">b", "a>", "ba", "éa", "a1", "1", "bb"]
    if is_byte_level(spec):
        contents += [" a", "a ", "  "]
    if len(set(chars) & set("<a>b")) < 2:  # an alphabet made for others
        solid = [char for char in chars if is_byte_level(spec) or char != " "]
        contents += sorted({"".join(pair) for pair in itertools.product(solid, repeat=2)} - set(contents))
    # In a byte-level vocabulary the string "a½" stands for other bytes, and two meanings cannot share an id.
    taken = {piece for piece in spec["model"]["vocab"] if is_byte_level(spec) and not piece.isascii()}
    return [
        content
        for content in contents
        if set(content) <= set(chars) and len(content) <= MAX_TOKEN_CHARS + 1 and content not in taken
    ]
