"""Encoding in MB/s beside Hugging Face ``tokenizers``, on the same texts with the same ids.

Each way of calling starts with tokenizers just loaded, in a process whose thread pool has the size wanted. Cold: the
first pass. Unseen: new texts after it. Warm: texts seen before; both libraries cache what they have seen. Hugging Face
is called the way that is fastest for ids: ``encode_batch_fast``, which leaves out offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import crosstok as ct

from .fresh import Fresh
from .inputs import Inputs
from .row import Row
from .timing import Spread, seconds

# Way of calling → numbers of threads. One text at a time uses one in either library.
WAYS = {"one by one": (1,), "one document": (1,), "batch": (1, 2)}
Encode = Callable[[Sequence[str]], Any]


def measure(inputs: Inputs) -> Iterator[Row]:
    """Every tokenizer, every way, cold, unseen and warm."""
    count = inputs.scaled(2_000, 40)
    repeats = inputs.scaled(7, 2)
    texts = inputs.answers[: 2 * count]
    for name, path in inputs.files.items():
        for way, pools in WAYS.items():
            for threads in pools:
                variables = {
                    "RAYON_NUM_THREADS": str(threads),
                    "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
                }
                found = Fresh(variables=variables).call(figures, path, way, threads, texts, repeats)
                for state, (ours, theirs, ratio) in found.items():
                    details = {"Hugging Face": theirs.median, "ratio": ratio.median}
                    details |= {"ratio low": ratio.low, "ratio high": ratio.high}
                    label = f"{name}: {way}, {threads} thread{'s' * (threads > 1)}, {state}"
                    yield Row("encode", label, ours.median, "MB/s", None, details)


def figures(
    path: Path, way: str, threads: int, texts: Sequence[str], repeats: int
) -> dict[str, tuple[Spread, Spread, Spread]]:
    """MB/s of crosstok, of Hugging Face, and their ratio; cold, unseen and warm."""
    seen, unseen = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    if way == "one document":
        seen, unseen = ["\n\n".join(seen)], ["\n\n".join(unseen)]
    ours, theirs = _ours(path, way, threads), _theirs(path, way)
    # The order of the two changes with every pass, in case the first one pays for the second.
    passes = {"cold": [_pass(theirs, ours, seen)], "unseen": [_pass(ours, theirs, unseen)[::-1]]}
    passes["warm"] = [_pass(theirs, ours, seen) for _ in range(repeats)]
    if [list(ids) for ids in ours(seen)] != [list(ids) for ids in theirs(seen)]:
        raise ValueError(f"{path}: the two libraries give different ids")
    size = {"cold": _megabytes(seen), "unseen": _megabytes(unseen), "warm": _megabytes(seen)}
    return {
        state: (
            Spread.of([size[state] / mine for _, mine in times]),
            Spread.of([size[state] / other for other, _ in times]),
            Spread.of([other / mine for other, mine in times]),
        )
        for state, times in passes.items()
    }


def _pass(first: Encode, second: Encode, texts: Sequence[str]) -> tuple[float, float]:
    return seconds(lambda: first(texts)), seconds(lambda: second(texts))


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _ours(path: Path, way: str, threads: int) -> Encode:
    """Ids as numpy arrays. ``start``: with the dummy prefix, which Hugging Face always writes."""
    tokenizer = ct.Tokenizer.from_file(path)
    if way == "batch":
        return lambda texts: tokenizer.encode_batch(texts, start=True, num_threads=threads)
    return lambda texts: [tokenizer.encode(text, start=True) for text in texts]


def _theirs(path: Path, way: str) -> Encode:
    """Ids as lists, the setting in which both mean the same (text that spells a special token is text)."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    if way == "batch":
        return encode
    return lambda texts: [encode([text])[0] for text in texts]
