"""`method="unbiased"`: the closing estimate, with a sampled correction that is right on average (mathematics.md, 13).

Of the leaves of a position that are not certain some are drawn by their mass (drawn.py). The teacher goes on after
each, token by token, until the next student token is certain or the text ends; then the leaf's share goes from its
closing to the token that came out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from crosstok.correction import Correction
from crosstok.distributions import exact as dense
from crosstok.distributions.closing import NO_TOKEN, ROW_SHARE, ClosingCollector, Leaves, look_up
from crosstok.distributions.estimates import Estimate, estimates_of
from crosstok.distributions.general import known_leaves
from crosstok.distributions.status import exact_status, row_totals
from crosstok.masses.nodes import Nodes
from crosstok.masses.prefixes import Prefixes, gather
from crosstok.methods.drawn import Drawn, draw, drawable
from crosstok.methods.sampling import ENDED, LightTokens, NextTokens, RangeTokens, stream_of, uniforms
from crosstok.methods.unbounded import refuse_sparse
from crosstok.pair import BoolArray, Pair, Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.reading import Growth, Reading, Taps, trees_of
from crosstok.requests import Request
from crosstok.results import Distributions, Score
from crosstok.scores.labels import score_of
from crosstok.teacher.session import open_session


@dataclass(frozen=True, eq=False)
class Unbiased:
    """Distributions as "auto" gives them without a tolerance, each with a `Correction`; nothing is lost by cutting one.

    draws: for each position, each about one teacher row. seed: with a text and its prompt it decides what is drawn,
    whatever else is in the batch. max_steps: rows that a draw may read; one that is not decided then moves nothing.
    row_share: tokens below this share of a row are not looked up one by one, but drawn from; 0: all are, and by both
    tokenizers. Scores are those of "auto" without a tolerance: corrected probabilities may be negative, and have no
    logarithms.
    """

    reading: Reading
    pair: Pair
    width: int
    draws: int = 1
    seed: int = 0
    max_steps: int = 64
    row_share: float = ROW_SHARE

    def __post_init__(self) -> None:
        if self.draws < 1 or self.max_steps < 0:
            raise ValueError(f"{self.draws} draws of {self.max_steps} steps at most")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative: {self.seed}")
        if not 0 <= self.row_share < 1:
            raise ValueError(f"row_share is a share of a row, not {self.row_share}")

    def score(self, batch: Sequence[Request]) -> list[Score]:
        """Scores as "auto" has them. Raises TextError and TeacherError as `Scorer.score` does."""
        ended = [request.ended for request in batch]
        plan, prompts = self._plan(batch, every_node=False)
        prefixes = self.reading.prefixes(plan, prompts, ended, None)
        return [score_of(plan, prefixes, text, ended[text]) for text in range(len(batch))]

    def distributions(self, batch: Sequence[Request], top_k: int | None = None) -> list[Distributions]:
        """Dense distributions. Raises as `score` does, and PlanError for sparse ones, which have no correction."""
        refuse_sparse("unbiased", top_k)
        plan, prompts = self._plan(batch, every_node=True)
        if self.pair.regime != "general":
            return list(self._exact(plan, prompts))
        streams = [stream_of(self.seed, *each) for each in zip(batch, prompts, strict=True)]
        with open_session(self.reading.teacher, trees_of(plan, prompts)) as session:
            collector = ClosingCollector(plan, self.row_share)
            light, ranges = self._taps(plan, collector, streams)
            prefixes = self.reading.bounded(plan, prompts, Taps((collector, light, ranges)), session)
            exact_from = np.inf if self.row_share else 0.0
            leaves, positions = known_leaves(self.reading, plan, collector, prefixes, exact_from)
            sizes = (np.diff(plan.student_ptr) + 1).tolist()
            places = drawable(collector, prefixes, leaves, light, ranges)
            samples = np.concatenate([light.token, ranges.token])
            drawn = draw(plan, places, samples, uniforms(streams, sizes, self.draws))
            rollouts = _Rollouts(
                Growth(self.reading, plan, session), positions.text, positions.depth, streams
            )
            rollouts.run(drawn, self.max_steps)
        found = estimates_of(
            plan, collector, prefixes, leaves, positions.hidden, rollouts.rows, prefixes.weak
        )
        return [
            self._corrected(plan, prefixes, text, each, drawn, rollouts) for text, each in enumerate(found)
        ]

    def _taps(
        self, plan: Plan, collector: ClosingCollector, streams: list[np.random.Generator]
    ) -> tuple[LightTokens, RangeTokens]:
        """What samples tokens of a plan's rows while they stream by."""
        nodes = np.diff(plan.node_ptr).tolist()
        light = LightTokens(plan, self.row_share, uniforms(streams, nodes, self.draws))
        ranges = np.bincount(plan.node_text[collector.ranges.node], minlength=len(plan)).tolist()
        return light, RangeTokens(plan, collector, uniforms(streams, ranges, self.draws))

    def _corrected(
        self, plan: Plan, prefixes: Prefixes, text: int, found: Estimate, drawn: Drawn, rollouts: _Rollouts
    ) -> Distributions:
        ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
        first = int(plan.student_ptr[text]) + text
        mine = slice(*np.searchsorted(drawn.position, [first, first + len(found)]).tolist())
        row = drawn.position[mine] - first
        mass, open_ = drawn.mass[mine] / found.total[row], rollouts.stopped[mine]
        correction = Correction.of(
            row,
            drawn.label[mine],
            np.where(open_, drawn.label[mine], rollouts.outcome[mine]),
            mass,
            np.bincount(row[open_], mass[open_], len(found)).astype(np.float64),
            _upper(prefixes, text, len(found)) + np.log(found.total),
        )
        undecided, status = torch.from_numpy(found.undecided).float(), found.status()
        return Distributions(ids, found.dense(self.width), undecided, found.spent, correction, status)

    def _exact(self, plan: Plan, prompts: list[tuple[int, ...]]) -> Iterator[Distributions]:
        """Where nothing is undecided."""
        collector = dense.Collector(plan, self.width)
        prefixes = gather(plan, self.reading.read(plan, prompts, collector).masses)
        for text in range(len(plan)):
            ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
            rows, none = range(len(ids) + 1), np.zeros(len(ids) + 1, dtype=np.int64)
            logprobs = collector.finish(prefixes, text, rows).float()
            undecided, correction = torch.zeros(len(rows)), Correction.none(_upper(prefixes, text, len(rows)))
            status = exact_status(plan, prefixes, text, self.reading.canonical, row_totals(logprobs))
            yield Distributions(ids, logprobs, undecided, none, correction, status)

    def _plan(self, batch: Sequence[Request], every_node: bool) -> tuple[Plan, list[tuple[int, ...]]]:
        plan = self.pair.plan(
            [request.text for request in batch],
            start=[request.prompt is None for request in batch],
            ended=[request.ended for request in batch],
            every_node=every_node,
            num_threads=self.reading.num_threads,
        )
        return plan, [self.pair.prompt_ids(request.prompt) for request in batch]


def _upper(prefixes: Prefixes, text: int, count: int) -> FloatArray:
    """float64 [n + 1]: log of the upper bounds of P(s_1..s_i)."""
    return prefixes.upper[prefixes.first[text] : prefixes.first[text] + count]


@dataclass(eq=False)
class _Rollouts:
    """All draws of a batch, step by step, so that the teacher reads many rows together.

    text, depth: int64 [positions]. streams: of each text. rows: int64 [positions], what each has read. [draws], once
    they have run: outcome, int64, the next student token, below 0 for none; stopped, bool, there is no outcome.
    """

    growth: Growth
    text: IntArray
    depth: IntArray
    streams: Sequence[np.random.Generator]
    rows: IntArray = field(init=False)
    outcome: IntArray = field(init=False)
    stopped: BoolArray = field(init=False)

    def run(self, drawn: Drawn, steps: int) -> None:
        """Until all draws are decided, or have read so many rows."""
        self.rows = np.zeros(len(self.text), dtype=np.int64)
        self.outcome = np.full(len(drawn.node), NO_TOKEN, dtype=np.int64)
        self.stopped = np.zeros(len(drawn.node), dtype=bool)
        open_, node, token = np.arange(len(drawn.node)), drawn.node.copy(), drawn.token.copy()
        for left in range(steps, -1, -1):
            at = self._look_up(node[open_], token[open_], drawn.position[open_])
            self.outcome[open_[at.certain]] = at.label[at.certain]
            open_, at = open_[~at.certain], at.where(~at.certain)
            if left == 0 or not len(open_):
                break
            child, next_token = self._next(at)
            self.stopped[open_[child < 0]] = True
            ended = next_token == ENDED
            # A text that the student does not read as it is has no next token.
            self.outcome[open_[ended]] = np.where(at.reads, at.label, NO_TOKEN)[ended]
            on = (child >= 0) & (next_token >= 0)
            open_ = open_[on]
            node[open_], token[open_] = child[on], next_token[on]
        self.stopped[open_] = True

    def _look_up(self, node: IntArray, token: IntArray, position: IntArray) -> Leaves:
        growth, no_mass = self.growth, np.ones(len(node))
        # Whether mass without a next token is lost or out makes no difference here.
        outside, threads = np.zeros(len(node), dtype=bool), growth.reading.num_threads
        depth = self.depth[position]
        return look_up(growth.plan, node, token, depth, position, no_mass, 0.0, threads, outside)

    def _next(self, at: Leaves) -> tuple[IntArray, IntArray]:
        """Read the rows after leaves, and sample from them: nodes, −1 where the teacher refuses, and outcomes."""
        keys, which = np.unique(np.stack([at.node, at.token]), axis=1, return_inverse=True)
        which = which.reshape(-1)
        order = np.argsort(which, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order)) - np.searchsorted(which[order], which[order])
        uniform = np.full((keys.shape[1], int(place.max()) + 1), np.nan)
        uniform[which, place] = self._numbers(self.text[at.position])
        taps: list[NextTokens] = []

        def tap_of(nodes: Nodes) -> NextTokens:
            taps.append(NextTokens(nodes, uniform))
            return taps[0]

        nodes, masses = self.growth.read(keys[0].copy(), keys[1].copy(), tap_of)
        seen = masses.seen[which]
        used = np.unique(np.stack([at.position[seen], which[seen]]), axis=1)[0]
        self.rows += np.bincount(used, minlength=len(self.rows))
        return np.where(seen, nodes.first + which, -1), taps[0].outcome[which, place]

    def _numbers(self, text: IntArray) -> FloatArray:
        """One number for each draw, from the streams of their texts; text: rising."""
        counts = np.bincount(text, minlength=len(self.streams)).tolist()
        return uniforms(self.streams, counts, 1)[:, 0]
