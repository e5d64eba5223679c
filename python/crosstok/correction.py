"""What sampling adds to a closing estimate, kept apart from it: together they may be negative (mathematics.md, 13)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from crosstok.ragged import FloatArray, IntArray

NOWHERE = -1


@dataclass(frozen=True, eq=False)
class Correction:
    """Mass moved between the student tokens of a text's distributions; one entry for each draw that moved any.

    row: int64 [k], which distribution. taken_from, given_to: int64 [k], student tokens, never the same, `NOWHERE`
    for none. mass: float32 [k], positive, of the same scale as the distributions' probabilities. stopped: float32
    [n + 1], the mass of draws that came to no end, for which nothing is moved: on average over seeds corrected rows are
    no further off than that, in total variation. scale: float64 [n + 1]: corrected probabilities of v after s_1..s_i
    times exp(scale[i]) are P(s_1..s_i, v) on average.
    """

    row: IntArray
    taken_from: IntArray
    given_to: IntArray
    mass: torch.Tensor
    stopped: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(
        cls,
        row: IntArray,
        taken_from: IntArray,
        given_to: IntArray,
        mass: FloatArray,
        stopped: FloatArray,
        scale: FloatArray,
    ) -> Correction:
        """From all draws: tokens below 0 are none, and those that move nothing are left out."""
        taken_from, given_to = np.maximum(taken_from, NOWHERE), np.maximum(given_to, NOWHERE)
        moved = (taken_from != given_to) & (mass > 0)
        return cls(
            row[moved],
            taken_from[moved],
            given_to[moved],
            torch.from_numpy(mass[moved]).float(),
            torch.from_numpy(stopped).float(),
            torch.from_numpy(scale),
        )

    @classmethod
    def none(cls, scale: FloatArray) -> Correction:
        """For distributions of which nothing is undecided."""
        ids = np.zeros(0, dtype=np.int64)
        return cls.of(ids, ids, ids, np.zeros(0), np.zeros(len(scale)), scale)

    def __len__(self) -> int:
        """k."""
        return len(self.row)

    def apply(self, logprobs: torch.Tensor) -> torch.Tensor:
        """The corrected probabilities, float32 [n + 1, width]; some may be negative, and rows need not sum to 1.

        logprobs: those of the distributions that the correction belongs to. Raises ValueError for other shapes.
        """
        width = logprobs.shape[1]
        if (
            len(logprobs) != len(self.stopped)
            or max(self.taken_from.max(initial=-1), self.given_to.max(initial=-1)) >= width
        ):
            raise ValueError(f"a correction of {len(self.stopped)} rows for {list(logprobs.shape)}")
        out = logprobs.float().exp().contiguous()
        ids = np.concatenate([self.given_to, self.taken_from])
        some = np.flatnonzero(ids != NOWHERE)
        at, of = np.unique(np.tile(self.row, 2)[some] * width + ids[some], return_inverse=True)
        # Draws are added up before they meet a probability, beside which float32 would lose the small ones.
        mass = torch.cat([self.mass, -self.mass]).double()[torch.from_numpy(some)]
        moved = torch.zeros(len(at), dtype=torch.float64).index_add_(0, torch.from_numpy(of), mass.cpu())
        out.view(-1).index_add_(0, torch.from_numpy(at).to(out.device), moved.float().to(out.device))
        return out
