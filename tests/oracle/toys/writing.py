"""The parts of a tokenizer.json: patterns, pretokenizers, normalizers, added tokens, and a file without merges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .reading import Spec

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)


def added_token(content: str, *, special: bool = False, **flags: bool) -> Spec:
    """An added token, its id still open; flags that are not given are off."""
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": -1, "content": content, **off, "special": special, **flags}


def split(pattern: str) -> Spec:
    """A pretokenizer: the matches of a pattern and what lies between them."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def split_after_spaces() -> Spec:
    """A pretokenizer: a piece ends with each space. Where spaces have become ▁ before, it does nothing."""
    return {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }


def byte_level(use_regex: bool) -> Spec:
    """A pretokenizer: GPT-2's byte alphabet, with or without GPT-2's pattern."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def sequence(*parts: Spec) -> Spec:
    """Pretokenizers one after the other."""
    return {"type": "Sequence", "pretokenizers": list(parts)}


def patterns(*regexes: str) -> Spec:
    """A pretokenizer: split by each pattern, then the byte alphabet."""
    return sequence(*map(split, regexes), byte_level(False))


def metaspace(scheme: str, split: bool) -> Spec:
    """A pretokenizer: spaces become ▁, with a dummy prefix unless `scheme` is "never"."""
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def replace() -> Spec:
    """A normalizer: spaces become ▁."""
    return {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def prepend() -> Spec:
    """A normalizer: the dummy prefix, then `replace`."""
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace()]}


def bare_spec(
    pieces: Iterable[str], pre_tokenizer: Spec | None, normalizer: Spec | None = None, **model: Any
) -> Spec:
    """A spec without merges; ids in the order of `pieces`."""
    base: Spec = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {piece: index for index, piece in enumerate(pieces)},
        "merges": [],
    }
    base.update(model)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": base,
    }
