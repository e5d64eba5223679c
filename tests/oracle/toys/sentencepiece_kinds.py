"""The kinds of SentencePiece-style toys."""

from __future__ import annotations

import random

from .alphabets import SPACED, Alphabet
from .merges import add_derivations, add_merges
from .reading import Spec, spellable
from .toy import Toy, finish
from .writing import bare_spec, metaspace, prepend, replace, split_after_spaces


def sentencepiece(rng: random.Random, given: Alphabet = None) -> Toy:
    """Pieces are characters; what has none is unknown."""
    return _sentencepiece("sentencepiece", rng, given, fallback=False)


def sentencepiece_fallback(rng: random.Random, given: Alphabet = None) -> Toy:
    """A character without piece is spelled by `<0xXX>` tokens."""
    return _sentencepiece("sentencepiece_fallback", rng, given, fallback=True)


def _sentencepiece(kind: str, rng: random.Random, given: Alphabet, fallback: bool) -> Toy:
    pieces, chars = _pieces(list(rng.choice(SPACED) if given is None else given), rng, fallback)
    normalizer, pre_tokenizer = _spaces(rng)
    model = {"unk_token": "<unk>", "fuse_unk": rng.random() < 0.7, "byte_fallback": fallback}
    spec = bare_spec(pieces, pre_tokenizer, normalizer, **model)
    add_merges(spec, chars, rng, rng.randint(3, 12), wild=0.15)
    if rng.random() < 0.3:
        add_derivations(spec, rng, 2)
    return finish(kind, spec, chars, rng, 1)


def _pieces(wanted: list[str], rng: random.Random, fallback: bool) -> tuple[list[str], list[str]]:
    """The vocabulary before any merge, and the closed list of characters."""
    optional = [char for char in wanted if char != " "]
    missing = {char for char in optional if rng.random() < (0.6 if fallback and char > "z" else 0.15)}
    if len(missing) == len(wanted):  # an alphabet without the space
        missing.discard(wanted[0])
    bytes_: set[int] = set()
    if fallback:
        missing = missing or {optional[-1]}
        bytes_ = {byte for char in missing for byte in char.encode()}
        if rng.random() < 0.4:  # Fallback bytes of a character that has a piece: never canonical.
            bytes_ |= set(rng.choice(optional).encode())
        if rng.random() < 0.15:
            bytes_.discard(rng.choice(sorted(bytes_)))
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in sorted(bytes_))]
    pieces += [char.replace(" ", "▁") for char in wanted if char not in missing]
    return pieces, wanted + [char for char in spellable(bytes_) if char not in wanted]


def _spaces(rng: random.Random) -> tuple[Spec | None, Spec | None]:
    """Normalizer and pretokenizer: one of the ways in which spaces become ▁, with or without dummy prefix."""
    choices: list[tuple[Spec | None, Spec | None]] = [
        (replace(), None),
        (replace(), split_after_spaces()),
        (prepend(), None),
        (None, metaspace(rng.choice(["always", "first", "never"]), rng.random() < 0.5)),
    ]
    return rng.choice(choices)
