"""Random merges, and tokens that no merge makes."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

from tokenizers import Tokenizer

from .reading import Spec, byte_of, is_byte_level, touched_chars

MAX_TOKEN_CHARS = 3
"""No token touches more characters than this. It bounds how far a token reaches past a prefix, and with it
how many characters an enumeration must add (`Toy.look` says how many more the pretokenizer can ask for)."""


def random_pretokens(spec: Spec, chars: list[str], rng: random.Random, count: int = 60) -> list[list[str]]:
    """Random pretokens, each as the list of its symbols. What merges are drawn from, so that most of them
    can ever apply.
    """
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    vocab = spec["model"]["vocab"]
    found: list[list[str]] = []
    for _ in range(count):
        text = "".join(rng.choice(chars) for _ in range(rng.randint(2, 6)))
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        pieces = [text]
        if tokenizer.pre_tokenizer is not None:
            pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        found.extend(list(piece) for piece in pieces if all(char in vocab for char in piece))
    return found


def _apply(symbols: list[str], left: str, right: str) -> list[str]:
    """Merges every occurrence of a pair, left to right."""
    out: list[str] = []
    for symbol in symbols:
        if out and out[-1] == left and symbol == right:
            out[-1] = left + right
        else:
            out.append(symbol)
    return out


def _span(piece: str, byte_level: bool) -> int:
    """Characters that a piece of the vocabulary touches."""
    if not byte_level:
        return len(piece)
    return touched_chars(bytes(map(byte_of().__getitem__, piece)))


def add_merges(spec: Spec, chars: list[str], rng: random.Random, count: int, wild: float = 0.25) -> None:
    """Appends up to `count` random merges.

    Most are pairs that stand side by side in random pretokens (the most frequent ones in half of the toys,
    as training would take them); a share of `wild` joins any two tokens, whether or not they ever meet.
    """
    model, byte_level = spec["model"], is_byte_level(spec)
    vocab, merges = model["vocab"], model["merges"]
    corpus = random_pretokens(spec, chars, rng)
    trained = rng.random() < 0.5
    alphabet = [piece for piece in vocab if len(piece) == 1]
    tokens = list(alphabet)
    for _ in range(count * 3):
        if len(merges) >= count:
            return
        pairs = Counter(pair for symbols in corpus for pair in pairwise(symbols))
        pairs = Counter(
            {pair: n for pair, n in pairs.items() if _span("".join(pair), byte_level) <= MAX_TOKEN_CHARS}
        )
        if rng.random() < wild or not pairs:
            left, right = rng.choice(tokens), rng.choice(tokens)
        elif trained:
            (left, right), _ = pairs.most_common(1)[0]
        else:
            left, right = rng.choice(sorted(pairs))
        product = left + right
        if [left, right] in merges or _span(product, byte_level) > MAX_TOKEN_CHARS or product.startswith("<"):
            continue
        merges.append([left, right])
        if product not in vocab:
            vocab[product] = len(vocab)
            tokens.append(product)
        corpus = [_apply(symbols, left, right) for symbols in corpus]


def add_derivations(spec: Spec, rng: random.Random, count: int) -> int:
    """Adds further merges that make tokens that are there already. Returns how many it found."""
    model = spec["model"]
    vocab, merges = model["vocab"], model["merges"]
    options = [
        [piece[:cut], piece[cut:]]
        for piece in vocab
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab and [piece[:cut], piece[cut:]] not in merges
    ]
    rng.shuffle(options)
    for pair in options[:count]:
        merges.insert(rng.randint(0, len(merges)), pair)
    return len(options[:count])


def add_unreachable(spec: Spec, chars: list[str], rng: random.Random, count: int) -> None:
    """Adds tokens that no merge makes: runs of symbols of random pretokens, whole pretokens among them."""
    vocab = spec["model"]["vocab"]
    runs = sorted(
        {
            "".join(symbols[:n])
            for symbols in random_pretokens(spec, chars, rng)
            for n in range(2, len(symbols) + 1)
            if _span("".join(symbols[:n]), True) <= MAX_TOKEN_CHARS
        }
        - set(vocab)
    )
    for piece in rng.sample(runs, min(count, len(runs))):
        vocab[piece] = len(vocab)
