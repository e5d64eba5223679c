"""Peak memory beyond the loaded model while one long text is scored, or made into targets of the largest entries.

Bytes resident at the peak of `Scorer.score` or `Scorer.distributions`, less those resident once the model has run a
short forward (so that its weights are in memory). Tokenizer, pair and their tables are counted. Each text has a process
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import crosstok as ct

from . import general, resident
from .fresh import Fresh
from .inputs import Inputs, merges_of, named
from .row import Bar, Row, Unavailable

LENGTHS, LENGTHS_CUT = (1_000, 2_000, 4_000), (1_000, 4_000)
# Of a text of 4,000 canonical teacher tokens that is scored.
PEAK_GB = Bar(1.5)
# Growth from the shortest to the longest text over one float32 row for each token more. Whole rows kept would be 1 or
# more; keys and values of SmolLM2 alone are 0.23 for each node of the tree.
GROWTH = Bar(1.0)
TOP_K = 32


@dataclass(frozen=True)
class Case:
    """A pair and what is asked of it.

    make: makes the pair in another process. width: of a row that must not be kept for every token: the student's
    vocabulary; the teacher's where the student has a part of that. top_k: None for label scores.
    """

    label: str
    make: Callable[[], ct.Pair]
    width: int
    top_k: int | None = None


def measure(inputs: Inputs) -> Iterator[Row]:
    """The largest student of the teacher, the one without merges, an unrelated one, and its top-k targets."""
    resident.check()
    name, path = inputs.teacher_file
    tokenizer = ct.Tokenizer.from_file(path)
    for case in _cases(inputs, name, tokenizer):
        full = LENGTHS if case.top_k is None else LENGTHS_CUT
        yield from _growth(inputs, tokenizer, case, inputs.scaled(full, (50, 200)))


def _growth(inputs: Inputs, tokenizer: ct.Tokenizer, case: Case, lengths: Sequence[int]) -> Iterator[Row]:
    """The peak at each length, and how it grows."""
    peaks = []
    for length in lengths:
        text = cut(tokenizer, inputs, length)
        peak, before = Fresh().call(figures, inputs.teacher, case.make, text, case.top_k)
        peaks.append(peak)
        bar = PEAK_GB if length == LENGTHS[-1] and case.top_k is None else None
        yield Row(
            "memory", f"{case.label}: {length:,} tokens", peak / 1e9, "GB", bar, {"before GB": before / 1e9}
        )
    rows = 4 * (lengths[-1] - lengths[0]) * case.width
    what = f"{case.label}: growth over tokens x vocabulary x 4"
    details = {"GB of that": rows / 1e9, "vocabulary": case.width}
    yield Row("memory", what, (peaks[-1] - peaks[0]) / rows, "", GROWTH, details)


def _cases(inputs: Inputs, name: str, tokenizer: ct.Tokenizer) -> Iterator[Case]:
    for merges in merges_of(tokenizer)[:: inputs.scaled(2, 3)]:
        make = partial(_of_merges, inputs.teacher, merges)
        yield Case(named(name, merges), make, tokenizer.vocab_size)
    for files in list(general.of_teacher(inputs))[:1]:
        width = ct.Tokenizer.from_file(files.student).vocab_size
        yield Case(files.label, files.pair, width)
        yield Case(f"{files.label}, top {TOP_K}", files.pair, width, TOP_K)


def _of_merges(folder: Path, merges: int) -> ct.Pair:
    tokenizer = ct.Tokenizer.from_pretrained(folder)
    return ct.Pair(tokenizer, tokenizer.first_merges(merges))


def cut(tokenizer: ct.Tokenizer, inputs: Inputs, length: int) -> str:
    """Answers in one text of ``length`` canonical tokens."""
    text = inputs.running_text(8 * length)
    ids = tokenizer.encode(text)[:length]
    if len(ids) < length:
        raise Unavailable(f"needs a text of {length:,} tokens, the data has {len(ids):,}")
    return tokenizer.decode(ids).decode(errors="ignore")


def figures(folder: Path, make: Callable[[], ct.Pair], text: str, top_k: int | None) -> tuple[int, int]:
    """Bytes beyond the model at the peak, and those of the process with the model alone. top_k: None to score."""
    import torch

    from .job import load_model

    model = load_model(folder, "float32")
    with torch.inference_mode():
        model(torch.zeros(1, 8, dtype=torch.long))
    before = resident.now()
    scorer = ct.Scorer(ct.HFTeacher(model), make())
    run = scorer.score if top_k is None else partial(scorer.distributions, top_k=top_k)
    run([text[:100]])
    resident.reset_peak()
    run([text])
    return resident.peak() - before, before
