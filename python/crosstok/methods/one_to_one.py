"""`method="strict_1to1"`: only where both tokenizers agree, with the teacher's own probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crosstok.masses.prefixes import Prefixes
from crosstok.methods.moved_rows import Filler, MovedRows
from crosstok.methods.trunk import Line, Trunk, Trunks
from crosstok.methods.unbounded import refuse_sparse
from crosstok.methods.vocabulary import Moves, Vocabulary
from crosstok.pair import Pair
from crosstok.ragged import FloatArray
from crosstok.reading import Reading
from crosstok.requests import Request
from crosstok.results import Distributions, Score


@dataclass(frozen=True, eq=False)
class OneToOne:
    """A student token has a value where the teacher's encoding of the text has a token with just its bytes there.

    That value is q of the teacher's token: what is said about other encodings of the same bytes, and of the bytes that
    go on, is left out. End-of-text always has one. All other tokens are unsupported, −inf. Distributions stand where
    teacher and student tokens end together: the mass of the teacher's tokens whose bytes are a student token's, and of
    end-of-text, renormalised; all other rows are −inf. The undecided mass is what was not shared.
    """

    reading: Reading
    pair: Pair
    width: int

    def score(self, batch: Sequence[Request]) -> list[Score]:
        """Scores, without bounds. Raises TextError and TeacherError as `Scorer.score` does."""
        trunk = self._trunks.of(batch, every_node=False)
        prefixes = trunk.read(self.reading, self.pair)
        return [
            trunk.score(text, prefixes, _labels(trunk, prefixes, text), self.pair)
            for text in range(len(batch))
        ]

    def distributions(self, batch: Sequence[Request], top_k: int | None = None) -> list[Distributions]:
        """Dense distributions. Raises as `score` does, and PlanError for sparse ones."""
        refuse_sparse("strict_1to1", top_k)
        trunk = self._trunks.of(batch, every_node=True)
        places = [
            (text, place)
            for text, line in enumerate(trunk.lines)
            for place in np.flatnonzero(line.meets).tolist()
        ]
        filler = Filler(trunk, self.width, self.pair.student_eos[0], only_shared=True)
        rows = MovedRows(trunk, places, self._moves, filler.see)
        return filler.finish(trunk.read(self.reading, self.pair, rows))

    @cached_property
    def _trunks(self) -> Trunks:
        return Trunks(self.pair, self.reading.num_threads)

    @cached_property
    def _moves(self) -> Moves:
        order = self._trunks.own.order.tolist()
        return Moves(self.pair.teacher, order, Vocabulary(self.pair.student).equal)


def _labels(trunk: Trunk, prefixes: Prefixes, text: int) -> FloatArray:
    """float64 [labels]: log q of the teacher token that each label is, −inf where it is none."""
    line: Line = trunk.lines[text]
    node, first = line.node, int(prefixes.first[text])
    same = line.meets[:-1] & line.meets[1:] & (node[1:] == node[:-1] + 1)
    place = np.flatnonzero(np.append(same, trunk.batch[text].ended))
    values = np.full(len(line.student_ids) + trunk.batch[text].ended, -np.inf)
    before, after = prefixes.lower[first + node[place]], prefixes.lower[first + node[place] + 1]
    possible = after > -np.inf
    values[place[possible]] = after[possible] - before[possible]
    return values
