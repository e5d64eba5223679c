"""A teacher that is a function: float64 throughout, for tests, oracles and tiny worked examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from crosstok.errors import TeacherError
from crosstok.teacher.protocol import check_rows


class TableTeacher:
    """Rows from `fn(ids) -> log-probabilities [vocab_size]`, ids a tuple with the prompt's first.

    Every row is one call: nothing is remembered between calls, so a caller may count them. `vocab_size` may
    be left out; it is then the length of the first row asked for, or of `fn(())` if it is needed before.
    """

    def __init__(self, fn: Callable[[tuple[int, ...]], object], vocab_size: int | None = None) -> None:
        if vocab_size is not None and vocab_size < 1:
            raise TeacherError(f"TableTeacher: vocab_size must be positive, not {vocab_size}")
        self._fn = fn
        self._vocab_size = vocab_size

    @property
    def vocab_size(self) -> int:
        """Width of a row. TeacherError where it is unknown and `fn(())` fails."""
        if self._vocab_size is not None:
            return self._vocab_size
        try:
            return self._row(()).numel()
        except Exception as error:
            raise TeacherError(
                f"TableTeacher: vocab_size is not known yet and fn(()) failed ({error}); pass vocab_size"
            ) from error

    def rows(self, paths: list[tuple[int, ...]]) -> torch.Tensor:
        """float64 log-probabilities [len(paths), vocab_size]; -inf is a probability of zero.

        Raises TeacherError for a row of another length, NaN and +inf. What `fn` raises passes through.
        """
        if not paths:
            return torch.empty(0, self.vocab_size, dtype=torch.float64)
        return torch.stack([self._row(tuple(path)) for path in paths])

    def _row(self, path: tuple[int, ...]) -> torch.Tensor:
        value = self._fn(path)
        if isinstance(value, torch.Tensor):
            row = value.detach().to(device="cpu", dtype=torch.float64)
        else:
            row = torch.from_numpy(np.array(value, dtype=np.float64))
        if row.ndim != 1 or row.numel() == 0:
            raise TeacherError(f"TableTeacher: fn({path}) has shape {tuple(row.shape)}, not [vocab_size]")
        if self._vocab_size is None:
            self._vocab_size = row.numel()
        check_rows(row[None], 1, self._vocab_size, f"TableTeacher: fn({path})")
        return row
