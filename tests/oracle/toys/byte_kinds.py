"""The kinds of byte-level toys."""

from __future__ import annotations

import random

from .alphabets import BRANCHY, CJK, COMBINING, DIGITS, LETTERS, Alphabet, byte_pieces, draw
from .merges import add_derivations, add_merges, add_unreachable
from .reading import Spec
from .toy import Toy, finish
from .writing import DEEPSEEK, LLAMA3, QWEN, bare_spec, byte_level, patterns, sequence


def _byte_toy(
    kind: str,
    rng: random.Random,
    pool: tuple[tuple[str, ...], ...],
    given: Alphabet,
    pre_tokenizer: Spec,
    normalizer: Spec | None = None,
    look: int = 2,
) -> Toy:
    """A byte-level toy with random merges and nothing else."""
    pieces, chars = byte_pieces(draw(pool, rng, given), rng)
    spec = bare_spec(pieces, pre_tokenizer, normalizer)
    add_merges(spec, chars, rng, rng.randint(3, 12))
    return finish(kind, spec, chars, rng, look)


def plain(rng: random.Random, given: Alphabet = None) -> Toy:
    """No pattern: nothing looks ahead."""
    return _byte_toy("plain", rng, LETTERS + BRANCHY, given, byte_level(False), look=1)


def gpt2(rng: random.Random, given: Alphabet = None) -> Toy:
    """GPT-2's pattern."""
    return _byte_toy("gpt2", rng, BRANCHY, given, byte_level(True))


def qwen(rng: random.Random, given: Alphabet = None) -> Toy:
    """Qwen's pattern."""
    return _byte_toy("qwen", rng, BRANCHY, given, patterns(QWEN))


def llama3(rng: random.Random, given: Alphabet = None) -> Toy:
    """Llama 3's pattern: digits in groups of three."""
    return _byte_toy("llama3", rng, BRANCHY + DIGITS, given, patterns(LLAMA3))


def digits_sequence(rng: random.Random, given: Alphabet = None) -> Toy:
    """Digits are split off first: lookahead sees the end of the piece."""
    digits = {"type": "Digits", "individual_digits": rng.random() < 0.5}
    return _byte_toy("digits_sequence", rng, DIGITS, given, sequence(digits, byte_level(True)))


def deepseek(rng: random.Random, given: Alphabet = None) -> Toy:
    """DeepSeek's three patterns, one after the other."""
    return _byte_toy("deepseek", rng, CJK, given, patterns(*DEEPSEEK))


def nfc(rng: random.Random, given: Alphabet = None) -> Toy:
    """Combining marks under NFC: texts that it rewrites are not admissible."""
    pre_tokenizer = rng.choice([byte_level(False), patterns(QWEN)])
    return _byte_toy("nfc", rng, COMBINING, given, pre_tokenizer, {"type": "NFC"})


def some_byte_pretokenizer(rng: random.Random) -> Spec:
    """No pattern, GPT-2's, Qwen's or Llama 3's."""
    return rng.choice([byte_level(False), byte_level(True), patterns(QWEN), patterns(LLAMA3)])


def derivations(rng: random.Random, given: Alphabet = None) -> Toy:
    """Several merges make the same token."""
    while True:
        pieces, chars = byte_pieces(draw(LETTERS, rng, given), rng, drop=0.1)
        spec = bare_spec(pieces, some_byte_pretokenizer(rng))
        add_merges(spec, chars, rng, rng.randint(5, 10))
        if add_derivations(spec, rng, rng.randint(1, 4)):
            return finish("derivations", spec, chars, rng, 2)


def improper(rng: random.Random, given: Alphabet = None) -> Toy:
    """Some merge comes before one that makes a part of it."""
    while True:
        pieces, chars = byte_pieces(draw(LETTERS, rng, given), rng, drop=0.1)
        spec = bare_spec(pieces, some_byte_pretokenizer(rng))
        add_merges(spec, chars, rng, rng.randint(5, 12), wild=0.1)
        if rng.random() < 0.3:
            add_derivations(spec, rng, 2)
        merges = spec["model"]["merges"]
        rng.shuffle(merges)
        ranks: dict[str, int] = {}
        for rank, (left, right) in enumerate(merges):
            ranks.setdefault(left + right, rank)
        if any(ranks.get(part, -1) > rank for rank, pair in enumerate(merges) for part in pair):
            return finish("improper", spec, chars, rng, 2)


def ignore_merges(rng: random.Random, given: Alphabet = None) -> Toy:
    """Whole pretokens are looked up, also tokens that no merge makes."""
    pre_tokenizer = rng.choice([byte_level(True), patterns(QWEN), patterns(LLAMA3)])
    pieces, chars = byte_pieces(draw(LETTERS + BRANCHY, rng, given), rng, drop=0.1)
    spec = bare_spec(pieces, pre_tokenizer)
    add_merges(spec, chars, rng, rng.randint(3, 8))
    if rng.random() < 0.3:
        rng.shuffle(spec["model"]["merges"])
    add_unreachable(spec, chars, rng, rng.randint(1, 4))
    spec["model"]["ignore_merges"] = True
    return finish("ignore_merges", spec, chars, rng, 3)
