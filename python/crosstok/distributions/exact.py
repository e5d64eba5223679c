"""Whole distributions over the next student token, from the same rows as the labels.

P(v | s_1..s_i) has two sources: nodes at position i, whose rows are summed by the first student token of each
entry, and nodes before it, whose crossing tokens reach beyond s_i and so decide the next student token themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from crosstok.masses.aggregator import FAINT, Aggregator, Block, expand
from crosstok.masses.entries import Entries
from crosstok.masses.prefixes import Prefixes
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray


class _Kept(NamedTuple):
    """Entries of a node's row: token, int64; log_mass, float64, after the node; log_rest: what they leave."""

    token: torch.Tensor
    log_mass: torch.Tensor
    log_rest: float


@dataclass(frozen=True, eq=False)
class _Crossings:
    """Mass of tokens that cross a position and go on with a student token: arrays [groups]."""

    node: IntArray
    depth: IntArray
    student: IntArray
    log_mass: FloatArray


class Collector:
    """Collects a plan's distributions while its rows stream by. The plan must keep every node.

    width: of the student's logits. only: the one position that is wanted, where not all are. keep: None, or how many
    entries of each row are wanted, besides that of the label. Then the whole row is kept only of nodes that share their
    position: of others, what is not among the largest and does not cross from earlier nodes is not among the largest.
    """

    def __init__(self, plan: Plan, width: int, only: int | None = None, keep: int | None = None) -> None:
        self.plan, self.width, self.only, self.keep = plan, width, only, keep
        self._shared = _shared(plan)
        self._kept: dict[int, _Kept] = {}
        self._crossing_text: tuple[int, dict[int, IntArray]] = (-1, {})
        self._first: torch.Tensor | None = None
        self._rows: dict[int, torch.Tensor] = {}
        self._crossings: list[list[_Crossings]] = [[] for _ in range(len(plan))]

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block."""
        wanted = np.ones(len(block.nodes), dtype=bool)
        if self.only is not None:
            wanted = self.plan.node_depth[block.nodes] == self.only
        rows = np.flatnonzero(wanted)
        if len(rows):
            grouped = self._by_first_token(block, torch.from_numpy(rows).to(block.share.device))
            for node, row in zip(block.nodes[rows].tolist(), grouped, strict=True):
                if self.keep is None or self._shared[node]:
                    self._rows[node] = row if self.keep is None else row.clone()  # not the whole block
                else:
                    self._kept[node] = self._cut(node, row)
        self._add_crossings(aggregator, block)

    def _cut(self, node: int, row: torch.Tensor) -> _Kept:
        """Of a row the largest entries, those of tokens that cross the position from earlier nodes, the label."""
        plan, depth, text = self.plan, int(self.plan.node_depth[node]), int(self.plan.node_text[node])
        row[self.plan.pair.student_eos[0]] = -torch.inf  # known apart
        largest = row.topk(min(self.keep or 0, len(row))).indices
        label = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]][depth : depth + 1]
        wanted = np.concatenate([largest.numpy(), self._crossing_tokens(text).get(depth, label[:0]), label])
        token = torch.from_numpy(np.unique(wanted))
        log_mass = row[token]
        row[token] = -torch.inf
        return _Kept(token, log_mass, float(row.logsumexp(0)))

    def _by_first_token(self, block: Block, rows: torch.Tensor) -> torch.Tensor:
        """float64 [rows, width] on the CPU: log of the rows' mass by the first student token of their entries."""
        share, first = block.share[rows], self._first_tokens(block)
        sums = torch.zeros(self.width + 1, len(rows), dtype=torch.float64, device=share.device)
        # Columns become rows: index_add_ then moves whole rows at a time.
        sums.index_add_(0, first, share.T.contiguous().double())
        logs = sums[: self.width].T.contiguous().log_() + block.log_scale[rows, None]
        # Entries whose exponentials are lost are summed as logarithms, in the rows that have any.
        low = block.logits[rows].amin(dim=1) < math.log(FAINT[share.dtype])
        for row in torch.nonzero(low).flatten().tolist():
            own = torch.where(block.mask[rows[row]], block.logits[rows[row]].double(), -torch.inf)
            if bool(((own > -torch.inf) & (share[row] < FAINT[share.dtype])).any()):
                logs[row] = _log_sum(own, first, self.width + 1)[: self.width] - block.log_norm[rows[row]]
        return logs.cpu()

    def _first_tokens(self, block: Block) -> torch.Tensor:
        """int64 [V]: the first student token of each teacher token; of those that have no spelling the width."""
        if self._first is None:
            spelling = self.plan.pair.spelling
            first = np.full(block.share.shape[1], self.width)
            first[spelling.tokens] = spelling.id_at(np.arange(len(spelling.tokens)), 0)
            self._first = torch.from_numpy(first).to(block.share.device)
        return self._first

    def _add_crossings(self, aggregator: Aggregator, block: Block) -> None:
        plan = self.plan
        rows, ranges = expand(plan.range_ptr[block.nodes], plan.range_ptr[block.nodes + 1])
        if self.only is not None:
            wanted = plan.range_depth[ranges] == self.only
            rows, ranges = rows[wanted], ranges[wanted]
        if not len(ranges):
            return
        owner, places, student = self._crossing(ranges)
        if not len(owner):
            return
        # In the order of spellings entries with the same next student token stand together.
        new = np.append(True, (owner[1:] != owner[:-1]) | (student[1:] != student[:-1]))
        group = np.cumsum(new) - 1
        heads = np.flatnonzero(new)
        of_group = ranges[owner[heads]]
        log_mass = aggregator.sum_groups(block, rows[owner], places, group, len(heads), rows[owner[heads]])
        node = plan.range_node[of_group]
        for text in np.unique(plan.node_text[node]).tolist():
            mine = plan.node_text[node] == text
            found = _Crossings(
                node[mine], plan.range_depth[of_group][mine], student[heads][mine], log_mass[mine]
            )
            self._crossings[text].append(found)

    def _crossing(self, ranges: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Of ranges of the plan the tokens that go on beyond the position: which range, place, next student token."""
        plan = self.plan
        owner, places = expand(plan.range_first[ranges], plan.range_last[ranges])
        steps = plan.range_depth[ranges] - plan.node_depth[plan.range_node[ranges]]
        student = plan.pair.spelling.id_at(places, steps[owner])
        beyond = student >= 0  # the others end at the position: their children's rows speak for them
        return owner[beyond], places[beyond], student[beyond]

    def _crossing_tokens(self, text: int) -> dict[int, IntArray]:
        """The next student tokens of all tokens that cross, by position."""
        if text != self._crossing_text[0]:
            plan = self.plan
            nodes = np.searchsorted(plan.range_node, plan.node_ptr[text : text + 2])
            ranges = np.arange(*nodes.tolist())
            owner, _, student = self._crossing(ranges)
            depth = plan.range_depth[ranges[owner]]
            base = int(student.max(initial=0)) + 1
            keys = np.unique(depth * base + student)
            starts = np.flatnonzero(np.diff(keys // base, prepend=-1))
            parts = np.split(keys % base, starts[1:])
            found = dict(zip((keys[starts] // base).tolist(), parts, strict=True)) if len(keys) else {}
            self._crossing_text = text, found
        return self._crossing_text[1]

    def entries(self, prefixes: Prefixes, text: int) -> Entries:
        """What `finish` gives for all positions of a text, as far as it was kept."""
        plan, base = self.plan, prefixes.estimate[prefixes.first[text] : prefixes.first[text + 1] - 1]
        log_rest = np.full(len(base), -np.inf)
        rows: list[IntArray] = []
        tokens: list[IntArray] = []
        logs: list[FloatArray] = []

        def add(depth: IntArray, token: IntArray, log_mass: FloatArray) -> None:
            possible = base[depth] > -np.inf  # after a prefix of probability zero every row stays -inf
            rows.append(depth[possible])
            tokens.append(token[possible])
            logs.append(log_mass[possible] - base[depth[possible]])

        for node in range(int(plan.node_ptr[text]), int(plan.node_ptr[text + 1])):
            depth, log_q = int(plan.node_depth[node]), float(prefixes.log_q[node])
            row, kept = self._rows.pop(node, None), self._kept.pop(node, None)
            if row is not None:
                kept = _Kept(torch.arange(len(row)), row, -math.inf)
            if kept is None or base[depth] == -np.inf:
                continue
            log_rest[depth] = np.logaddexp(log_rest[depth], log_q + kept.log_rest - base[depth])
            some = kept.token != plan.pair.student_eos[0]
            token = kept.token[some].numpy()
            add(np.full(len(token), depth), token, log_q + kept.log_mass[some].numpy())
            eos = np.array([plan.pair.student_eos[0]])
            add(np.array([depth]), eos, log_q + prefixes.masses.eos[node : node + 1])
        for found in self._crossings[text]:
            add(found.depth, found.student, found.log_mass + prefixes.log_q[found.node])
        self._crossings[text] = []
        return Entries.of(np.concatenate(rows), np.concatenate(tokens), np.concatenate(logs), log_rest)

    def finish(self, prefixes: Prefixes, text: int, positions: range) -> torch.Tensor:
        """float64 [len(positions), width] on the CPU: log P(v | s_1..s_i) for each position i; frees the text's rows.

        text: its number in the plan. A position of probability zero is all −inf. docs/mathematics.md, fact 19.
        """
        plan = self.plan
        nodes = range(int(plan.node_ptr[text]), int(plan.node_ptr[text + 1]))
        out = torch.full((len(positions), self.width), -torch.inf, dtype=torch.float64)
        base = prefixes.estimate[prefixes.first[text] :]
        begun: set[int] = set()
        eos = self.plan.pair.student_eos[0]
        for node in nodes:
            depth = int(plan.node_depth[node])
            row = self._rows.pop(node, None)
            if row is None or depth not in positions or prefixes.log_q[node] == -np.inf:
                continue
            weight = float(prefixes.log_q[node] - base[depth])
            row[eos] = float(prefixes.masses.eos[node])
            at, row = positions.index(depth), row.add_(weight)
            out[at] = torch.logaddexp(out[at], row) if at in begun else row
            begun.add(at)
        for found in self._crossings[text]:
            log_q = prefixes.log_q[found.node]
            keep = (found.depth >= positions.start) & (found.depth < positions.stop) & (log_q > -np.inf)
            keep &= base[found.depth] > -np.inf  # after a prefix of probability zero every row stays -inf
            values = found.log_mass[keep] + log_q[keep] - base[found.depth[keep]]
            flat = (found.depth[keep] - positions.start) * self.width + found.student[keep]
            _add_logs(out.view(-1), torch.from_numpy(flat), torch.from_numpy(values))
        self._crossings[text] = []
        return out


def _shared(plan: Plan) -> npt.NDArray[np.bool_]:
    """bool [nodes]: whether another node ends where a node's last student token does."""
    keys = plan.node_text * (int(plan.node_depth.max(initial=0)) + 1) + plan.node_depth
    _, of, count = np.unique(keys, return_inverse=True, return_counts=True)
    found: npt.NDArray[np.bool_] = count[of] > 1
    return found


def _log_sum(logs: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """float64 [groups]: log of the sum of exp(logs) in each group."""
    out = torch.full((groups,), -torch.inf, dtype=torch.float64, device=logs.device)
    _add_logs(out, group, logs)
    return out


def _add_logs(out: torch.Tensor, index: torch.Tensor, logs: torch.Tensor) -> None:
    """Add exp(logs) to exp(out) at indices that may repeat, in place, as logarithms."""
    possible = logs > -torch.inf
    where, inverse = torch.unique(index[possible], return_inverse=True)
    logs, before = logs[possible], out[where]
    peak = before.scatter_reduce(0, inverse, logs, "amax")
    total = (before - peak).exp().index_add(0, inverse, (logs - peak[inverse]).exp())
    out[where] = peak + total.log()
