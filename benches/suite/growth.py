"""How time grows with the length of a text: of GSM8K answers in one text, and of runs of one character.

A value is the time per KB (of runs: per character) at the largest size over that at a tenth of it (of texts: at 10 KB),
on warm caches: 1 is linear. The plan is that of labels, on one core; seconds are of processor time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import crosstok as ct

from .fresh import Fresh
from .inputs import Inputs, merges_of, named, pair_of
from .row import Bar, Row
from .timing import Spread, cpu_seconds, repeated

# Linear, with room for caches that a small text fits into, and for noise.
LINEAR = Bar(2.0)
# Seconds after which growth is known to be wrong.
LIMIT = 900.0
REPEATS, BUDGET = 7, 3.0
RUNS = {
    "letters a": "a",
    "spaces": " ",
    "newlines": "\n",
    "digits": "7",
    "marks U+0301 after a": "\u0301",
    "CJK": "\u4e2d",
}
# What grows, over linear growth, details.
Figure = tuple[str, float, dict[str, float | str]]


def measure(inputs: Inputs) -> Iterator[Row]:
    """Every tokenizer: encode, plans for the first student and for the one without merges."""
    sizes = inputs.scaled((1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000))
    texts = [inputs.running_text(size) for size in sizes]
    length, runs = inputs.scaled((100_000, tuple(RUNS)), (1_000, tuple(RUNS)[:2]))
    for name, path in inputs.files.items():
        merges = merges_of(ct.Tokenizer.from_file(path))
        for student in (None, merges[0], merges[-1]):
            what = f"{name}: encode" if student is None else f"{named(name, student)}: plan"
            try:
                found = Fresh(cores=1, seconds=LIMIT).call(figures, path, student, texts, runs, length)
            except TimeoutError:
                found = [("all", float("inf"), {"more than s": LIMIT})]
            for text, value, details in found:
                yield Row("growth", f"{what}, {text}", value, "x linear", LINEAR, details)


def figures(
    path: Path, merges: int | None, texts: Sequence[str], runs: Sequence[str], length: int
) -> list[Figure]:
    """Of one tokenizer (merges None) or one pair: for ``texts`` of rising size, and for each of ``runs``."""
    tokenizer = ct.Tokenizer.from_file(path)
    action = _action(tokenizer, merges, texts[0])
    found = [_text_growth(action, texts)]
    for run in runs:
        # A mark needs a letter; where NFC composes the two, the composed text is the one that can be planned.
        small, large = (tokenizer.normalize("a" + RUNS[run] * (size - 1)) for size in (length // 10, length))
        seconds = _warm(action, large)
        details: dict[str, float | str] = {"seconds": seconds, "characters": length}
        found.append((run, seconds / _warm(action, small) / 10, details))
    return found


def _text_growth(action: Callable[[str], Any], texts: Sequence[str]) -> Figure:
    sizes = [len(text.encode()) / 1000 for text in texts]
    per_kb = [_warm(action, text) / size for text, size in zip(texts, sizes, strict=True)]
    details = {f"us/KB at {size:,.0f} KB": 1e6 * time for size, time in zip(sizes, per_kb, strict=True)}
    return "text", per_kb[-1] / per_kb[1], dict(details)


def _action(tokenizer: ct.Tokenizer, merges: int | None, first: str) -> Callable[[str], Any]:
    """Encode or plan one text, with every table made."""
    if merges is None:
        return tokenizer.encode
    pair = pair_of(tokenizer, merges)
    pair.plan([first], num_threads=1)
    return lambda text: pair.plan([text], num_threads=1)


def _warm(action: Callable[[str], Any], text: str) -> float:
    """Median seconds of calls after a first one; the first one's where it takes long."""
    first = cpu_seconds(lambda: action(text))
    if first > BUDGET:
        return first
    return Spread.of(repeated(lambda: action(text), REPEATS, BUDGET, cpu_seconds)).median
