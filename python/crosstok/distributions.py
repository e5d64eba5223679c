"""Whole distributions over the next student token, from the same rows as the labels.

P(v | s_1..s_i) has two sources: nodes at position i, whose rows are summed by the first student token of each
entry, and nodes before it, whose crossing tokens reach beyond s_i and so decide the next student token themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from crosstok.masses import Aggregator, Block, expand
from crosstok.pair import Plan
from crosstok.prefixes import Prefixes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Crossings:
    """Mass of tokens that cross a position and go on with a student token: arrays [groups]."""

    node: IntArray
    depth: IntArray
    student: IntArray
    log_mass: FloatArray


class Collector:
    """Collects a plan's distributions while its rows stream by. The plan must keep every node."""

    def __init__(self, plan: Plan, width: int) -> None:
        self.plan, self.width = plan, width
        spelling = plan.pair.spelling
        self._first = spelling.id_at(np.arange(len(spelling.tokens)), 0)
        self._rows: dict[int, torch.Tensor] = {}
        self._crossings: list[list[_Crossings]] = [[] for _ in range(len(plan))]

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block whose shares are float64."""
        grouped = self._by_first_token(block)
        # A node's row is kept on its own scale: log of the mass of one unit beside it.
        for row, node in enumerate(block.nodes.tolist()):
            self._rows[node] = grouped[row]
        self._add_crossings(aggregator, block)

    def _by_first_token(self, block: Block) -> torch.Tensor:
        """float64 [k, width] on the CPU: log of each row's mass by the first student token of its entries."""
        spelling = self.plan.pair.spelling
        device = block.share.device
        tokens = torch.from_numpy(spelling.tokens).to(device)
        first = torch.from_numpy(self._first).to(device)
        # Columns become rows: index_add_ then moves whole rows at a time.
        by_token = block.share.index_select(1, tokens).double().T.contiguous()
        sums = torch.zeros(self.width, len(block.nodes), dtype=torch.float64, device=device)
        sums.index_add_(0, first, by_token)
        return (sums.T.log() + block.log_scale[:, None]).cpu()

    def _add_crossings(self, aggregator: Aggregator, block: Block) -> None:
        plan = self.plan
        rows, ranges = expand(plan.range_ptr[block.nodes], plan.range_ptr[block.nodes + 1])
        if not len(ranges):
            return
        owner, places = expand(plan.range_first[ranges], plan.range_last[ranges])
        steps = plan.range_depth[ranges] - plan.node_depth[plan.range_node[ranges]]
        student = plan.pair.spelling.id_at(places, steps[owner])
        beyond = student >= 0  # the others end at the position: their children's rows speak for them
        owner, places, student = owner[beyond], places[beyond], student[beyond]
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

    def finish(self, prefixes: Prefixes, text: int, positions: range) -> torch.Tensor:
        """float64 [len(positions), width]: log P(v | s_1..s_i) for each position i; frees the text's rows."""
        plan = self.plan
        nodes = range(int(plan.node_ptr[text]), int(plan.node_ptr[text + 1]))
        out = torch.zeros(len(positions), self.width, dtype=torch.float64)
        base = prefixes.log_p[prefixes.first[text] :]
        eos = self.plan.pair.student_eos[0]
        masses = prefixes.masses
        for node in nodes:
            depth = int(plan.node_depth[node])
            row = self._rows.pop(node)
            if depth not in positions or prefixes.log_q[node] == -np.inf:
                continue
            scale = float(prefixes.log_q[node] - base[depth])
            at = positions.index(depth)
            out[at] += (row + scale).exp_()
            out[at, eos] += float(np.exp(masses.eos[node] + scale))
        for found in self._crossings[text]:
            log_q = prefixes.log_q[found.node]
            keep = (found.depth >= positions.start) & (found.depth < positions.stop) & (log_q > -np.inf)
            depth_kept, student = found.depth[keep], found.student[keep]
            weight = np.exp(found.log_mass[keep] + log_q[keep] - base[depth_kept])
            index = (torch.from_numpy(depth_kept - positions.start), torch.from_numpy(student))
            out.index_put_(index, torch.from_numpy(weight), accumulate=True)
        self._crossings[text] = []
        logs = out.log_()
        impossible = base[positions.start : positions.stop] == -np.inf
        logs[torch.from_numpy(impossible)] = -torch.inf
        return logs
