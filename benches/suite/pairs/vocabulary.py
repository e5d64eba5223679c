"""A tokenizer's tokens by their bytes."""

from __future__ import annotations

from bisect import bisect_left

import crosstok as ct
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class Vocabulary:
    """The ordinary tokens by their bytes. spelled: bytes → tokens with exactly these; bytes_of: token → its bytes."""

    def __init__(self, tokenizer: ct.Tokenizer) -> None:
        special = set(tokenizer.special_ids.tolist())
        self.bytes_of = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
        ids = [id for id, spelled in enumerate(self.bytes_of) if spelled and id not in special]
        self._sorted = sorted(ids, key=self.bytes_of.__getitem__)
        self._keys = [self.bytes_of[id] for id in self._sorted]
        self.longest = max(map(len, self._keys))
        self.spelled: dict[bytes, list[int]] = {}
        for id in ids:
            self.spelled.setdefault(self.bytes_of[id], []).append(id)

    def starting_with(self, data: bytes) -> IntArray:
        """int64: tokens whose bytes start with ``data`` (not empty)."""
        first = bisect_left(self._keys, data)
        last = bisect_left(self._keys, data + b"\xff" * self.longest, lo=first)
        return np.array(self._sorted[first:last], dtype=np.int64)
