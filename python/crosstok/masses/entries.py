"""Rows of probabilities of which only some entries are known, and the sum of the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crosstok.masses.aggregator import log_sum
from crosstok.ragged import FloatArray, IntArray


class Entries(NamedTuple):
    """Entries of N rows, by row and token, no token twice in a row; natural logarithms.

    row, token: int64 [entries]. log_mass: float64 [entries], above −inf. log_rest: float64 [N], what a row has beside
    its entries.
    """

    row: IntArray
    token: IntArray
    log_mass: FloatArray
    log_rest: FloatArray

    @classmethod
    def of(cls, row: IntArray, token: IntArray, log_mass: FloatArray, log_rest: FloatArray) -> Entries:
        """Sum up those with the same row and token; leaves out what has no mass."""
        some = log_mass > -np.inf
        width = int(token.max(initial=0)) + 1
        keys, of = np.unique(row[some] * width + token[some], return_inverse=True)
        return cls(keys // width, keys % width, log_sum(log_mass[some], of, len(keys)), log_rest)

    def log_totals(self) -> FloatArray:
        """float64 [N]: what each row sums to."""
        return np.logaddexp(log_sum(self.log_mass, self.row, len(self.log_rest)), self.log_rest)
