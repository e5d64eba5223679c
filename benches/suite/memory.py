"""Peak memory beyond the loaded model while one long text is scored.

Bytes resident at the peak of `Scorer.score`, less those resident once the model has run a short forward (so that its
weights are in memory). Tokenizer, pair and their tables are counted. Each text has a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import crosstok as ct

from . import general, resident
from .fresh import Fresh
from .inputs import Inputs, merges_of, named
from .row import Bar, Row, Unavailable

LENGTHS = (1_000, 2_000, 4_000)
# Of a text of 4,000 canonical teacher tokens.
PEAK_GB = Bar(1.5)
# Growth from the shortest to the longest text over one float32 row for each token more. Whole rows kept would be 1 or
# more; keys and values of SmolLM2 alone are 0.23 for each node of the tree.
GROWTH = Bar(1.0)


def measure(inputs: Inputs) -> Iterator[Row]:
    """The largest student of the teacher, the one without merges, and an unrelated one."""
    resident.check()
    name, path = inputs.teacher_file
    tokenizer = ct.Tokenizer.from_file(path)
    lengths = inputs.scaled(LENGTHS, (50, 200))
    texts = [cut(tokenizer, inputs, length) for length in lengths]
    for label, make in _pairs(inputs, name, tokenizer):
        peaks = []
        for length, text in zip(lengths, texts, strict=True):
            peak, before = Fresh().call(figures, inputs.teacher, make, text)
            peaks.append(peak)
            bar = PEAK_GB if length == LENGTHS[-1] else None
            what = f"{label}: {length:,} tokens"
            yield Row("memory", what, peak / 1e9, "GB", bar, {"before GB": before / 1e9})
        rows = 4 * (lengths[-1] - lengths[0]) * tokenizer.vocab_size
        what = f"{label}: growth over tokens x vocabulary x 4"
        yield Row("memory", what, (peaks[-1] - peaks[0]) / rows, "", GROWTH, {"GB of that": rows / 1e9})


def _pairs(inputs: Inputs, name: str, tokenizer: ct.Tokenizer) -> Iterator[tuple[str, Callable[[], ct.Pair]]]:
    """What rows call a pair, and what makes it in another process."""
    for merges in merges_of(tokenizer)[:: inputs.scaled(2, 3)]:
        yield named(name, merges), partial(_of_merges, inputs.teacher, merges)
    for files in list(general.of_teacher(inputs))[:1]:
        yield files.label, files.pair


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


def figures(folder: Path, make: Callable[[], ct.Pair], text: str) -> tuple[int, int]:
    """Bytes beyond the model at the peak, and those of the process with the model alone."""
    import torch

    from .job import load_model

    model = load_model(folder, "float32")
    with torch.inference_mode():
        model(torch.zeros(1, 8, dtype=torch.long))
    before = resident.now()
    scorer = ct.Scorer(ct.HFTeacher(model), make())
    scorer.score([text[:100]])
    resident.reset_peak()
    scorer.score([text])
    return resident.peak() - before, before
