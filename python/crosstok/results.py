"""What a `Scorer` hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ReferenceType

import numpy as np
import numpy.typing as npt
import torch

from crosstok.correction import Correction
from crosstok.ragged import FloatArray, IntArray

if TYPE_CHECKING:
    from crosstok.requests import Request
    from crosstok.show import Shown


class Status(IntEnum):
    """How far a value can be trusted."""

    EXACT = 0
    """Nothing is undecided, before the token or after it."""
    CERTIFIED = 1
    """The bounds, as probabilities, are no further apart than the tolerance that was asked for."""
    ESTIMATED = 2
    """They are, or no tolerance was given."""
    SPECIAL = 3
    """Inserted by a template, not scored."""
    UNSUPPORTED = 4
    """Depends on a teacher prefix with next to no canonical mass, or has probability zero."""


class Shows(Protocol):
    """The part of a `Scorer` that `Score.show` needs."""

    def show(self, text: str | bytes, prompt: Sequence[int] | None, ended: bool, max_covers: int) -> Shown:
        """Score a text, to be looked at."""


@dataclass(frozen=True, eq=False)
class Source:
    """Where a score came from: enough to score its text again, while its scorer is alive."""

    scorer: ReferenceType[Shows]
    request: Request


@dataclass(frozen=True, eq=False)
class Score:
    """A text's student tokens under the teacher; every array is per position, [n] or with end-of-text [n + 1].

    student_ids: int64. logprobs, lower, upper: float64, log P(s_i | s_<i) in nats and its bounds (all equal where
    nothing is undecided); lower may be −inf, none is ever NaN. prefix_lower, prefix_upper: float64, bounds of
    log P(s_1..s_i). noncanonical_mass: float64, the mean, weighted by q, of the mass removed at the nodes from which
    the covers of s_1..s_i cross, those estimated to be covers included. inadmissible_mass: float64, the share of
    P(s_<i) that no next student token has, as far as the rows read show it: that of rows without any canonical mass, 0
    unless the teacher has such rows. (In the regimes "same" and "subset" this is all of it; in "general" texts that
    the student cannot spell are lost as well, and are not counted.) rows: int64, teacher rows read after s_<i, and
    further ones that were used to bound P(s_1..s_i); a further row counts for each prefix that used it, a text's rows
    may therefore sum to more than were read. status: uint8, see `Status`. source: what `show` scores again; not
    pickled. Formulas: docs/mathematics.md, 7 and 10.
    """

    student_ids: IntArray
    logprobs: FloatArray
    lower: FloatArray
    upper: FloatArray
    prefix_lower: FloatArray
    prefix_upper: FloatArray
    noncanonical_mass: FloatArray
    inadmissible_mass: FloatArray
    rows: IntArray
    status: npt.NDArray[np.uint8]
    source: Source | None = field(default=None, repr=False)

    def show(self, max_covers: int = 12) -> Shown:
        """The text to look at, in a notebook, in a terminal or as a page, with the largest covers of each position.

        Reads the text with the teacher once more; see `Scorer.show`. Raises ValueError where its scorer is gone (scores
        do not keep a model in memory, and are pickled without it) or was of a method that has nothing to show.
        """
        scorer = None if self.source is None else self.source.scorer()
        if self.source is None or scorer is None:
            raise ValueError(
                "this score's scorer is gone, or is of a method that keeps no covers: call Scorer.show of another"
            )
        request = self.source.request
        prompt = None if request.prompt is None else [int(id) for id in request.prompt]
        return scorer.show(request.text, prompt, request.ended, max_covers)

    def __getstate__(self) -> dict[str, Any]:
        """All but the source."""
        return {**vars(self), "source": None}

    @property
    def total(self) -> float:
        """log P of the whole sequence, in nats; its estimate where bounds differ (only without end-of-text)."""
        if not len(self.prefix_lower):
            return 0.0
        exact = self.prefix_lower[-1] == self.prefix_upper[-1]
        return float(self.prefix_lower[-1] if exact else self.logprobs.sum())


@dataclass(frozen=True, eq=False)
class Distributions:
    """The teacher's distribution over the next student token, at every position of a text.

    student_ids: int64 [n], without end-of-text. logprobs: float32 [n + 1, student width] on the CPU, natural
    logarithms, not normalised any further; row i follows s_1..s_i, and is all −inf where that has probability zero.
    End-of-text is at the student's first end-of-text id; other special tokens are −inf. undecided_mass: float32
    [n + 1], 0 in the regimes "same" and "subset". rows: int64 [n + 1], further teacher rows that a tolerance spent on
    each; None where the method does not count them. correction: what method "unbiased" adds to them, else None.
    docs/mathematics.md, facts 19 and 32.

    status: uint8 [n + 1], the `Status` of each *row*; None only where it was not made by a `Scorer`. EXACT: its
    undecided_mass is 0. CERTIFIED: that is no more than the tolerance that was asked for. ESTIMATED: it is more, no
    tolerance was given, or the method ("strict_1to1", "bpm") certifies nothing. UNSUPPORTED: the row is all −inf, or
    more than 1e-4 of it comes through teacher prefixes with less than 1e-4 canonical mass. (`SparseTargets.status` is
    that of the label, and UNSUPPORTED where either is.)
    """

    student_ids: IntArray
    logprobs: torch.Tensor
    undecided_mass: torch.Tensor
    rows: IntArray | None = None
    correction: Correction | None = None
    status: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class NextToken:
    """The distribution over one next student token: float64 [student width] on the CPU, natural logarithms.

    lower, upper: its bounds, equal to it where nothing is undecided. Special tokens as in `Distributions`.
    """

    logprobs: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor


@dataclass
class Timings:
    """Seconds that a `Scorer` has spent so far. Planning overlaps the teacher, so they may sum to more than passed.

    teacher: until its rows had come; on a GPU some of that work is only waited for in aggregation.
    """

    plan: float = 0.0
    teacher: float = 0.0
    aggregation: float = 0.0
