"""The teacher's own encoding of each text, its rows, and where the student's tokens begin on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crosstok.masses.prefixes import Prefixes, gather
from crosstok.methods.unbounded import score_without_bounds
from crosstok.pair import BoolArray, Pair, Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.reading import Reading, Tap
from crosstok.requests import Request
from crosstok.results import Score
from crosstok.tokenizer import Tokenizer, to_text


@dataclass(frozen=True, eq=False)
class Line:
    """A text's student tokens beside the teacher's. Place i is where s_1..s_i end, i = 0..n; arrays are [n + 1].

    student_ids: int64 [n]. node: int64, how many teacher tokens end there or before it. meets: bool, one ends right
    there (or both encodings begin). begun: the bytes between; lead: a dummy prefix that stands before the teacher's
    first token, since the student has it and the teacher does not.
    """

    student_ids: IntArray
    node: IntArray
    meets: BoolArray
    begun: list[bytes]
    lead: list[bytes]


@dataclass(frozen=True, eq=False)
class Trunk:
    """Texts with the teacher's rows along its encodings. plan: of these, as if the teacher were its own student."""

    batch: Sequence[Request]
    plan: Plan
    lines: list[Line]

    def read(self, reading: Reading, pair: Pair, tap: Tap | None = None) -> Prefixes:
        """Read the rows; positions and nodes are teacher tokens. Raises TeacherError as `Reading.read` does."""
        prompts = [pair.prompt_ids(request.prompt) for request in self.batch]
        return gather(self.plan, reading.read(self.plan, prompts, tap, exact=True).masses)

    def score(self, text: int, prefixes: Prefixes, logprobs: FloatArray, pair: Pair) -> Score:
        """The score with these label log-probabilities, float64; −inf where the teacher's tokens have come to zero."""
        line, first = self.lines[text], int(self.plan.node_ptr[text])
        node = first + line.node[: len(logprobs)]
        ids = line.student_ids
        if self.batch[text].ended:
            ids = np.append(ids, pair.student_eos[0])
        possible = prefixes.log_q[node] > -np.inf
        return score_without_bounds(
            ids,
            np.where(possible, logprobs, -np.inf),
            noncanonical=1.0 - prefixes.masses.kept[node],
            inadmissible=prefixes.masses.dead[node].astype(np.float64),
            rows=np.diff(node, prepend=first - 1),
            thin=prefixes.weak[node],
        )


@dataclass(frozen=True, eq=False)
class Trunks:
    """Makes trunks of a pair's texts."""

    pair: Pair
    num_threads: int

    @cached_property
    def own(self) -> Pair:
        """The teacher's tokenizer as its own student."""
        pair = self.pair
        return Pair(pair.teacher, pair.teacher, pair.teacher_eos, pair.teacher_eos)

    @cached_property
    def _sizes(self) -> dict[str, IntArray]:
        return {"teacher": _sizes(self.pair.teacher), "student": _sizes(self.pair.student)}

    def of(self, batch: Sequence[Request], every_node: bool) -> Trunk:
        """The trunks of a batch. every_node: the row at the end is needed whether a text has ended or not.

        Raises TextError, naming the text, for one that is not admissible for the pair.
        """
        starts = [request.prompt is None for request in batch]
        ids = [
            self.pair.encode(request.text, start, index)
            for index, (request, start) in enumerate(zip(batch, starts, strict=True))
        ]
        plan = self.own.plan(
            [request.text for request in batch],
            start=starts,
            ended=[request.ended for request in batch],
            every_node=every_node,
            num_threads=self.num_threads,
        )
        return Trunk(batch, plan, [self._line(plan, t, request, ids[t]) for t, request in enumerate(batch)])

    def _line(self, plan: Plan, text: int, request: Request, student_ids: IntArray) -> Line:
        teacher_ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
        size = len(to_text(request.text).encode())
        theirs, ours = self.pair.teacher.decode(teacher_ids), self.pair.student.decode(student_ids)
        # Places in the text; a dummy prefix, which is not part of it, stands before 0.
        reached = _ends(self._sizes["teacher"][teacher_ids], len(theirs) - size)
        ends = _ends(self._sizes["student"][student_ids], len(ours) - size)
        data, zero = max(theirs, ours, key=len), max(len(theirs), len(ours)) - size
        # Where only one of them has a dummy prefix, both encodings begin with the text.
        start = 0 if len(theirs) != len(ours) else -zero
        known, wanted = np.maximum(reached, start), np.maximum(ends, start)
        node = np.searchsorted(known, wanted, side="right") - 1
        pairs = list(zip((reached[node] + zero).tolist(), (ends + zero).tolist(), strict=True))
        begun, lead = [data[at:end] for at, end in pairs], [data[end:at] for at, end in pairs]
        return Line(student_ids, node, known[node] == wanted, begun, lead)


def _sizes(tokenizer: Tokenizer) -> IntArray:
    """int64 [vocab_size]: bytes of each token."""
    return np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)], dtype=np.int64)


def _ends(sizes: IntArray, dummy: int) -> IntArray:
    """int64 [n + 1]: where each prefix of the tokens ends; ``dummy`` bytes of the first are not the text's."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64) - dummy
