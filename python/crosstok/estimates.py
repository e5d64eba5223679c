"""From leaves and light rows to distributions, with the mass that is undecided (docs/mathematics.md, 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from crosstok.closing import ClosingCollector, Leaves
from crosstok.pair import Plan
from crosstok.prefixes import Prefixes
from crosstok.ragged import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Estimate:
    """A text's distributions. rows: float32 [n + 1, width] on the CPU, probabilities that sum to 1, all 0 where the
    position has probability zero. raw: float64 [n + 1], what they summed to before, as shares of the upper bound of
    P(s_1..s_i). undecided: float64 [n + 1], a bound of the total variation from the truth.
    spent: int64 [n + 1], further rows.
    """

    rows: torch.Tensor
    raw: FloatArray
    undecided: FloatArray
    spent: IntArray


def estimate(
    plan: Plan, collector: ClosingCollector, prefixes: Prefixes, leaves: Leaves, spent: IntArray, text: int
) -> Estimate:
    """The closing estimate of one text; frees what the collector has of it."""
    rows = collector.light(prefixes, text)
    first = int(plan.student_ptr[text]) + text
    mine = (leaves.position >= first) & (leaves.position < first + len(rows)) & (leaves.label >= 0)
    found = leaves.where(mine)
    position = found.position - first
    at = torch.from_numpy(position * rows.shape[1] + found.label)
    rows.view(-1).index_add_(0, at, torch.from_numpy(found.mass).float())
    raw: FloatArray = rows.sum(dim=1, dtype=torch.float64).numpy()
    certain = np.bincount(position[found.certain], found.mass[found.certain], len(rows)).astype(np.float64)
    undecided = undecided_mass(raw, certain)
    impossible = np.isneginf(prefixes.upper[prefixes.first[text] + np.arange(len(rows))])
    undecided[impossible] = 0.0
    rows.div_(torch.from_numpy(np.where(raw > 0, raw, 1.0)).float()[:, None])
    return Estimate(rows, raw, undecided, spent[first : first + len(rows)])


def undecided_mass(raw: FloatArray, certain: FloatArray) -> FloatArray:
    """1 − Σ_v (mass that certainly goes on with v) over P(s_1..s_i): float64 [positions]; 1 where nothing is known.

    Whatever becomes of the rest, estimate and truth share the certain mass, so that they are no further apart in total
    variation. raw, certain: what is estimated and what is certain, as shares of an upper bound of P.
    """
    return np.clip(1.0 - certain / np.maximum(raw, 1.0), 0.0, 1.0)
