"""From a text to an `Explanation`, with one run of the teacher over the plan's tree."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from crosstok.errors import TeacherError, TextError
from crosstok.pair import Pair, Plan
from crosstok.prefixes import gather
from crosstok.reading import Reading
from crosstok.results import Score, Status
from crosstok.scores import score_of
from crosstok.show.covers import CoverTap, Largest
from crosstok.show.explanation import Cover, Explanation, Position, Token
from crosstok.tokenizer import Tokenizer, to_text


def explain(
    reading: Reading,
    pair: Pair,
    text: str | bytes,
    prompt: Sequence[int] | None = None,
    ended: bool = True,
    max_covers: int = 12,
) -> Explanation:
    """What the teacher thinks of each student token of a text, with the ``max_covers`` largest covers of each.

    prompt: None (the text starts a document) or teacher ids. ended: end-of-text follows. Exponentials are in float64,
    so that listed and unlisted covers sum to P. Raises TextError for a text that is not admissible, PlanError for a
    pair whose covers are not known (the general regime).
    """
    if max_covers < 1:
        raise ValueError(f"max_covers must be at least 1, not {max_covers}")
    start, text = prompt is None, to_text(text)
    try:
        plan = pair.plan([text], start=start, ended=[ended], num_threads=reading.num_threads)
        tap = CoverTap(plan, max_covers)
        aggregator = reading.read(plan, [pair.prompt_ids(prompt)], tap, exact=True)
    except TextError as error:
        raise TextError(error.reason, None, error.offset) from None
    except TeacherError as error:
        raise TeacherError(error.reason) from None
    prefixes = gather(plan, aggregator.masses)
    score, found = score_of(plan, prefixes, 0, ended), tap.finish(prefixes, ended)
    own = pair.teacher.encode(text, start).tolist()
    teacher = tokens_of(pair.teacher, own, pair.teacher_eos[0] if ended else None)
    student = tokens_of(pair.student, plan.student_ids.tolist(), pair.student_eos[0] if ended else None)
    trunk = _Trunk(plan, pair.teacher, teacher)
    return Explanation(
        text=text.encode(),
        prompt=None if prompt is None else len(prompt),
        ended=ended,
        regime=pair.regime,
        reason=pair.reason,
        positions=tuple(_position(score, i, student[i], trunk, found[i]) for i in range(len(student))),
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


class _Trunk:
    """The text's canonical encoding in a plan's tree, and how other nodes leave it."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer, canonical: Sequence[Token]) -> None:
        """canonical: the text's tokens, end-of-text among them where it is ended."""
        self._token, self._parent = plan.node_token.tolist(), plan.node_parent.tolist()
        self._tokenizer = tokenizer
        self._ids = [token.id for token in canonical if not token.is_end]
        self._starts = [0, *(token.end for token in canonical if not token.is_end)]
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

    def covers(self, token: Token, found: Largest, log_p: float) -> tuple[int, tuple[Cover, ...]]:
        """The trunk that the covers of a position share, and the covers from there on."""
        branches = [self.branch(node) for node in found.node.tolist()]
        # The canonical token that the student token begins in; at the end of the text there is none.
        own = bisect_right(self._starts, token.start) - 1
        trunk = min([own, *(length for length, _ in branches)])
        covers = []
        for (length, after), last, log_mass in zip(
            branches, found.token.tolist(), found.log_mass.tolist(), strict=True
        ):
            ids = [*self._ids[trunk:length], *after]
            ids, eos = (ids, last) if token.is_end else ([*ids, last], None)
            tokens = tokens_of(self._tokenizer, ids, eos, self._starts[trunk])
            share = math.exp(log_mass - log_p) if log_p > -math.inf else 0.0
            covers.append(Cover(tokens, log_mass, share))
        return trunk, tuple(covers)


def _position(score: Score, i: int, token: Token, trunk: _Trunk, found: Largest) -> Position:
    shared, covers = trunk.covers(token, found, float(score.prefix_lower[i]))
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
    )
