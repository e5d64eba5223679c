"""Keys and values of one packed sequence, in memory that is taken once.

transformers' own cache concatenates: each block copies all that was read before, and the old copies, a little smaller
each time, leave holes that nothing fits into (4,000 columns of a 135M model took 0.6 GB more than they needed).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class Room:
    """How many columns a cache should have room for; its layers look when they must grow."""

    def __init__(self) -> None:
        self.columns = 0


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer whose keys and values are views of buffers with room for more."""

    def __init__(self, room: Room) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [batch, heads, columns, size]; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start: int = self.get_seq_length()
        self.keys = self._append(0, self.keys, key_states, start)
        self.values = self._append(1, self.values, value_states, start)
        return self.keys, self.values

    def _append(self, which: int, kept: torch.Tensor | None, new: torch.Tensor, start: int) -> torch.Tensor:
        end = start + new.shape[-2]
        if len(self._buffers) <= which:
            self._buffers.append(new.new_empty(0))
        buffer = self._buffers[which]
        if buffer.ndim != new.ndim or buffer.shape[-2] < end:
            columns = max(end, self._room.columns)
            buffer = new.new_empty(*new.shape[:-2], columns, new.shape[-1])
            if start and kept is not None:
                buffer[..., :start, :] = kept
            self._buffers[which] = buffer
        buffer[..., start:end, :] = new
        return buffer[..., :end, :]


class PackCache(DynamicCache):
    """A cache for one pack after the other, of which each may keep the first columns of the one before.

    Not told of the model's config on purpose: it would crop sliding layers by column, and a tree's columns are not in
    the order of depth.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room = Room()
        make: Any = lambda: _Layer(self.room)  # noqa: E731 (typed as a class there, and called like one)
        self.layer_class_to_replicate = make

    def start(self, kept: int, columns: int) -> None:
        """Keep the first ``kept`` columns and expect ``columns`` in all."""
        self.room.columns = columns
        self.crop(kept - self.get_seq_length())
