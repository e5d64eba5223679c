"""Whole distributions of the method in use against the reference's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch

from crosstok.errors import PlanError, TeacherError, TextError, ZeroProbabilityError
from crosstok.ragged import FloatArray, IntArray
from crosstok.requests import Request
from crosstok.results import Distributions, NextToken, Score
from crosstok.scorer import Scorer
from crosstok.verify.verification import Rows

Report = Callable[[str, int, int], None]


class Comparison:
    """Whole distributions of the method in use against the reference's, text by text."""

    def __init__(
        self, used: Scorer, reference: Scorer, drawn: list[Request], index: IntArray, truth: list[Score]
    ) -> None:
        self.used, self.reference, self.drawn, self.index, self.truth = used, reference, drawn, index, truth
        self.seconds = self.reference_seconds = 0.0

    def run(self, places: list[IntArray], report: Report) -> Rows:
        """places: positions of each text, rising."""
        parts: list[tuple[float, ...]] = []
        first, done, total, problem = 0, 0, sum(map(len, places)), None
        for text, at in enumerate(places):
            if len(at):
                try:
                    parts += [(first + place, *found) for place, *found in self._text(text, at)]
                except PlanError as error:
                    problem = problem or str(error)
                done += len(at)
                report("comparing distributions", done, total)
            first += len(self.truth[text].student_ids)
        columns = np.array(parts, dtype=np.float64).reshape(len(parts), 8).T
        where, tv, within, undecided, width, *label, certified = columns
        return Rows(
            where.astype(np.int64),
            tv=tv,
            tv_within=within,
            undecided=undecided,
            width=width,
            label_lower=label[0],
            label_upper=label[1],
            certified_tv=certified,
            drawn=total,
            problem=problem,
        )

    def _text(self, text: int, at: IntArray) -> list[tuple[float, ...]]:
        """Of each position: itself, and the fields of `Rows` in their order."""
        request, ids = self.drawn[text], self.truth[text].student_ids
        start = perf_counter()
        with named(self.index[text : text + 1]):
            [found] = self.used.distributions([request.text], [request.prompt], [request.ended])
        corrected = None if found.correction is None else found.correction.apply(found.logprobs)
        self.seconds += perf_counter() - start
        out = []
        for place in at.tolist():
            start = perf_counter()
            following = self._following(text, ids[:place])
            self.reference_seconds += perf_counter() - start
            out.append((place, *compare(found, place, following, int(ids[place]), corrected)))
        return out

    def _following(self, text: int, prefix: IntArray) -> NextToken:
        """The reference's distribution, all zero after a prefix that turns out to have no probability."""
        try:
            return self.reference.next_token(prefix, self.drawn[text].prompt)  # type: ignore[arg-type]
        except ZeroProbabilityError:
            nothing = torch.full((self.reference.width,), -torch.inf, dtype=torch.float64)
            return NextToken(nothing, nothing, nothing)
        except TeacherError as error:
            raise TeacherError(error.reason, int(self.index[text])) from error


def compare(
    found: Distributions, place: int, following: NextToken, label: int, corrected: torch.Tensor | None = None
) -> tuple[float, ...]:
    """The fields of `Rows` at one position. corrected: what the correction makes of all rows, if there is one."""
    bare = found.logprobs[place].double().exp().numpy()
    mine = bare if corrected is None else corrected[place].double().numpy()
    row, low, high = (x.exp().numpy() for x in (following.logprobs, following.lower, following.upper))
    # The truth lies between low and high at every token, so what it takes from some it gives to others, of which
    # what no token has is one: no more than all can lose, no more than all can win.
    missing = [max(0.0, 1.0 - float(x.sum())) for x in (row, high, low)]
    less = float((row - low).sum()) + max(0.0, missing[0] - missing[1])
    more = float((high - row).sum()) + max(0.0, missing[2] - missing[0])
    bounds = float(following.lower[label]), float(following.upper[label])
    width, undecided = float((high - low).max()), float(found.undecided_mass[place])
    tv = total_variation(mine, row), total_variation(bare, row)
    return tv[0], min(1.0, less, more), undecided, width, *bounds, tv[1]


def total_variation(p: FloatArray, q: FloatArray) -> float:
    """Half the sum of |p − q|, probabilities [V]; what either is short of 1 is one more token's."""
    return float((np.abs(p - q).sum() + abs(float(p.sum()) - float(q.sum()))) / 2)


@contextmanager
def named(index: IntArray) -> Iterator[None]:
    """Errors about a text of those drawn name its place among those given."""
    try:
        yield
    except (TextError, TeacherError) as error:
        if error.index is None:
            raise
        place = int(index[error.index])
        if isinstance(error, TextError):
            raise TextError(error.reason, place, error.offset) from error
        raise TeacherError(error.reason, place) from error
