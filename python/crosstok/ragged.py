"""Sequences of different lengths in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequence ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    values: int64 [total]. offsets: int64 [sequences + 1], rising from 0 to ``len(values)``.
    """

    values: IntArray
    offsets: IntArray

    @classmethod
    def of(cls, sequences: Ragged | Sequence[Sequence[int] | IntArray]) -> Ragged:
        """Make one of a list of id sequences; a `Ragged` comes back as it is."""
        if isinstance(sequences, Ragged):
            return sequences
        arrays = [ids_array(ids) for ids in sequences]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in arrays], out=offsets[1:])
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
        return cls(values, offsets)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> IntArray:
        """Sequence ``index``, int64 (a view); negative ones count from the end. Raises IndexError beyond the last."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[IntArray]:
        """The sequences, in order."""
        return (self[i] for i in range(len(self)))


def ids_array(ids: Sequence[int] | IntArray) -> IntArray:
    """Token ids as a contiguous int64 array [n]. Raises TypeError for floats, booleans and other shapes."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(
            f"token ids must be a flat sequence of integers, not {array.dtype} {list(array.shape)}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def one_id(id: int | np.integer[Any]) -> int:
    """A token id as an int. Raises ValueError for one that no vocabulary has (ids are 32 bits wide, not negative)."""
    if not 0 <= int(id) < 1 << 32:
        raise ValueError(f"id {id} is out of range")
    return int(id)


def whole_number(name: str, value: object, least: int) -> None:
    """Raise ValueError for an argument that is neither None nor a whole number from ``least`` on."""
    if value is None:
        return
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} at least, not {value!r}")
