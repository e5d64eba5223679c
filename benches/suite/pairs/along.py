"""All canonical teacher prefixes along a text, found one by one: where the oracle begins."""

from __future__ import annotations

from functools import cached_property

import crosstok as ct
import numpy as np
import numpy.typing as npt

from .forwards import Path
from .vocabulary import IntArray, Vocabulary


class Along:
    """The canonical prefixes whose bytes begin a text, by the byte at which they end."""

    def __init__(self, vocabulary: Vocabulary, tokenizer: ct.Tokenizer, data: bytes, start: bool) -> None:
        self._vocabulary, self._tokenizer, self._data, self._start = vocabulary, tokenizer, data, start
        self._masks: dict[Path, npt.NDArray[np.bool_]] = {}

    def crossing(self, size: int) -> list[tuple[Path, int, IntArray]]:
        """Ways to spell the first ``size`` bytes: a prefix, the byte at which it ends, the tokens that reach ``size``.

        No prefix reaches ``size`` itself; each has one such token at least.
        """
        found = []
        for at in range(max(0, size - self._vocabulary.longest), size):
            tokens = self._vocabulary.starting_with(self._data[at:size])
            for path in self._ending[at] if len(tokens) else ():
                canonical = tokens[self._mask(path)[tokens]]
                if len(canonical):
                    found.append((path, at, canonical))
        return found

    @cached_property
    def _ending(self) -> list[list[Path]]:
        """For each byte the prefixes that end there."""
        ending: list[list[Path]] = [[] for _ in range(len(self._data) + 1)]
        ending[0].append(())
        for at in range(len(self._data)):
            for path in ending[at]:
                mask = self._mask(path)
                for end in range(at + 1, min(len(self._data), at + self._vocabulary.longest) + 1):
                    tokens = self._vocabulary.spelled.get(self._data[at:end], ())
                    ending[end] += [(*path, token) for token in tokens if mask[token]]
        return ending

    def _mask(self, path: Path) -> npt.NDArray[np.bool_]:
        if path not in self._masks:
            self._masks[path] = self._tokenizer.canonical_next(path, start=self._start)
        return self._masks[path]
