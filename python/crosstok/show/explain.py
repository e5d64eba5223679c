"""From a text to an `Explanation`, with one run of the teacher over the plan's tree."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from crosstok.errors import TeacherError, TextError
from crosstok.masses.nodes import IN, LIKELY, UNLIKELY
from crosstok.pair import Pair, Plan
from crosstok.reading import Reading
from crosstok.results import Score, Status
from crosstok.scores.labels import score_of
from crosstok.scores.refine import Goal
from crosstok.show.covers import PARTLY, CoverTap, Largest
from crosstok.show.explanation import Cover, Explanation, Kind, Position, Token
from crosstok.tokenizer import Tokenizer, to_text

KINDS: dict[int, Kind] = {IN: "in", LIKELY: "likely", UNLIKELY: "unlikely", PARTLY: "partly"}


def explain(
    reading: Reading,
    pair: Pair,
    text: str | bytes,
    prompt: Sequence[int] | None = None,
    ended: bool = True,
    max_covers: int = 12,
    goal: Goal | None = None,
) -> Explanation:
    """What the teacher thinks of each student token of a text, with the ``max_covers`` largest covers of each.

    prompt: None (the text starts a document) or teacher ids. ended: end-of-text follows. Exponentials are in float64,
    so that listed and unlisted covers sum to P; in the regime "general" to an upper bound by the plan's rows. goal:
    what bounds are tightened to there, by further rows in a second reading; None: bounds are those of the plan's rows.
    Raises TextError for a text that is not admissible.
    """
    if max_covers < 1:
        raise ValueError(f"max_covers must be at least 1, not {max_covers}")
    start, text = prompt is None, to_text(text)
    try:
        plan = pair.plan([text], start=start, ended=[ended], num_threads=reading.num_threads)
        tap, prompts = CoverTap(plan, max_covers), [pair.prompt_ids(prompt)]
        prefixes = reading.bounded(plan, prompts, tap, exact=True)
        tight = prefixes
        if goal is not None and prefixes.bounded:
            tight = reading.prefixes(plan, prompts, [ended], goal)
    except TextError as error:
        raise TextError(error.reason, None, error.offset) from None
    except TeacherError as error:
        raise TeacherError(error.reason) from None
    score = score_of(plan, tight, 0, ended, tolerance=None if goal is None else goal.tolerance)
    found = tap.finish(prefixes, ended)
    student, teacher = _aligned(plan, pair.teacher.encode(text, start).tolist(), ended)
    trunk = _Trunk(plan, pair.teacher, teacher)
    return Explanation(
        text=text.encode(),
        prompt=None if prompt is None else len(prompt),
        ended=ended,
        regime=pair.regime,
        reason=pair.reason,
        positions=tuple(
            _position(score, i, student[i], trunk, found[i], prefixes.bounded) for i in range(len(student))
        ),
        teacher=teacher,
    )


def tokens_of(tokenizer: Tokenizer, ids: Sequence[int], eos: int | None, start: int = 0) -> tuple[Token, ...]:
    """Tokens where they stand from byte ``start`` on, and end-of-text ``eos`` after them."""
    pieces = [tokenizer.token_bytes(id) for id in ids]
    ends = list(accumulate(map(len, pieces), initial=start))
    tokens = [Token(*token) for token in zip(ids, pieces, ends, ends[1:], strict=False)]
    if eos is not None:
        tokens.append(Token(eos, tokenizer.token_bytes(eos), ends[-1], ends[-1], is_end=True))
    return tuple(tokens)


def _aligned(plan: Plan, own: list[int], ended: bool) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """Student and teacher tokens of a plan's one text, in bytes that both count from the same place.

    own: the teacher's. They end together; of the two one may have a dummy prefix before the text, and begin earlier.
    """
    pair, ids = plan.pair, plan.student_ids.tolist()
    sizes = [
        sum(len(tokenizer.token_bytes(id)) for id in spelled)
        for tokenizer, spelled in ((pair.student, ids), (pair.teacher, own))
    ]
    eos = (pair.student_eos[0], pair.teacher_eos[0]) if ended else (None, None)
    student = tokens_of(pair.student, ids, eos[0], max(sizes) - sizes[0])
    return student, tokens_of(pair.teacher, own, eos[1], max(sizes) - sizes[1])


class _Trunk:
    """The text's canonical encoding in a plan's tree, and how other nodes leave it."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer, canonical: Sequence[Token]) -> None:
        """canonical: the text's tokens, end-of-text among them where it is ended."""
        self._token, self._parent = plan.node_token.tolist(), plan.node_parent.tolist()
        self._tokenizer = tokenizer
        self._ids = [token.id for token in canonical if not token.is_end]
        self._starts = [canonical[0].start if canonical else 0]
        self._starts += [token.end for token in canonical if not token.is_end]
        self._length = [0] + [-1] * (len(self._token) - 1)
        for node in range(1, len(self._token)):  # parents come first
            above = self._length[self._parent[node]]
            if 0 <= above < len(self._ids) and self._token[node] == self._ids[above]:
                self._length[node] = above + 1

    def branch(self, node: int) -> tuple[int, list[int]]:
        """How many canonical tokens the path to a node begins with, and the tokens after them."""
        after: list[int] = []
        while self._length[node] < 0:
            after.append(self._token[node])
            node = self._parent[node]
        return self._length[node], after[::-1]

    def covers(self, token: Token, found: Largest, log_all: float) -> tuple[int, tuple[Cover, ...]]:
        """The trunk that the covers of a position share, and the covers from there on."""
        branches = [self.branch(node) for node in found.node.tolist()]
        # The canonical token that the student token begins in; at the end of the text there is none.
        own = max(0, bisect_right(self._starts, token.start) - 1)
        trunk = min([own, *(length for length, _ in branches)])
        covers = []
        columns = (array.tolist() for array in (found.token, found.log_mass, found.kind))
        for (length, after), last, log_mass, kind in zip(branches, *columns, strict=True):
            ids = [*self._ids[trunk:length], *after]
            if last >= 0 and not token.is_end:
                ids.append(last)
            tokens = tokens_of(self._tokenizer, ids, last if token.is_end else None, self._starts[trunk])
            share = math.exp(log_mass - log_all) if log_all > -math.inf else 0.0
            covers.append(Cover(tokens, log_mass, share, KINDS[kind]))
        return trunk, tuple(covers)


def _position(score: Score, i: int, token: Token, trunk: _Trunk, found: Largest, bounded: bool) -> Position:
    log_covers = float(score.prefix_upper[i])
    if bounded:
        log_covers = float(np.logaddexp.reduce([*found.log_mass, found.log_rest]))
    shared, covers = trunk.covers(token, found, log_covers)
    return Position(
        token=token,
        logprob=float(score.logprobs[i]),
        lower=float(score.lower[i]),
        upper=float(score.upper[i]),
        prefix_lower=float(score.prefix_lower[i]),
        prefix_upper=float(score.prefix_upper[i]),
        noncanonical_mass=float(score.noncanonical_mass[i]),
        inadmissible_mass=float(score.inadmissible_mass[i]),
        rows=int(score.rows[i]),
        status=Status(int(score.status[i])).name.lower(),
        trunk=shared,
        covers=covers,
        rest=found.rest,
        log_rest=found.log_rest,
        log_covers=log_covers,
    )
