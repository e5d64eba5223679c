"""Sums over scored texts, which a resumed run goes on with, and what follows from them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from crosstok.results import Score

# results.Status, which cannot be imported without torch: it stays away where no model runs.
EXACT, CERTIFIED, ESTIMATED, UNSUPPORTED = 0, 1, 2, 4


@dataclass
class Summary:
    """Sums over texts. ``nats`` and ``size`` (bytes) leave out the ``impossible`` ones, of probability zero.

    ``exact``, ``certified``, ``estimated``, ``unsupported`` count positions by status. ``widest`` is the largest
    difference of the bounds of a certified or estimated position, as probabilities.

    ``plan``, ``teacher`` and ``aggregation`` are seconds of parts that overlap, ``seconds`` is wall time, all of
    scoring alone: reading the tokenizers, checking the input and loading the model are not in it.
    """

    texts: int = 0
    impossible: int = 0
    student_tokens: int = 0
    teacher_tokens: int = 0
    rows: int = 0
    nats: float = 0.0
    size: int = 0
    noncanonical: float = 0.0
    inadmissible: float = 0.0
    exact: int = 0
    certified: int = 0
    estimated: int = 0
    unsupported: int = 0
    widest: float = 0.0
    plan: float = 0.0
    teacher: float = 0.0
    aggregation: float = 0.0
    seconds: float = 0.0

    def add(self, size: int, score: Score, teacher_tokens: int) -> None:
        """Add a text of ``size`` bytes; ``teacher_tokens`` counts its canonical ones, end-of-text included."""
        self.texts += 1
        self.student_tokens += len(score.student_ids)
        self.teacher_tokens += teacher_tokens
        self.rows += int(np.sum(score.rows))
        self.noncanonical += float(np.sum(score.noncanonical_mass))
        self.inadmissible += float(np.sum(score.inadmissible_mass))
        self.exact += int(np.sum(score.status == EXACT))
        self.certified += int(np.sum(score.status == CERTIFIED))
        self.estimated += int(np.sum(score.status == ESTIMATED))
        self.unsupported += int(np.sum(score.status == UNSUPPORTED))
        wide = (score.status == CERTIFIED) | (score.status == ESTIMATED)
        if wide.any():
            widths = np.exp(score.upper[wide]) - np.exp(score.lower[wide])
            self.widest = max(self.widest, float(widths.max()))
        if math.isfinite(score.total):
            self.nats += score.total
            self.size += size
        else:
            self.impossible += 1

    @property
    def bits_per_byte(self) -> float:
        """-log2 of the texts' probability over their length in bytes; NaN where there are none."""
        return -self.nats / math.log(2) / self.size if self.size else math.nan

    @property
    def rows_per_token(self) -> float:
        """Teacher rows for every canonical teacher token; plain scoring needs 1."""
        return self.rows / self.teacher_tokens if self.teacher_tokens else math.nan

    @property
    def mean_noncanonical(self) -> float:
        """Mean mass that the teacher gives to what its tokenizer never produces, over the positions."""
        return self.noncanonical / self.student_tokens if self.student_tokens else 0.0

    @property
    def mean_inadmissible(self) -> float:
        """Mean mass, over the positions, of texts that the student cannot spell."""
        return self.inadmissible / self.student_tokens if self.student_tokens else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the summary under the names that people read; what has no value is null."""
        return {
            "texts": self.texts,
            "texts_of_probability_zero": self.impossible,
            "student_tokens": self.student_tokens,
            "teacher_tokens": self.teacher_tokens,
            "teacher_rows": self.rows,
            "rows_per_teacher_token": _number(self.rows_per_token),
            "nats": self.nats,
            "bytes": self.size,
            "bits_per_byte": _number(self.bits_per_byte),
            "mean_noncanonical_mass": self.mean_noncanonical,
            "mean_inadmissible_mass": self.mean_inadmissible,
            "exact_positions": self.exact,
            "certified_positions": self.certified,
            "estimated_positions": self.estimated,
            "unsupported_positions": self.unsupported,
            "widest_bounds": self.widest,
            "seconds": {
                "plan": self.plan,
                "teacher": self.teacher,
                "aggregation": self.aggregation,
                "total": self.seconds,
            },
        }

    def sums(self) -> dict[str, Any]:
        """Return the fields, for `Summary(**sums)`."""
        return asdict(self)


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary as JSON. Raises CrosstokError where that cannot be."""
    try:
        path.write_text(json.dumps(summary.as_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CrosstokError(f"{path}: {error.strerror}") from error


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
