"""`method="bpm"`: byte-prefix marginalisation, from single teacher rows (arXiv 2607.22334)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crosstok.methods.moved_rows import Filler, Moved, MovedRows
from crosstok.methods.trunk import Trunk, Trunks
from crosstok.methods.unbounded import refuse_sparse
from crosstok.methods.vocabulary import Moves, Vocabulary
from crosstok.pair import Pair
from crosstok.ragged import FloatArray
from crosstok.reading import Reading
from crosstok.requests import Request
from crosstok.results import Distributions, Score


@dataclass(frozen=True, eq=False)
class BytePrefixes:
    """After s_1..s_i the mass of each teacher token goes to the longest student token that its bytes begin with.

    Let a be the last end of a teacher token of the text's encoding that is not behind the end of s_i, and r the bytes
    of s_1..s_i behind a. Where r is empty, the row at a is taken as it is, and end-of-text keeps its mass. Where it is
    not, the teacher tokens at a that begin with r and go on are taken, by their bytes behind r, and their mass is
    renormalised: other encodings of r (r as a token, which the text's encoding does not have there, or several tokens)
    are left out. What the student does with text behind a teacher token's end is left out everywhere, so that a student
    token that no single teacher token begins with gets nothing. Teacher tokens that begin with no student token give
    their mass to none; it is the undecided mass.
    """

    reading: Reading
    pair: Pair
    width: int

    def score(self, batch: Sequence[Request]) -> list[Score]:
        """Scores, without bounds. Raises TextError and TeacherError as `Scorer.score` does."""
        trunk = self._trunks.of(batch, every_node=False)
        eos = self.pair.student_eos[0]
        labels = [
            [*line.student_ids.tolist(), *[eos] * request.ended]
            for line, request in zip(trunk.lines, batch, strict=True)
        ]
        values = [np.full(len(ids), -np.inf) for ids in labels]
        tap = self._tap(trunk, labels, values)
        prefixes = trunk.read(self.reading, self.pair, tap)
        return [trunk.score(text, prefixes, found, self.pair) for text, found in enumerate(values)]

    def distributions(self, batch: Sequence[Request], top_k: int | None = None) -> list[Distributions]:
        """Dense distributions. Raises as `score` does, and PlanError for sparse ones."""
        refuse_sparse("bpm", top_k)
        trunk = self._trunks.of(batch, every_node=True)
        places = [(text, place) for text, line in enumerate(trunk.lines) for place in range(len(line.node))]
        filler = Filler(trunk, self.width, self.pair.student_eos[0], only_shared=False)
        rows = MovedRows(trunk, places, self._moves, filler.see)
        return filler.finish(trunk.read(self.reading, self.pair, rows))

    def _tap(self, trunk: Trunk, labels: list[list[int]], values: list[FloatArray]) -> MovedRows:
        """What fills in the labels' log-probabilities."""

        def see(text: int, place: int, moved: Moved) -> None:
            is_end = place == len(trunk.lines[text].student_ids)
            of_label = moved.end if is_end else moved.of(labels[text][place])
            whole = 1.0 if trunk.lines[text].meets[place] else float(moved.mass.sum())
            if of_label > 0.0:
                values[text][place] = min(0.0, float(np.log(of_label) - np.log(whole)))

        places = [(text, place) for text, ids in enumerate(labels) for place in range(len(ids))]
        return MovedRows(trunk, places, self._moves, see)

    @cached_property
    def _trunks(self) -> Trunks:
        return Trunks(self.pair, self.reading.num_threads)

    @cached_property
    def _moves(self) -> Moves:
        order = self._trunks.own.order.tolist()
        return Moves(self.pair.teacher, order, Vocabulary(self.pair.student).longest_prefix)
