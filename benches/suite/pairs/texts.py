"""The texts of `pairs.py`: answers after their questions, snippets of Python, sentences in many scripts."""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import crosstok as ct

from ..inputs import Chat

MULTILINGUAL = Path(__file__).resolve().parents[2] / "texts" / "multilingual.json"
# Teacher tokens of a snippet: several lines, few enough for many snippets.
SNIPPET_TOKENS = (40, 120)
# Larger sources are tables and tests of tables.
SOURCE_BYTES = 100_000


@dataclass(frozen=True)
class Text:
    """A text with its kind ("answers", "snippets", "texts"). prompt: teacher ids, None: it starts a document."""

    kind: str
    text: str
    prompt: tuple[int, ...] | None = None


def answers(kind: str, texts: Sequence[str], prompts: Sequence[Sequence[int]]) -> list[Text]:
    """Answers, each after its question."""
    return [Text(kind, text, tuple(prompt)) for text, prompt in zip(texts, prompts, strict=True)]


def alternating(texts: Sequence[Text]) -> list[Text]:
    """The same, but every other one starts a document."""
    return [replace(text, prompt=None) if k % 2 else text for k, text in enumerate(texts)]


def snippets(tokenizer: ct.Tokenizer, count: int, seed: int = 0) -> list[Text]:
    """Lines of the running interpreter's standard library, with indentation; the same on each call."""
    rng = random.Random(seed)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    readable = [path for path in sources if path.stat().st_size <= SOURCE_BYTES]
    found: dict[str, None] = {}
    while len(found) < count:
        lines = rng.choice(readable).read_text(encoding="utf-8", errors="ignore").split("\n")
        cut = _cut(tokenizer, lines, rng)
        if cut is not None:
            found[cut] = None
    return [Text("snippets", snippet) for snippet in found]


def _cut(tokenizer: ct.Tokenizer, lines: Sequence[str], rng: random.Random) -> str | None:
    """Whole lines from a random one on, of a random length within `SNIPPET_TOKENS`; None where they do not fit."""
    lowest, highest = SNIPPET_TOKENS
    wanted = rng.randint(lowest, highest)
    at = end = rng.randrange(len(lines))
    size = 0
    while end < len(lines) and size < wanted:
        size += len(tokenizer.encode(lines[end] + "\n"))
        end += 1
    snippet = "\n".join(lines[at:end]) + "\n"
    fits = lowest <= len(tokenizer.encode(snippet)) <= highest
    return snippet if fits and "\n    " in snippet and snippet[0] != "\n" else None


def multilingual(count: int) -> list[Chat]:
    """Our own sentences, each as the answer to a question; the last two are such that SmolLM2 cannot spell them."""
    entries = json.loads(MULTILINGUAL.read_text(encoding="utf-8"))
    return [
        [
            {"role": "user", "content": f"Write a line: {entry['kind']}."},
            {"role": "assistant", "content": entry["text"]},
        ]
        for entry in entries[:count]
    ]


def admissible(texts: Sequence[Text], tokenizer: ct.Tokenizer) -> Iterator[Text]:
    """Those that a tokenizer can encode faithfully."""
    for text in texts:
        try:
            tokenizer.check_admissible(text.text, start=text.prompt is None)
        except ct.TextError:
            continue
        yield text
