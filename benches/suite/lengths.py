"""How planning pairs of unrelated tokenizers grows with the length of a text: ordinary text, and runs of one character.

A value is the time per character at the largest size over that at the smallest: 1 is linear, less where a text pays for
what does not grow with it. There are two of each kind of text: of first passes (tables made; every ordinary text new)
and of calls on warm caches; on one core, in processor time. What grows so fast that the next size would take too long
is measured up to the size before: the details say how far, and how long each took.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate

from . import general
from .fresh import Fresh
from .inputs import Inputs
from .row import Bar, Row
from .timing import Spread, cpu_seconds, repeated

# Characters.
SIZES = (12_500, 25_000, 50_000, 100_000)
ORDINARY = "text"
RUNS = {"letters a": "a", "spaces": " ", "digits": "7", "emoji": "\U0001f642"}
# Linear, with room for caches that a small text fits into, and for noise.
LINEAR = Bar(2.0)
# Seconds of a first pass that are not to be passed, seconds of the warm calls of one size, and when to give up.
LONGEST, BUDGET, LIMIT = 20.0, 2.0, 120.0
REPEATS = 5
# Which calls, growth, details.
Figure = tuple[str, float, dict[str, float | str]]


def measure(inputs: Inputs) -> Iterator[Row]:
    """Every pair whose plans are measured (`general.planned`), every kind of text in a process of its own."""
    sizes = inputs.scaled(SIZES, (250, 500))
    kinds = inputs.scaled((ORDINARY, *RUNS), (ORDINARY, "spaces"))
    for files in list(general.planned(inputs))[: inputs.scaled(None, 1)]:
        for kind in kinds:
            texts = texts_of(inputs, kind, sizes)
            try:
                found = Fresh(cores=1, seconds=LIMIT).call(figures, files, inputs.answers[0], texts)
            except TimeoutError:
                found = [("all", float("inf"), {"more than s": LIMIT})]
            for calls, value, details in found:
                yield Row(
                    "growth", f"{files.label}: plan, {kind}, {calls}", value, "x linear", LINEAR, details
                )


def texts_of(inputs: Inputs, kind: str, sizes: Sequence[int]) -> list[str]:
    """A text of each size: runs of one character, or answers of which no two texts share any."""
    if kind != ORDINARY:
        return [RUNS[kind] * size for size in sizes]
    ends = list(accumulate(sizes))
    whole = inputs.running_text(4 * ends[-1])  # bytes, of which a character has at most four
    return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def figures(files: general.Files, warm_up: str, texts: Sequence[str]) -> list[Figure]:
    """The growth of first passes and of warm calls, for texts of rising size."""
    pair = files.pair()
    pair.plan([warm_up], num_threads=1)
    sizes: list[int] = []
    first: list[float] = []
    warm: list[float] = []
    for text in texts:
        if sizes and _expected(sizes, first, len(text)) > LONGEST:
            break
        plan = partial(pair.plan, [text], num_threads=1)
        sizes.append(len(text))
        first.append(cpu_seconds(plan))
        warm.append(Spread.of(repeated(plan, REPEATS, BUDGET, cpu_seconds)).median)
    return [("first pass", *growth(sizes, first)), ("warm", *growth(sizes, warm))]


def _expected(sizes: Sequence[int], seconds: Sequence[float], size: int) -> float:
    """Seconds for the next size, if time goes on to grow as it did, at least linearly, and half as much again."""
    grown = seconds[-1] / seconds[-2] if len(seconds) > 1 else 0.0
    return 1.5 * seconds[-1] * max(grown, size / sizes[-1])


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, dict[str, float | str]]:
    """Time per character at the last size over that at the first (infinite where there is one only), and all times."""
    per_character = [time / size for size, time in zip(sizes, seconds, strict=True)]
    details: dict[str, float | str] = {f"s at {n:,}": s for n, s in zip(sizes, seconds, strict=True)}
    return per_character[-1] / per_character[0] if len(sizes) > 1 else float("inf"), details
