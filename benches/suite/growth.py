"""How time grows with the length of a text: of GSM8K answers in one text, and of runs of one character.

A value is the time per KB (of runs: per character) at the largest size over that at a tenth of it (of texts: at 10 KB),
on warm caches: 1 is linear. The plan is that of labels, on one core; seconds are of processor time. Pairs of unrelated
tokenizers: `lengths.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import crosstok as ct

from . import lengths
from .fresh import Fresh
from .inputs import Inputs, merges_of, named, pair_of
from .row import Bar, Row
from .timing import Spread, cpu_seconds, repeated

# Linear, with room for caches that a small text fits into, and for noise.
LINEAR = Bar(2.0)
# Seconds for one kind of text, after which growth is known to be wrong.
LIMIT = 240.0
REPEATS, BUDGET = 7, 3.0
RUNS = {
    "letters a": "a",
    "spaces": " ",
    "newlines": "\n",
    "digits": "7",
    "marks U+0301 after a": "\u0301",
    "CJK": "\u4e2d",
}
ORDINARY = "text"
# Over linear growth, details.
Figure = tuple[float, dict[str, float | str]]


def measure(inputs: Inputs) -> Iterator[Row]:
    """Every tokenizer: encode, plans for the first student and for the one without merges; unrelated tokenizers."""
    yield from _own_students(inputs)
    yield from lengths.measure(inputs)


def _own_students(inputs: Inputs) -> Iterator[Row]:
    sizes = inputs.scaled((1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000))
    texts = [inputs.running_text(size) for size in sizes]
    length, runs = inputs.scaled((100_000, tuple(RUNS)), (1_000, tuple(RUNS)[:2]))
    for name, path in inputs.files.items():
        merges = merges_of(ct.Tokenizer.from_file(path))
        for student in (None, merges[0], merges[-1]):
            what = f"{name}: encode" if student is None else f"{named(name, student)}: plan"
            for kind in (ORDINARY, *runs):
                given = texts if kind == ORDINARY else (kind, length)
                try:
                    value, details = Fresh(cores=1, seconds=LIMIT).call(
                        figure, path, student, texts[0], given
                    )
                except TimeoutError:
                    value, details = float("inf"), {"more than s": LIMIT}
                yield Row("growth", f"{what}, {kind}", value, "x linear", LINEAR, details)


def figure(path: Path, merges: int | None, first: str, given: Sequence[str] | tuple[str, int]) -> Figure:
    """Growth of one tokenizer (merges None) or one pair, and details.

    given: texts of rising size, or the name of a run and its length. first: any text, for the tables to be made.
    """
    tokenizer = ct.Tokenizer.from_file(path)
    action = _action(tokenizer, merges, first)
    return _run_growth(tokenizer, action, *given) if isinstance(given, tuple) else _text_growth(action, given)


def _run_growth(tokenizer: ct.Tokenizer, action: Callable[[str], Any], run: str, length: int) -> Figure:
    # A mark needs a letter; where NFC composes the two, the composed text is the one that can be planned.
    small, large = (tokenizer.normalize("a" + RUNS[run] * (size - 1)) for size in (length // 10, length))
    seconds = _warm(action, large)
    return seconds / _warm(action, small) / 10, {"seconds": seconds, "characters": length}


def _text_growth(action: Callable[[str], Any], texts: Sequence[str]) -> Figure:
    sizes = [len(text.encode()) / 1000 for text in texts]
    per_kb = [_warm(action, text) / size for text, size in zip(texts, sizes, strict=True)]
    details = {f"us/KB at {size:,.0f} KB": 1e6 * time for size, time in zip(sizes, per_kb, strict=True)}
    return per_kb[-1] / per_kb[1], dict(details)


def _action(tokenizer: ct.Tokenizer, merges: int | None, first: str) -> Callable[[str], Any]:
    """Encode or plan one text, with every table made."""
    if merges is None:
        return tokenizer.encode
    pair = pair_of(tokenizer, merges)
    pair.plan([first], num_threads=1)
    return lambda text: pair.plan([text], num_threads=1)


def _warm(action: Callable[[str], Any], text: str) -> float:
    """Median seconds of calls after a first one, which may have tables to make; of one call where that takes long."""
    first = cpu_seconds(lambda: action(text))
    repeats = REPEATS if first <= BUDGET else 1
    return Spread.of(repeated(lambda: action(text), repeats, BUDGET, cpu_seconds)).median
