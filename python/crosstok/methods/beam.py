"""`method="beam"`: the paper's approximation for arbitrary vocabularies (arXiv 2512.14954), without any bound.

Our reading of it. P(s_1..s_i) is the sum over relative covers; those that the plan's rows show at once are counted.
What they leave undecided is searched, for each i by itself: of the teacher prefixes that are still undecided the
``beam_width`` most likely are kept; each is decided by both tokenizers, or extended by every token that may follow, by
one teacher row. Those that are not kept, and those that are left after ``beam_length`` tokens, count as in where the
text, if it ended there, would start with s_1..s_i. An estimate below that of a longer prefix is raised to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crosstok.masses.aggregator import Masses, log_sum
from crosstok.masses.nodes import GIVEN_UP, LIKELY, Nodes
from crosstok.masses.prefixes import Prefixes, gather
from crosstok.masses.undecided import Undecided, UndecidedTap
from crosstok.methods.unbounded import refuse_distributions, score_without_bounds
from crosstok.pair import Pair, Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.reading import Growth, Reading, trees_of
from crosstok.requests import Request
from crosstok.results import Distributions, Score
from crosstok.scores.labels import conditionals, score_of
from crosstok.teacher.session import open_session


@dataclass(frozen=True, eq=False)
class Beam:
    """Estimates of P(s_1..s_i) by a beam over undecided teacher prefixes.

    beam_width: prefixes that are kept for each position. beam_length: tokens that they may have beyond the plan's,
    each a teacher row. beam_floor: a token with less than this share of what is undecided after a prefix is never kept.
    Where nothing ever is undecided (the regimes "same" and "subset") scores are those of "auto".
    """

    reading: Reading
    pair: Pair
    width: int
    beam_width: int = 8
    beam_length: int = 4
    beam_floor: float = 1e-4

    def __post_init__(self) -> None:
        if self.beam_width < 1 or self.beam_length < 0:
            raise ValueError(f"a beam of width {self.beam_width} and length {self.beam_length}")
        if not 0 <= self.beam_floor <= 1:
            raise ValueError(f"beam_floor is a share of mass, not {self.beam_floor}")

    def score(self, batch: Sequence[Request]) -> list[Score]:
        """Scores, without bounds in the regime "general". Raises TextError and TeacherError as `Scorer.score` does."""
        ended = [request.ended for request in batch]
        plan = self.pair.plan(
            [request.text for request in batch],
            start=[request.prompt is None for request in batch],
            ended=ended,
            num_threads=self.reading.num_threads,
        )
        prompts = [self.pair.prompt_ids(request.prompt) for request in batch]
        if self.pair.regime != "general":
            prefixes = self.reading.prefixes(plan, prompts, ended, None)
            return [score_of(plan, prefixes, text, ended[text]) for text in range(len(batch))]
        prefixes, log_p, further = self._search(plan, prompts)
        return [_score(plan, prefixes, log_p, further, text, ended[text]) for text in range(len(batch))]

    def distributions(self, batch: Sequence[Request], top_k: int | None = None) -> list[Distributions]:
        """Raises PlanError: the beam follows labels."""
        raise refuse_distributions("beam")

    def _search(self, plan: Plan, prompts: list[tuple[int, ...]]) -> tuple[Prefixes, FloatArray, IntArray]:
        """The plan's own sums, and by position log P, float64, and rows beyond the plan's, int64."""
        with open_session(self.reading.teacher, trees_of(plan, prompts)) as session:
            nodes = Nodes.of(plan)
            aggregator, tap = self.reading.aggregator(nodes), self._tap(nodes)
            rows = session.stream()
            self.reading.reduce(rows, aggregator, lambda part: plan.node_ptr[part.tree] + part.node, tap)
            prefixes = gather(plan, aggregator.masses)
            growth = Growth(self.reading, plan, session, aggregator.space)
            search = _Search(growth, self.beam_width, self._tap)
            search.run(search.entries(plan, prefixes, tap.finish()), self.beam_length)
        return prefixes, search.log_p(prefixes), search.rows(len(prefixes.lower))

    def _tap(self, nodes: Nodes) -> UndecidedTap:
        """Keeps of each position after a node the likeliest tokens, as many as the beam is wide."""
        return UndecidedTap(nodes, self.beam_floor, self.beam_width)


class _Entry(NamedTuple):
    """A node with one more token that leaves s_1..s_depth undecided by the student's readings, and its log q.

    likely: whether the text cut after it starts with s_1..s_depth.
    """

    log_mass: float
    node: int
    token: int
    depth: int
    likely: bool


Entries = dict[int, list[_Entry]]
"""By position."""


class _Row(NamedTuple):
    """What the row of a node beyond the plan's is for one position: log of what is in, and what is undecided."""

    log_in: float
    found: Undecided | None
    slot: int


class _Search:
    """The beams of all positions of a plan, step by step, so that the teacher reads many rows together."""

    def __init__(self, growth: Growth, width: int, tap: Callable[[Nodes], UndecidedTap]) -> None:
        self._growth, self._width, self._tap = growth, width, tap
        # The node of each (node, token) that was read, −1 where the teacher refused; its row by (node, depth).
        self._node_of: dict[tuple[int, int], int] = {}
        self._rows: dict[tuple[int, int], _Row] = {}
        self._inside: list[tuple[int, float]] = []
        self._used: list[int] = []

    def entries(self, plan: Plan, prefixes: Prefixes, found: Undecided) -> Entries:
        """What a plan's rows leave undecided."""
        entries: Entries = defaultdict(list)
        position = prefixes.first[plan.node_text[found.node]] + found.depth
        for slot, (p, node) in enumerate(zip(position.tolist(), found.node.tolist(), strict=True)):
            entries[p] += self._of_slot(p, found, slot, float(prefixes.log_q[node]))
        return entries

    def run(self, entries: Entries, length: int) -> None:
        """Search on from what a plan leaves undecided."""
        for left in range(length, -1, -1):
            open_ = self._decided(entries)
            if left == 0:
                self._inside += [(p, entry.log_mass) for p, entry in open_ if entry.likely]
                return
            self._read([entry for _, entry in open_])
            entries = defaultdict(list)
            for p, entry in open_:
                entries[p] += self._extended(p, entry)

    def log_p(self, prefixes: Prefixes) -> FloatArray:
        """float64 [positions]: log of what is in, the plan's included; it never rises along a text."""
        count = len(prefixes.lower)
        position, log_mass = np.arange(count), prefixes.lower.copy()
        if self._inside:
            more, masses = np.array(self._inside).T
            position = np.concatenate([position, more.astype(np.int64)])
            log_mass = np.concatenate([log_mass, masses])
        log_p = np.minimum(log_sum(log_mass, position, count), 0.0)
        for start, stop in zip(prefixes.first[:-1].tolist(), prefixes.first[1:].tolist(), strict=True):
            log_p[start:stop] = np.maximum.accumulate(log_p[start:stop][::-1])[::-1]
        return log_p

    def rows(self, positions: int) -> IntArray:
        """int64 [positions]: rows that each has used."""
        return np.bincount(np.asarray(self._used, dtype=np.int64), minlength=positions).astype(np.int64)

    def _decided(self, entries: Entries) -> list[tuple[int, _Entry]]:
        """Keep the likeliest entries of each position; of these, those that stay undecided."""
        kept: list[tuple[int, _Entry]] = []
        for p, found in entries.items():
            found.sort(reverse=True)
            kept += [(p, entry) for entry in found[: self._width]]
            self._inside += [(p, entry.log_mass) for entry in found[self._width :] if entry.likely]
        if not kept:
            return []
        columns = [(entry.node, entry.token, entry.depth) for _, entry in kept]
        node, token, depth = np.array(columns, dtype=np.int64).T.copy()
        threads = self._growth.reading.num_threads
        verdicts = self._growth.plan.decide(node, token, depth, num_threads=threads).tolist()
        each = list(zip(kept, verdicts, strict=True))
        inside = ((at, verdict == 1 or (verdict == GIVEN_UP and at[1].likely)) for at, verdict in each)
        self._inside += [(p, entry.log_mass) for (p, entry), counts in inside if counts]
        return [at for at, verdict in each if verdict == 0]

    def _read(self, entries: list[_Entry]) -> None:
        """Have the rows after entries read, those that are not known yet."""
        new = list(
            dict.fromkeys((e.node, e.token) for e in entries if (e.node, e.token) not in self._node_of)
        )
        if not new:
            return
        node, token = np.array(new, dtype=np.int64).T.copy()
        nodes, masses, found = self._grown(node, token)
        for k, key in enumerate(new):
            self._node_of[key] = nodes.first + k if masses.seen[k] else -1
        wholes = zip(
            nodes.whole_node.tolist(), nodes.whole_depth.tolist(), masses.whole.tolist(), strict=True
        )
        for n, depth, log_in in wholes:
            self._rows[n, depth] = _Row(log_in, None, 0)
        for slot, at in enumerate(zip(found.node.tolist(), found.depth.tolist(), strict=True)):
            self._rows[at] = _Row(self._rows[at].log_in, found, slot)

    def _grown(self, node: IntArray, token: IntArray) -> tuple[Nodes, Masses, Undecided]:
        taps: list[UndecidedTap] = []

        def tap_of(nodes: Nodes) -> UndecidedTap:
            taps.append(self._tap(nodes))
            return taps[0]

        nodes, masses = self._growth.read(node, token, tap_of)
        return nodes, masses, taps[0].finish()

    def _extended(self, position: int, entry: _Entry) -> list[_Entry]:
        """What an entry's row leaves undecided. Without one (the path is too long) the entry is what it likely is."""
        row = self._rows.get((self._node_of[entry.node, entry.token], entry.depth))
        if row is None:
            self._inside += [(position, entry.log_mass)] * entry.likely
            return []
        self._used.append(position)
        self._inside.append((position, entry.log_mass + row.log_in))
        return [] if row.found is None else self._of_slot(position, row.found, row.slot, entry.log_mass)

    def _of_slot(self, position: int, found: Undecided, slot: int, log_q: float) -> list[_Entry]:
        """A slot's entries that have mass; what it has beside them counts as it likely is. log_q: of its node."""
        self._inside.append((position, log_q + float(found.unseen[slot, 0])))
        node, depth = int(found.node[slot]), int(found.depth[slot])
        part = slice(int(found.ptr[slot]), int(found.ptr[slot + 1]))
        masses, likely = (log_q + found.log_mass[part]).tolist(), (found.kind[part] == LIKELY).tolist()
        each = zip(masses, found.token[part].tolist(), likely, strict=True)
        return [_Entry(mass, node, token, depth, fits) for mass, token, fits in each if mass > -np.inf]


def _score(
    plan: Plan, prefixes: Prefixes, log_p: FloatArray, further: IntArray, text: int, ended: bool
) -> Score:
    ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
    if ended:
        ids = np.append(ids, plan.pair.student_eos[0])
    start = int(prefixes.first[text])
    before, after = slice(start, start + len(ids)), slice(start + 1, start + 1 + len(ids))
    estimate = log_p[start : after.stop]
    return score_without_bounds(
        ids,
        conditionals(estimate, estimate, estimate)[0],
        noncanonical=prefixes.noncanonical[after],
        inadmissible=prefixes.dead[before],
        rows=prefixes.rows[before] + further[after],
        thin=prefixes.thin[after],
    )
