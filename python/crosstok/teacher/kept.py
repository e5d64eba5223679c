"""Keys and values of the columns that a session has read, kept for forwards to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crosstok.ragged import IntArray

# Keys and values of one layer, [1, heads, columns, width] each; None for a layer that has none of its own.
Layer = tuple[torch.Tensor, torch.Tensor] | None


@dataclass(frozen=True, eq=False)
class Segment:
    """Keys and values of consecutive columns, layer by layer. Never changed: several runs may hold it."""

    columns: int
    layers: list[Layer]

    def head(self, length: int) -> Segment:
        """The first `length` columns, in the same memory."""
        return Segment(length, [_cut(layer, 0, length) for layer in self.layers])

    def take(self, columns: IntArray) -> Segment:
        """Copies of some columns, int64 [k]."""
        return Segment(len(columns), [_taken(layer, columns) for layer in self.layers])


class Kept:
    """Keys and values of a run's columns, in segments.

    What two runs have in common at their start is in memory once. A forward needs its columns in one piece and
    changes that: `cache` copies them for as long as it lasts.
    """

    def __init__(self, segments: Sequence[Segment] = ()) -> None:
        self._segments = list(segments)

    def __len__(self) -> int:
        """Number of columns."""
        return sum(segment.columns for segment in self._segments)

    def head(self, length: int) -> Kept:
        """The first `length` columns, in the same memory."""
        segments = []
        for segment in self._segments:
            if length <= 0:
                break
            segments.append(segment if segment.columns <= length else segment.head(length))
            length -= segment.columns
        return Kept(segments)

    def cache(self, more: Sequence[Segment] = ()) -> Any:
        """A DynamicCache of all columns, and of `more` behind them.

        Made without the config: told of it, the cache would drop columns of sliding layers.
        """
        from transformers import DynamicCache

        cache = DynamicCache()
        segments = [*self._segments, *more]
        if segments:
            for index, parts in enumerate(zip(*(s.layers for s in segments), strict=True)):
                whole = _joined(parts)
                if whole is not None:
                    cache.update(*whole, index)
        return cache

    def take(self, columns: IntArray) -> list[Segment]:
        """Copies of some columns, int64 [k], rising; in pieces."""
        if not columns.size:
            return []
        first = np.cumsum([0, *(segment.columns for segment in self._segments)])
        at = np.searchsorted(columns, first)
        found = zip(self._segments, first[:-1].tolist(), at[:-1].tolist(), at[1:].tolist(), strict=True)
        return [segment.take(columns[lo:hi] - start) for segment, start, lo, hi in found if hi > lo]

    def add(self, cache: Any, start: int | None = None) -> None:
        """Keep the columns of `cache` from `start` on; None: from the len(self)-th on, those before are ours."""
        start, stop = len(self) if start is None else start, int(cache.get_seq_length())
        if stop > start:
            layers = [None if layer.keys is None else (layer.keys, layer.values) for layer in cache.layers]
            # A view would keep the columns before it in memory as well.
            cut = [_copied(_cut(layer, start, stop)) if start else layer for layer in layers]
            self._segments.append(Segment(stop - start, cut))


def _cut(layer: Layer, lo: int, hi: int) -> Layer:
    return None if layer is None else (layer[0][..., lo:hi, :], layer[1][..., lo:hi, :])


def _taken(layer: Layer, columns: IntArray) -> Layer:
    if layer is None:
        return None
    at = torch.from_numpy(columns).to(layer[0].device)
    return layer[0].index_select(-2, at), layer[1].index_select(-2, at)


def _copied(layer: Layer) -> Layer:
    return None if layer is None else (layer[0].clone(), layer[1].clone())


def _joined(parts: Sequence[Layer]) -> Layer:
    """One layer of several segments; it has keys in all of them or in none."""
    given = [part for part in parts if part is not None]
    if len(given) < 2:
        return given[0] if given else None
    return torch.cat([keys for keys, _ in given], dim=-2), torch.cat([values for _, values in given], dim=-2)
