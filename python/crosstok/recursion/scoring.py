"""The paper's merge recursion: P(s_1..s_i) by taking the student's merges back, the last one first.

`merges.undo` writes P(s) as a signed sum of probabilities of byte strings; here the teacher's byte covers turn the sum
into teacher prefixes, each of which then counts whole, not at all, or in part, by its row. Nothing decides how the
student encodes what a teacher token leaves open, so this is an oracle for all that does. Sums and covers can grow
exponentially, and are held against a budget. docs/mathematics.md, "The merge recursion".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from crosstok.errors import PlanError, TeacherError
from crosstok.pair import Pair
from crosstok.ragged import FloatArray, IntArray, ids_array
from crosstok.recursion.merges import END, Ids, Term, check_start, check_symbols, student_merges, undo
from crosstok.requests import Request
from crosstok.teacher.protocol import Teacher, check_rows
from crosstok.tokenizer import Tokenizer

# For each student prefix: most steps of the recursion, and most teacher prefixes whose continuations matter.
BUDGET = 10_000
# Byte covers for each of these teacher prefixes: all covers after one prefix share its row.
COVERS = 100
# Teacher rows asked for at once.
ROWS = 64


@dataclass(frozen=True, eq=False)
class Recursed:
    """What the recursion gives for one text. Position i is the prefix s_1..s_i, i = 0..n; end-of-text counts as s_n.

    student_ids: int64 [n]. log_p: float64 [n + 1], log P(s_1..s_i) in nats. terms: int64 [n + 1], byte strings in the
    sum. rows: int64 [n + 1], teacher rows that the position needs (those that others need as well included).
    """

    student_ids: IntArray
    log_p: FloatArray
    terms: IntArray
    rows: IntArray

    @property
    def logprobs(self) -> FloatArray:
        """float64 [n]: log P(s_i | s_<i), −inf from the first token of probability zero on."""
        possible = self.log_p[1:] > -np.inf
        return np.where(possible, self.log_p[1:] - np.where(possible, self.log_p[:-1], 0.0), -np.inf)


def recursion(
    teacher: Teacher,
    pair: Pair,
    student_ids: Sequence[int] | IntArray,
    prompt: Sequence[int] | IntArray | None = None,
    ended: bool = False,
    canonical: str = "renormalize",
    temperature: float = 1.0,
    budget: int = BUDGET,
) -> Recursed:
    """P of every prefix of ``student_ids`` (without end-of-text) and, with ``ended``, of the text that ends there.

    prompt: teacher ids; None: the text starts a document. canonical, temperature: as in `Scorer`. A prefix that no text
    has gets −inf. The teacher's tokenizer may be of any kind.

    Raises PlanError where the recursion does not hold: for the student (see `student_merges`), for a teacher with a
    token that the student cannot spell, for a dummy prefix where there is no prompt; and where a prefix takes more than
    ``budget`` steps or teacher prefixes. TeacherError for what are no rows, ValueError for a negative id and for an
    option that is none.
    """
    if canonical not in ("renormalize", "mask"):
        raise ValueError(f"canonical must be 'renormalize' or 'mask', not {canonical!r}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be positive and finite, not {temperature}")
    check_symbols(pair.teacher, pair.student)
    if prompt is None:
        check_start("teacher", pair.teacher)
        check_start("student", pair.student)
    ids = ids_array(student_ids)
    if ids.min(initial=0) < 0:
        raise ValueError(f"id {ids.min()} is negative")
    prefixes = [tuple(ids[:i].tolist()) for i in range(len(ids) + 1)]
    prefixes += [(*prefixes[-1], END)] * ended
    sums = [undo(student_merges(pair.student), prefix, budget) for prefix in prefixes]
    trees = _trees(pair.teacher, sums, budget)
    log_p = _read(_Rows(teacher, pair, pair.prompt_ids(prompt), canonical, temperature), trees)
    if ended:
        ids = np.append(ids, pair.student_eos[0])
    terms, rows = [len(terms) for terms in sums], [len(tree.splits) for tree in trees]
    return Recursed(ids, log_p, np.asarray(terms, dtype=np.int64), np.asarray(rows, dtype=np.int64))


def recursions(
    teacher: Teacher,
    pair: Pair,
    requests: Iterable[Request],
    canonical: str = "renormalize",
    temperature: float = 1.0,
    budget: int = BUDGET,
) -> Iterator[Recursed]:
    """`recursion` of texts, in order.

    Raises TextError for a text that is not admissible, and what `recursion` raises, each with the index of the text.
    """
    for index, request in enumerate(requests):
        ids = pair.encode(request.text, request.prompt is None, index)
        try:
            yield recursion(teacher, pair, ids, request.prompt, request.ended, canonical, temperature, budget)
        except PlanError as error:
            raise PlanError(f"text {index}: {error}") from None
        except TeacherError as error:
            raise TeacherError(error.reason, index) from None


# --- from byte strings to teacher prefixes ---


class Split(NamedTuple):
    """A teacher prefix that counts in part: ``named`` tokens after it (`END` among them), and whether the others count.

    Of the named ones, ``whole`` count, ``open`` are split further, and the rest do not count.
    """

    named: list[int]
    whole: list[int]
    open: list[int]
    others: bool


class Tree(NamedTuple):
    """The teacher prefixes that count in part, parents first; where there are none, whether the empty one counts."""

    splits: dict[Ids, Split]
    everything: bool


def _trees(tokenizer: Tokenizer, sums: Iterable[Mapping[Term, int]], budget: int) -> list[Tree]:
    """The tree of each sum. Raises PlanError where one takes more than ``budget`` prefixes, or too many covers."""

    @cache
    def count_next(node: Ids) -> int:
        """How many tokens may follow, end-of-text being one."""
        return int(tokenizer.canonical_next(node).sum()) + tokenizer.is_canonical(node, complete=True)

    return [_tree(tokenizer, terms, count_next, budget) for terms in sums]


def _tree(
    tokenizer: Tokenizer, terms: Mapping[Term, int], count_next: Callable[[Ids], int], budget: int
) -> Tree:
    """How much the texts that begin with each teacher prefix count: the sum of its prefixes' coefficients, 0 or 1."""
    added: dict[Ids, int] = {}
    after: dict[Ids, set[int]] = {}
    for term, factor in terms.items():
        for path in _covers(tokenizer, term):
            added[path] = added.get(path, 0) + factor
            for length, token in enumerate(path):
                after.setdefault(path[:length], set()).add(token)
        if len(after) > budget or len(added) > COVERS * budget:
            raise PlanError(
                f"more than {budget} teacher prefixes or {COVERS * budget} covers for {term.data!r}"
            )
    nodes = sorted(after, key=len)
    counts: dict[Ids, int] = {(): added.get((), 0)}
    for node in nodes:
        for path in ((*node, token) for token in after[node]):
            counts[path] = counts[node] + added.get(path, 0)
    # The shortest term has the bytes of s. What reaches them can be in; of an ended text only what has ended.
    size = min((len(term.data) + term.ended for term in terms), default=0)
    reaching = {node for node in nodes if len(tokenizer.decode(node)) >= size}
    return _split(nodes, after, counts, count_next, reaching)


def _covers(tokenizer: Tokenizer, term: Term) -> list[Ids]:
    """The byte covers of a term's bytes; of an ended one the encodings of that text, end-of-text behind them."""
    covers = tokenizer.covers(term.data)
    if not term.ended:
        return [tuple(cover.tolist()) for cover in covers]
    whole = (cover for cover in covers if tokenizer.decode(cover) == term.data)
    return [(*cover.tolist(), END) for cover in whole if tokenizer.is_canonical(cover, complete=True)]


def _split(
    nodes: Sequence[Ids],
    after: Mapping[Ids, set[int]],
    counts: Mapping[Ids, int],
    count_next: Callable[[Ids], int],
    reaching: Set[Ids],
) -> Tree:
    """Leave what counts in part: a prefix counts whole if it is one of ``reaching`` and all that may follow counts."""
    verdicts: dict[Ids, int | None] = dict(counts)  # None: in part
    splits: dict[Ids, Split] = {}
    for node in reversed(nodes):
        below = {token: verdicts[(*node, token)] for token in sorted(after[node])}
        others = count_next(node) > len(below)
        seen = {*below.values(), *([counts[node]] if others else [])}
        if seen == {1} and node not in reaching:
            seen = {None}
        verdicts[node] = seen.pop() if len(seen) == 1 else None
        whole = [token for token, verdict in below.items() if verdict == 1]
        following = [token for token, verdict in below.items() if verdict is None]
        splits[node] = Split(list(below), whole, following, others and counts[node] == 1)
    kept: dict[Ids, Split] = {}
    waiting: list[Ids] = [()] if verdicts[()] is None else []
    for node in waiting:
        kept[node] = splits[node]
        waiting += [(*node, token) for token in splits[node].open]
    return Tree(kept, verdicts[()] == 1)


# --- teacher rows ---


@dataclass(frozen=True)
class _Rows:
    """The canonical teacher q: rows of ``teacher`` after ``prompt`` and a prefix, masked and normalised."""

    teacher: Teacher
    pair: Pair
    prompt: Ids
    canonical: str
    temperature: float

    def read(self, nodes: Sequence[Ids]) -> Iterator[FloatArray]:
        """log q(t | node) of each node, float64 [vocab_size + 1]: end-of-text stands at `END`, the last place."""
        for first in range(0, len(nodes), ROWS):
            part = nodes[first : first + ROWS]
            rows = self.teacher.rows([self.prompt + node for node in part])
            check_rows(rows, len(part), self.teacher.vocab_size, type(self.teacher).__name__)
            for node, row in zip(part, rows.detach().double().cpu().numpy(), strict=True):
                yield self._log_q(node, row)

    def _log_q(self, node: Ids, row: FloatArray) -> FloatArray:
        tokenizer, eos = self.pair.teacher, list(self.pair.teacher_eos)
        tokens = np.flatnonzero(tokenizer.canonical_next(node))
        if max([*eos, *tokens[-1:].tolist()]) >= len(row):
            raise TeacherError(
                f"the teacher's rows have {len(row)} entries, fewer than its tokenizer has tokens"
            )
        scaled = (row - max(row.max(), np.finfo(np.float64).min)) / self.temperature
        log_q = np.full(tokenizer.vocab_size + 1, -np.inf)
        log_q[tokens] = scaled[tokens]
        if tokenizer.is_canonical(node, complete=True):
            log_q[END] = _log_sum(scaled[eos])
        total = _log_sum(log_q if self.canonical == "renormalize" else scaled)
        return log_q if total == -np.inf else log_q - total


def _read(rows: _Rows, trees: Sequence[Tree]) -> FloatArray:
    """log P of each tree's texts, float64 [trees]; every row is read once."""
    using: dict[Ids, list[int]] = {}
    for index, tree in enumerate(trees):
        for node in tree.splits:
            using.setdefault(node, []).append(index)
    nodes = sorted(using, key=len)
    reach: dict[Ids, float] = {(): 0.0}  # log q of each prefix that is split; parents come first
    shares: list[list[float]] = [[0.0] if tree.everything else [] for tree in trees]
    for node, log_q in zip(nodes, rows.read(nodes), strict=True):
        for index in using[node]:
            split = trees[index].splits[node]
            for token in split.open:
                reach[(*node, token)] = reach[node] + float(log_q[token])
            shares[index].append(reach[node] + _share(split, log_q))
    return np.asarray([_log_sum(np.asarray(logs)) for logs in shares], dtype=np.float64)


def _share(split: Split, log_q: FloatArray) -> float:
    """log of what counts of a row."""
    if not split.others:
        return _log_sum(log_q[split.whole])
    rest = log_q.copy()
    rest[sorted({*split.named} - {*split.whole})] = -np.inf
    return _log_sum(rest)


def _log_sum(logs: FloatArray) -> float:
    """Logarithm of a sum, −inf for that of nothing."""
    top = logs.max(initial=-np.inf)
    return float(top + np.log(np.exp(logs - top).sum())) if top > -np.inf else -np.inf
