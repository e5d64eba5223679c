"""The teacher's canonical next-token probabilities by plain forwards: what the oracle reads.

Nothing of `Scorer` is used: a forward over prompt and canonical tokens, whose keys and values are kept, and forwards of
the few tokens by which another path differs from these. Masks are `Tokenizer.canonical_next`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import crosstok as ct
import numpy as np
import numpy.typing as npt
import torch
from crosstok.teacher.runner import cache_argument
from transformers import DynamicCache

Path = tuple[int, ...]
# Paths of one forward: each has a copy of the keys and values.
BATCH = 16


@dataclass(frozen=True, eq=False)
class Row:
    """After a path: log q of every token, float32 [vocabulary], −inf where not canonical; log q of the text's end."""

    tokens: npt.NDArray[np.float32]
    end: float


class Forwards:
    """Rows after the teacher's token paths below one prompt; each path is read once.

    trunk: the canonical tokens of the text, which most paths share. start: the text starts a document. Attribute
    read: how many rows were read beyond the trunk's.
    """

    def __init__(self, model: Any, pair: ct.Pair, prompt: Path, trunk: Path, start: bool) -> None:
        self._model, self._tokenizer, self._end = model, pair.teacher, list(pair.teacher_eos)
        self._prompt, self._trunk, self._start = prompt, trunk, start
        self.read = 0
        self._cache_argument = cache_argument(model)
        cache: Any = DynamicCache()
        with torch.inference_mode():
            found = model(torch.tensor([prompt + trunk]), use_cache=True, **{self._cache_argument: cache})
        self._kept = [(layer.keys, layer.values) for layer in cache.layers]
        logits = found.logits[0, len(prompt) - 1 :]
        self._rows = {trunk[:k]: self._row(trunk[:k], logits[k]) for k in range(len(trunk) + 1)}

    def __call__(self, path: Path) -> Row:
        """The row after one path."""
        self.prepare([path])
        return self._rows[path]

    def prepare(self, paths: Iterable[Path]) -> None:
        """Read the rows of several paths, together where they leave the trunk at the same place."""
        groups: dict[tuple[int, int], list[Path]] = {}
        for path in dict.fromkeys(paths):
            if path not in self._rows:
                shared = self._shared(path)
                groups.setdefault((shared, len(path)), []).append(path)
        for (shared, _), group in groups.items():
            for at in range(0, len(group), BATCH):
                self._read(shared, group[at : at + BATCH])

    def _shared(self, path: Path) -> int:
        """How many tokens a path has in common with the trunk; one less than its own at most."""
        equal = zip(path[:-1], self._trunk, strict=False)
        return next((k for k, (a, b) in enumerate(equal) if a != b), min(len(path) - 1, len(self._trunk)))

    def _read(self, shared: int, paths: Sequence[Path]) -> None:
        columns, count = len(self._prompt) + shared, len(paths)
        cache = DynamicCache(
            [
                (
                    keys[:, :, :columns].expand(count, -1, -1, -1),
                    values[:, :, :columns].expand(count, -1, -1, -1),
                )
                for keys, values in self._kept
            ]
        )
        tails = torch.tensor([path[shared:] for path in paths])
        with torch.inference_mode():
            found = self._model(tails, logits_to_keep=1, **{self._cache_argument: cache})
            logits = found.logits[:, -1]
        for path, row in zip(paths, logits, strict=True):
            self._rows[path] = self._row(path, row)
        self.read += count

    def _row(self, path: Path, logits: torch.Tensor) -> Row:
        """Renormalise over the canonical tokens and, where the text may end, its end."""
        row = logits.double().numpy()
        row = row - row.max()
        canonical = np.zeros(len(row), dtype=bool)
        mask = self._tokenizer.canonical_next(path, start=self._start)
        canonical[: len(mask)] = mask
        complete = self._tokenizer.is_canonical(path, complete=True, start=self._start)
        end = float(np.exp(row[self._end]).sum()) if complete else 0.0
        total = float(np.log(np.exp(row[canonical]).sum() + end))
        tokens = np.where(canonical, row - total, -np.inf).astype(np.float32)
        return Row(tokens, float(np.log(end)) - total if end > 0 else -np.inf)
