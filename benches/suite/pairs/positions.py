"""Random positions of scored texts against the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import crosstok as ct
import numpy as np

from .along import Along
from .decisions import Student, Target
from .forwards import Forwards
from .oracle import Frontier, Interval
from .texts import Text
from .vocabulary import Vocabulary

# Positions of one text: its tokens are read once for all of them.
PER_TEXT = 4


@dataclass(frozen=True)
class Position:
    """Position i of a text (from 1), with log P(s_1..s_{i-1}) and log P(s_1..s_i) by the oracle."""

    text: int
    index: int
    before: Interval
    after: Interval

    @property
    def label(self) -> tuple[float, float]:
        """Bounds of log P(s_i | s_<i)."""
        if self.before.upper == -np.inf:
            return -np.inf, 0.0
        lowest, highest = self.after.lower - self.before.upper, self.after.upper - self.before.lower
        return lowest, min(0.0, highest)

    @property
    def closed(self) -> bool:
        """Whether next to nothing was left undecided."""
        return self.before.closed and self.after.closed

    def apart(self, score: ct.Score) -> float:
        """By how many nats a score's bounds and the oracle's miss each other; 0 where they overlap."""
        k = self.index - 1
        label, prefix = self.label, (self.after.lower, self.after.upper)
        pairs = [
            (label, (score.lower[k], score.upper[k])),
            (prefix, (score.prefix_lower[k], score.prefix_upper[k])),
        ]
        return max(0.0, *(float(max(a[0] - b[1], b[0] - a[1])) for a, b in pairs))


@dataclass
class Oracle:
    """The oracle for one teacher and one student. max_rows: prefixes that are expanded for a student prefix."""

    model: Any
    vocabulary: Vocabulary
    pair: ct.Pair
    student: Student
    max_rows: int

    def positions(self, texts: Sequence[Text], count: int, rng: np.random.Generator) -> Iterator[Position]:
        """Random positions, `PER_TEXT` of a text, of texts whose kinds take turns."""
        for text in _turns(texts, rng)[: -(-count // PER_TEXT)]:
            ids = self.pair.student.encode(texts[text].text, start=texts[text].prompt is None).tolist()
            wanted = min(PER_TEXT, count, len(ids))
            count -= wanted
            chosen = np.sort(rng.choice(len(ids), wanted, replace=False)) + 1
            for index, before, after in self._of_text(texts[text], ids, chosen.tolist()):
                yield Position(text, index, before, after)

    def _of_text(
        self, text: Text, ids: list[int], chosen: list[int]
    ) -> Iterator[tuple[int, Interval, Interval]]:
        tokenizer, start = self.pair.teacher, text.prompt is None
        trunk = tuple(tokenizer.encode(text.text, start=start).tolist())
        forwards = Forwards(self.model, self.pair, self.pair.prompt_ids(text.prompt), trunk, start)
        data = text.text.encode()
        along = Along(self.vocabulary, tokenizer, data, start)
        found = {0: Interval(0.0, 0.0, 0)}
        for index in chosen:
            for length in (index - 1, index):
                if length not in found:
                    target = Target.of(self.student, data, ids[:length], start)
                    size = self.student.ends(ids[:length], start)[-1]
                    found[length] = Frontier(forwards, self.vocabulary, target).run(
                        along, size, self.max_rows
                    )
            yield index, found[index - 1], found[index]


def _turns(texts: Sequence[Text], rng: np.random.Generator) -> list[int]:
    """All texts in a random order in which their kinds take turns."""
    order = rng.permutation(len(texts)).tolist()
    groups = [[i for i in order if texts[i].kind == kind] for kind in dict.fromkeys(t.kind for t in texts)]
    longest = max(map(len, groups), default=0)
    return [group[k] for k in range(longest) for group in groups if k < len(group)]
