"""All kinds, and a random toy of one."""

from __future__ import annotations

import random
import unicodedata

from tokenizers import Tokenizer

from .added_kind import added
from .alphabets import BRANCHY, CJK, COMBINING, DIGITS, LETTERS, MARKED, SPACED, Alphabet
from .byte_kinds import (
    deepseek,
    derivations,
    digits_sequence,
    gpt2,
    ignore_merges,
    improper,
    llama3,
    nfc,
    plain,
    qwen,
)
from .reading import spellable
from .sentencepiece_kinds import sentencepiece, sentencepiece_fallback
from .toy import Toy

_MAKERS = {
    "plain": plain,
    "gpt2": gpt2,
    "qwen": qwen,
    "llama3": llama3,
    "sentencepiece": sentencepiece,
    "sentencepiece_fallback": sentencepiece_fallback,
    "derivations": derivations,
    "ignore_merges": ignore_merges,
    "improper": improper,
    "added": added,
    "nfc": nfc,
    "digits_sequence": digits_sequence,
    "deepseek": deepseek,
}

KINDS = tuple(_MAKERS)

_POOLS = {
    "gpt2": BRANCHY,
    "qwen": BRANCHY,
    "llama3": DIGITS,
    "sentencepiece": SPACED,
    "sentencepiece_fallback": SPACED,
    "ignore_merges": BRANCHY,
    "added": MARKED,
    "nfc": COMBINING,
    "digits_sequence": DIGITS,
    "deepseek": CJK,
}


def alphabet_of(kind: str, rng: random.Random, most: int) -> tuple[str, ...]:
    """An alphabet on which a kind shows its traps: at most `most` characters once closed."""
    pool = _POOLS.get(kind, LETTERS)
    return rng.choice([chars for chars in pool if len(spellable(set("".join(chars).encode()))) <= most])


def make_toy(kind: str, rng: random.Random, max_texts: int | None = None, alphabet: Alphabet = None) -> Toy:
    """A random toy of a kind. It loads in `tokenizers` with the ids that its spec states.

    With `max_texts` it is drawn again until the texts that an enumeration adds to a stem are no more than
    that: tests that ask about many stems stay quick with 1100. With `alphabet` it is made over these
    characters, of which its vocabulary may lack one or another: a student for a teacher that spells them.
    """
    while True:
        toy = _MAKERS[kind](rng, alphabet)
        if max_texts is None or len(toy.chars) ** toy.ahead <= max_texts:
            break
    loaded = Tokenizer.from_str(toy.json())
    for token in toy.spec["added_tokens"]:
        assert loaded.token_to_id(token["content"]) == token["id"], (kind, token)
    if kind == "nfc":
        assert all(unicodedata.is_normalized("NFC", char) for char in toy.chars)
    return toy
