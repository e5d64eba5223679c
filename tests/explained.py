"""Texts to look at, the scorers that `crosstok.show` explains them with, and a reader of pages."""

from __future__ import annotations

import json
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import crosstok as ct
import torch
from crosstok.show import Explanation, Shown

DEMO = str(resources.files("crosstok.demo"))
TEXT = "Return a copy of the string with all the cased characters converted to lowercase."
# What may go wrong in markup, in scripts, on a terminal, and in what order it is read.
NASTY = "</script><!-- \"'&amp; {{style}} ${x}\\\n\x1b[31m\x00\x07\u202e\u2028\ufeff é e\u0327 你 🙂 שלום\t\r\n\n  x"
TINY = ["<end>", "a", "b", "Ġ", "ab", "ĠĠ", "aba"]


@cache
def demo(merges: int) -> ct.Scorer:
    """A scorer of the embedded teacher, for a student of its first merges."""
    teacher, tokenizer = _demo()
    return ct.Scorer(teacher, ct.Pair(tokenizer, tokenizer.first_merges(merges)))


@cache
def _demo() -> tuple[ct.HFTeacher, ct.Tokenizer]:
    return ct.HFTeacher(DEMO, dtype=torch.float32, device="cpu"), ct.Tokenizer.from_pretrained(DEMO)


def tiny(merges: int = 1, dead: tuple[int, int] = (-1, 0), canonical: str = "renormalize") -> ct.Scorer:
    """The README's toy teacher; after the first token of ``dead`` the second has probability zero."""
    end = {"id": 0, "content": "<end>", "special": True, "normalized": False}
    end |= {"single_word": False, "lstrip": False, "rstrip": False}
    vocab, merge = {token: id for id, token in enumerate(TINY)}, [["a", "b"], ["Ġ", "Ġ"], ["ab", "a"]]
    model = {"type": "BPE", "vocab": vocab, "merges": merge}
    split = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    teacher = ct.Tokenizer.from_json(
        json.dumps({"added_tokens": [end], "pre_tokenizer": split, "model": model})
    )

    def row(ids: tuple[int, ...]) -> object:
        logits = np.cos(np.arange(len(TINY)) * (1 + sum(ids)) + len(ids)) * 2
        logits[dead[1]] = -np.inf if ids[-1] == dead[0] else logits[dead[1]]
        return logits - np.logaddexp.reduce(logits)

    pair = ct.Pair(teacher, teacher.first_merges(merges), 0, 0)
    return ct.Scorer(ct.TableTeacher(row, len(TINY)), pair, canonical=canonical)


class Markup(HTMLParser):
    """The elements of a page, the text of its scripts, and whether all of them are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data


def show(scorer: ct.Scorer, *arguments: Any, **options: Any) -> Shown:
    """The text of a scorer's, shown."""
    return scorer.show(*arguments, **options)


def explain(scorer: ct.Scorer, *arguments: Any, **options: Any) -> Explanation:
    """What is shown."""
    return scorer.show(*arguments, **options).explanation
