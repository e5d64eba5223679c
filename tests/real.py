"""The tokenizers of ../shared, each loaded by crosstok and by Hugging Face, and texts to try them on.

What Hugging Face makes of a whole text is the reference here (pretokenizers.md: `encode_special_tokens=True,
add_special_tokens=False`); the bytes of tokens are read from the file by `oracle.toys`, not by crosstok.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from oracle import toys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import tokenizers

ct = pytest.importorskip("crosstok")

Ids = tuple[int, ...]

SHARED = Path(__file__).resolve().parents[2] / "shared"
NAMES = tuple(
    dict.fromkeys(
        [
            *(
                "deepseek",
                "gemma3",
                "llama2",
                "llama3",
                "qwen3",
                "qwen_first_32000",
                "qwen_first_8000",
                "smollm2",
            ),
            *sorted(path.parent.name for path in SHARED.glob("tokenizers/*/tokenizer.json")),
        ]
    )
)


class Real:
    """One tokenizer.json in both libraries."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.name = path.parent.name
        self.spec: toys.Spec = json.loads(text)
        self.tok: Any = ct.Tokenizer.from_file(path)
        self.special = toys.special_ids(self.spec)
        self.dummy = toys.dummy_prefix(self.spec)
        self.byte_level = toys.is_byte_level(self.spec)
        self.token_bytes = toys.token_bytes(self.spec)
        if not self.byte_level:
            # Gemma 3 lists its runs of spaces, written with the marker, among the added tokens.
            self.token_bytes = {id: b.replace("▁".encode(), b" ") for id, b in self.token_bytes.items()}
        self.added = [token["content"] for token in self.spec["added_tokens"]]
        self._hf = {True: _hf(text)}
        self._hf[False] = (
            _hf(json.dumps(toys.without_dummy_prefix(self.spec))) if self.dummy else self._hf[True]
        )
        forms = [part["type"] for part in toys.normalizers(self.spec) if part["type"].startswith("NF")]
        self._normalizer = self._hf[True].normalizer if forms else None

    def hf_ids(self, texts: Sequence[str], start: bool = False) -> list[list[int]]:
        """What Hugging Face gives, admissible or not. Without `start` the dummy prefix is taken out of the file."""
        return [e.ids for e in self._hf[start].encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> bytes:
        return b"".join(map(self.token_bytes.__getitem__, ids))

    def reaching(self, ids: Sequence[int], size: int) -> int:
        """How many of the tokens it takes to spell `size` bytes, of a dummy prefix too."""
        count = spelled = 0
        while spelled < size:
            spelled += len(self.token_bytes[ids[count]])
            count += 1
        return count

    def normalized(self, text: str) -> bytes:
        """The bytes that the encoding of a text has to spell, without dummy prefix."""
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        return (text if self.byte_level else text.replace("▁", " ")).encode()

    def spells(self, text: str, ids: Sequence[int], start: bool = False) -> bool:
        """Whether nothing of the text was dropped or made unknown."""
        return self._spell(ids, self.normalized(text), start)

    def _spell(self, ids: Sequence[int], data: bytes, start: bool) -> bool:
        """Whether ordinary tokens spell the bytes, after the dummy prefix if there is one."""
        prefix = b" " if start and self.dummy and data else b""
        return self.special.isdisjoint(ids) and self.decode(ids) == prefix + data

    def admissible_ids(self, texts: Sequence[str], start: bool = False) -> list[Ids | None]:
        """The encodings of the admissible texts (design.md, section 2), None for the others."""
        return [
            tuple(ids)
            if self.normalized(text) == (data := text.encode()) and self._spell(ids, data, start)
            else None
            for text, ids in zip(texts, self.hf_ids(texts, start), strict=True)
        ]


def _hf(text: str) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_str(text)
    loaded.encode_special_tokens = True
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


@functools.cache
def _load(path: Path) -> Real:
    return Real(path)


def load(name: str) -> Real:
    """A tokenizer of ../shared, once a session. Skips the test where it is missing."""
    path = SHARED / "tokenizers" / name / "tokenizer.json"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return _load(path)


@functools.cache
def gsm8k() -> tuple[str, ...]:
    """All texts of ../shared/data. Skips the test where it is missing."""
    paths = sorted(SHARED.glob("data/*.jsonl"))
    if not paths:
        pytest.skip(f"{SHARED / 'data'} holds no texts")
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line]
    return tuple(message["content"] for line in lines for message in json.loads(line)["messages"])


@functools.cache
def python_sources(max_bytes: int) -> tuple[str, ...]:
    """Sources of the standard library in a random order, at most `max_bytes` of them."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    paths += sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*/*.py"))
    random.Random(0).shuffle(paths)
    texts: list[str] = []
    for path in paths:
        if "site-packages" not in path.parts and path.stat().st_size <= max_bytes:
            max_bytes -= path.stat().st_size
            texts.append(path.read_bytes().decode(errors="ignore"))
    return tuple(texts)


SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    " \n",
    "\n ",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\u0085",
)
DIGITS = ("1", "12", "123", "1234567", "٣", "४५", "１２３", "²", "½", "Ⅷ", "𝟙𝟚", "一二")
CONTRACTIONS = ("'s", "'S", "'ſ", "'t", "'re", "'VE", "'ll", "'la", "'", "''", "’s", "I'l", "You''ve")
MARKS: tuple[str, ...] = ("\u0301", "\u0327", "a\u0327\u0301", "e\u0301", "é", "ç\u0301", "가", "각")
MARKS += ("\u1100\u1161\u11a8", "\u093f", "\u200d")
SCRIPTS: tuple[str, ...] = ("你", "好吗", "ひらがな", "カタカナ", "한국어", "Привет", "ñandú", "नमस्ते")
SCRIPTS += ("שלום", "مرحبا", "ſt", "Ω≈ç", "龥", "龦")
SYMBOLS: tuple[str, ...] = (
    "!",
    "?!",
    "...",
    ".:.:",
    "<",
    ">",
    "/>",
    "</",
    "<|",
    "|>",
    "=",
    "==",
    "{}",
    "();",
)
SYMBOLS += ("//", "#", "\\", "-", "—")
SYMBOLS += (
    "🙂",
    "🤌",
    "👩\u200d🚀",
    "🇩🇪",
    "€",
    "\x00",
    "\x1b",
    "\ufffd",
    "\ufeff",
    "\u2581",
    "▁a",
    "\U0010fffd",
)
WORDS: tuple[str, ...] = (" the", "the", " jeho", " kapsamam", "Hello", " hours", "table", "think", "Julie")
WORDS += ("iPhone", "日A", "日Aa", "x", "s", "ll")


def random_piece(real: Real, rng: random.Random) -> str:
    """A short text in which one branch of some pattern, or one layer of some tokenizer, matters."""
    kind = rng.randrange(12)
    if kind == 0:
        return "".join(rng.choices((" ", "\n", "\t", "\r", "\u00a0"), (6, 3, 1, 1, 1), k=rng.randint(1, 6)))
    if kind == 1:
        content: str = rng.choice(real.added)
        return content if rng.random() < 0.6 else content[: rng.randint(1, len(content))]
    if kind == 2:
        return "".join(rng.choices("0123456789", k=rng.randint(1, 7)))
    if kind == 3:
        # Text of a random token, whole or cut.
        text = real.token_bytes[rng.choice(_ids(real))].decode(errors="ignore")[:12]
        return text[: rng.randint(1, len(text))] if text and rng.random() < 0.3 else text
    if kind in (4, 5):
        source = rng.choice(gsm8k() if kind == 4 else python_sources(400_000)) or " "
        at = rng.randrange(len(source))
        return source[at : at + rng.randint(1, 20)]
    if kind == 6 and rng.random() < 0.3:
        return chr(rng.choice((rng.randrange(0x80, 0xD800), rng.randrange(0xE000, 0x20000))))
    return rng.choice((SPACES, DIGITS, CONTRACTIONS, MARKS, SCRIPTS, SYMBOLS, WORDS)[rng.randrange(7)])


def random_text(real: Real, rng: random.Random, pieces: int) -> str:
    """A text of at most so many random pieces."""
    return "".join(random_piece(real, rng) for _ in range(rng.randint(0, pieces)))


@functools.cache
def _ids(real: Real) -> list[int]:
    return sorted(set(real.token_bytes) - real.special)
