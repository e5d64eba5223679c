"""What a way says at the positions of texts, and how far it is from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from time import process_time

import crosstok as ct
import numpy as np
import numpy.typing as npt
import torch

from ..pairs.texts import Text
from .ways import Way

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Truth:
    """The reference at one text. rows: float32 [n + 1, width], probabilities. student_ids: int64 [n].

    undecided: float64 [n + 1], no row is further from the truth in total variation. spent: int64 [n + 1], rows that
    took. seconds: processor time of the whole text, all threads.
    """

    rows: torch.Tensor
    student_ids: IntArray
    undecided: FloatArray
    spent: IntArray
    seconds: float

    @classmethod
    def of(cls, scorer: ct.Scorer, text: Text) -> Truth:
        """Read a text with a tight tolerance."""
        found, taken = _read(scorer, text)
        undecided = found.undecided_mass.double().numpy()
        return cls(probabilities(found), found.student_ids, undecided, _spent(found), taken)

    def without_rows(self) -> Truth:
        """All but the large part."""
        return replace(self, rows=torch.empty(0))

    def labels(self, rows: torch.Tensor) -> FloatArray:
        """float64 [n]: what rows give to the text's own tokens."""
        return rows[torch.arange(len(self.student_ids)), torch.from_numpy(self.student_ids)].double().numpy()


@dataclass(frozen=True, eq=False)
class Found:
    """What a way says at the positions of a text, or of several; float64 [positions], NaN where it says nothing.

    tv: total variation from the reference; what either is short of 1 counts as one more token's. label: the text's own
    token's probability less the reference's, NaN at the end of a text, too. Of what is drawn these are means over
    seeds, of ``label`` the root of the mean square. mean_tv: of the mean over seeds. undecided: what bounds ``tv``;
    rows: further rows. seconds: [texts], processor time of all positions of each, all threads: other work on the
    machine counts less than in wall time.
    """

    tv: FloatArray
    label: FloatArray
    mean_tv: FloatArray
    undecided: FloatArray
    rows: FloatArray
    seconds: FloatArray

    @classmethod
    def of(cls, way: Way, scorers: Sequence[ct.Scorer], text: Text, truth: Truth) -> Found:
        """Read a text in this way."""
        if not way.whole:
            return cls._labels_only(scorers[0], text, truth)
        tv, label, undecided, rows, seconds = [], [], [], [], []
        total = torch.zeros_like(truth.rows)
        for scorer in scorers:
            found, taken = _read(scorer, text)
            seconds.append(taken)
            said = probabilities(found)
            tv.append(total_variation(said, truth.rows))
            own = _scored(scorer, text) if way.own_labels else truth.labels(said)
            label.append(own - truth.labels(truth.rows))
            undecided.append(found.undecided_mass.double().numpy())
            rows.append(_spent(found).astype(np.float64))
            total += said
        return cls(
            tv=np.mean(tv, axis=0),
            label=np.append(_root_mean_square(label), np.nan),
            mean_tv=total_variation(total / len(scorers), truth.rows),
            undecided=np.mean(undecided, axis=0) if way.certified else np.full(len(tv[0]), np.nan),
            rows=np.mean(rows, axis=0),
            seconds=np.array([np.mean(seconds)]),
        )

    @classmethod
    def _labels_only(cls, scorer: ct.Scorer, text: Text, truth: Truth) -> Found:
        begin = process_time()
        own = _scored(scorer, text)
        taken = process_time() - begin
        nothing = np.full(len(own) + 1, np.nan)
        label = np.append(own - truth.labels(truth.rows), np.nan)
        return cls(nothing, label, nothing, nothing, nothing, np.array([taken]))

    @classmethod
    def join(cls, parts: Sequence[Found]) -> Found:
        """All in one."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))


def probabilities(found: ct.Distributions) -> torch.Tensor:
    """float32 [n + 1, width]; where there is a correction, corrected: such estimates may be negative."""
    return found.logprobs.exp() if found.correction is None else found.correction.apply(found.logprobs)


def total_variation(said: torch.Tensor, truth: torch.Tensor) -> FloatArray:
    """float64 [n + 1]: half the sum of differences; NaN for rows that are 0 everywhere, which say nothing."""
    sums = [rows.sum(dim=1, dtype=torch.float64) for rows in (said, truth)]
    apart = (said - truth).abs_().sum(dim=1, dtype=torch.float64) + (sums[0] - sums[1]).abs()
    found: FloatArray = torch.where((said != 0).any(dim=1), apart / 2, torch.nan).numpy()
    return found


def _read(scorer: ct.Scorer, text: Text) -> tuple[ct.Distributions, float]:
    """The distributions of a text after its prompt, and the processor seconds that took."""
    begin = process_time()
    [found] = scorer.distributions([text.text], [text.prompt], ended=False)
    return found, process_time() - begin


def _scored(scorer: ct.Scorer, text: Text) -> FloatArray:
    """float64 [n]: probabilities of the text's own tokens, NaN where there is none."""
    [score] = scorer.score([text.text], [text.prompt], ended=False)
    return np.where(np.isneginf(score.logprobs), np.nan, np.exp(score.logprobs))


def _spent(found: ct.Distributions) -> IntArray:
    return np.zeros(len(found.student_ids) + 1, dtype=np.int64) if found.rows is None else found.rows


def _root_mean_square(errors: Sequence[FloatArray]) -> FloatArray:
    """Of several seeds; one alone keeps its signs."""
    return errors[0] if len(errors) == 1 else np.sqrt(np.mean(np.square(errors), axis=0))
