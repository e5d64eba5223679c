"""All kinds, and a random toy of one."""

from __future__ import annotations

import random
import unicodedata

from tokenizers import Tokenizer

from .added_kind import added
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


def make_toy(kind: str, rng: random.Random, max_texts: int | None = None) -> Toy:
    """A random toy of a kind. It loads in `tokenizers` with the ids that its spec states.

    With `max_texts` it is drawn again until the texts that an enumeration adds to a stem are no more than
    that: tests that ask about many stems stay quick with 1100.
    """
    while True:
        toy = _MAKERS[kind](rng)
        if max_texts is None or len(toy.chars) ** toy.ahead <= max_texts:
            break
    loaded = Tokenizer.from_str(toy.json())
    for token in toy.spec["added_tokens"]:
        assert loaded.token_to_id(token["content"]) == token["id"], (kind, token)
    if kind == "nfc":
        assert all(unicodedata.is_normalized("NFC", char) for char in toy.chars)
    return toy
