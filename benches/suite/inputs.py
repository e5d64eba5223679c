"""What is measured with: a teacher, texts, tokenizers; everything small with ``quick``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pydoc_data.topics import topics
from typing import TypeVar

import crosstok as ct

from .row import Unavailable

T = TypeVar("T")
# Students: the first so many of the teacher's merges; about half, a sixth and none of SmolLM2's 49,000.
MERGES = (24_000, 8_000, 0)
# What a question and its answer are rendered as: messages of a chat.
Chat = list[dict[str, str]]


@dataclass(frozen=True)
class Inputs:
    """The options of `app.py`.

    teacher: a transformers model directory. data: JSON Lines with ``messages`` (GSM8K); None: paragraphs of Python's
    documentation. tokenizers: a directory with one ``*/tokenizer.json`` each. names: those that are measured where
    tokenizers alone are; empty: all, and the teacher's. texts, repeats: of the teacher ratios.
    """

    teacher: Path
    data: Path | None
    tokenizers: Path | None
    names: tuple[str, ...]
    quick: bool
    device: str
    texts: int
    repeats: int

    def scaled(self, full: T, quick: T) -> T:
        """One of two sizes."""
        return quick if self.quick else full

    def problem(self) -> str | None:
        """What is wrong with the paths and names, if anything is."""
        if not (self.teacher / "tokenizer.json").is_file():
            return f"{self.teacher} has no tokenizer.json"
        unknown = sorted(set(self.names) - set(self._all_files))
        return f"no tokenizer is called {', '.join(unknown)}" if unknown else None

    @property
    def files(self) -> dict[str, Path]:
        """Name → tokenizer.json of those that are measured: the teacher's, then the others by name."""
        return {
            name: path for name, path in self._all_files.items() if name in (self.names or self._all_files)
        }

    @cached_property
    def _all_files(self) -> dict[str, Path]:
        """The teacher's is not listed twice."""
        own = self.teacher / "tokenizer.json"
        others = sorted(self.tokenizers.glob("*/tokenizer.json")) if self.tokenizers else []
        same = {path for path in others if path.read_bytes() == own.read_bytes()}
        name = next((path.parent.name for path in same), self.teacher.resolve().name)
        return {name: own, **{path.parent.name: path for path in others if path not in same}}

    @property
    def teacher_file(self) -> tuple[str, Path]:
        """Name and tokenizer.json of the teacher."""
        return next(iter(self._all_files.items()))

    @cached_property
    def chats(self) -> list[Chat]:
        """Question and answer, as messages."""
        return _documentation() if self.data is None else read_chats(self.data)

    @property
    def answers(self) -> list[str]:
        """The answers alone, in the order of the file."""
        return [chat[-1]["content"] for chat in self.chats]

    def sentences(self, count: int) -> list[str]:
        """Short texts: the sentences of the answers, from the start again where they do not suffice."""
        found = [s for answer in self.answers for s in re.split(r"(?<=[.!?])\s+|\n+", answer) if s]
        return [found[i % len(found)] for i in range(count)]

    def running_text(self, size: int) -> str:
        """Answers in one text, cut to ``size`` bytes (to the last whole character)."""
        text = "\n\n".join(self.answers).encode()
        if len(text) < size:
            raise Unavailable(f"needs {size:,} bytes of text, the data has {len(text):,}")
        return text[:size].decode(errors="ignore")


def merges_of(tokenizer: ct.Tokenizer) -> tuple[int, ...]:
    """The students of a teacher: `MERGES`, in proportion for a smaller vocabulary."""
    if tokenizer.vocab_size > MERGES[0]:
        return MERGES
    return tokenizer.vocab_size // 2, tokenizer.vocab_size // 6, 0


def pair_of(teacher: ct.Tokenizer, merges: int) -> ct.Pair:
    """A teacher's tokenizer with the student of its first merges.

    A tokenizer.json alone need not say which special token ends a text; it makes no difference to times, so any does.
    """
    student = teacher.first_merges(merges)
    eos = teacher.eos_ids or teacher.special_ids[:1].tolist()
    return ct.Pair(teacher, student, eos, student.eos_ids or student.special_ids[:1].tolist())


def named(tokenizer: str, merges: int) -> str:
    """How rows call a pair."""
    return f"{tokenizer}, {merges:,} merges"


def read_chats(path: Path) -> list[Chat]:
    """The messages of every line of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["messages"] for line in lines]


def _documentation() -> list[Chat]:
    """Paragraphs of Python's documentation as every CPython has it, each once; two follow each other as a chat."""
    pages = (re.split(r"\n\s*\n", topics[name]) for name in sorted(topics))
    texts = (" ".join(paragraph.split()) for page in pages for paragraph in page)
    kept = list(dict.fromkeys(text for text in texts if 100 <= len(text) <= 600))
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in zip(kept[::2], kept[1::2], strict=False)
    ]
