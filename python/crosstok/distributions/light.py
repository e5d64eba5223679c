"""The light tokens of rows: too many and too small to be looked up, each goes to its first student token.

A row's light mass is grouped by the *columns*, those student tokens that some teacher token begins with: fewer than
either vocabulary has (docs/mathematics.md, 12).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from crosstok.masses.aggregator import Block, expand
from crosstok.masses.memory import large
from crosstok.masses.nodes import OUT, UNLIKELY
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray

# Less light mass than this share of a row is none.
_FAINT = 1e-36


class _Columns:
    """The student tokens that light mass goes to: ids, int64 [C], rising; each is the first of some teacher token."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        order, first = plan.pair.order, np.asarray(plan.pair.first_tokens)
        order, first = order[first >= 0], first[first >= 0]
        self.ids, one, column = np.unique(first, return_index=True, return_inverse=True)
        more = np.setdiff1d(np.arange(len(first)), one)
        # Nearly every column has one teacher token only.
        self._one = torch.from_numpy(order[one]).to(device)
        self._more = torch.from_numpy(order[more]).to(device)
        self._column = torch.from_numpy(column[more]).to(device)

    def group(self, rows: torch.Tensor) -> torch.Tensor:
        """[k, C]: sums of rows, [k, V]."""
        grouped = rows.index_select(1, self._one)
        return grouped.index_add_(1, self._column, rows.index_select(1, self._more))


class Kept(NamedTuple):
    """Some entries of a row. column: int64 [entries]. mass: float32 [entries], shares of the row."""

    column: torch.Tensor
    mass: torch.Tensor


class Light:
    """Collects the light mass of rows, by student token, while they stream by.

    row_share: tokens below this share of a row are light. keep: None for whole rows, else the number of columns of each
    row that are kept, besides that of its label; what is left of the row is then known in sum only. mass, left: float64
    [nodes], the light mass of a node's row, and what of it is not kept.
    """

    def __init__(self, plan: Plan, row_share: float, keep: int | None) -> None:
        self.plan, self.row_share, self.keep = plan, row_share, keep
        self.mass: FloatArray = np.zeros(len(plan.node_parent))
        self.left: FloatArray = np.zeros(len(plan.node_parent))
        self._columns: _Columns | None = None
        self._whole: dict[int, torch.Tensor] = {}
        self._kept: dict[int, Kept] = {}

    @property
    def columns(self) -> IntArray:
        """int64 [C]: the student token of each column."""
        return np.zeros(0, dtype=np.int64) if self._columns is None else self._columns.ids

    def add(self, block: Block, rows: IntArray) -> None:
        """Take in those ``rows`` of a block whose nodes end where a student token does."""
        if not self.row_share:
            return
        if self._columns is None:
            self._columns = _Columns(self.plan, block.share.device)
        if not len(self.columns):  # no teacher token begins as a student token does
            return
        at = torch.from_numpy(rows).to(block.share.device)
        scale = block.log_scale[at].exp()[:, None]
        share = block.share.index_select(0, at)
        share.masked_fill_(share >= (self.row_share / scale).to(share.dtype), 0)
        share[:, list(self.plan.pair.teacher_eos)] = 0
        nodes = block.nodes[rows]
        self._clear_unlikely(nodes, share)
        grouped = self._columns.group(share).mul_(scale).float()
        # Too little to be told from zero, or to be divided by, in float32.
        grouped.masked_fill_(grouped.sum(dim=1, keepdim=True) < _FAINT, 0)
        self.mass[nodes] = grouped.sum(dim=1).double().cpu().numpy()
        if self.keep is None:
            self._whole.update(zip(nodes.tolist(), grouped.cpu(), strict=True))
        else:
            self._kept.update(zip(nodes.tolist(), self._cut(nodes, grouped, self.keep), strict=True))

    def _clear_unlikely(self, nodes: IntArray, share: torch.Tensor) -> None:
        """Leave out the tokens behind which the text would not start with the student prefix."""
        plan = self.plan
        row, ranges = expand(plan.range_ptr[nodes], plan.range_ptr[nodes + 1])
        kind, own = plan.range_kind[ranges], plan.range_depth[ranges] == plan.node_depth[nodes[row]]
        listed = own & ((kind == UNLIKELY) | (kind == OUT))
        row, ranges = row[listed], ranges[listed]
        owner, places = expand(plan.range_first[ranges], plan.range_last[ranges])
        at = torch.from_numpy(row[owner] * share.shape[1] + plan.order[places]).to(share.device)
        share.view(-1)[at] = 0

    def _cut(self, nodes: IntArray, grouped: torch.Tensor, keep: int) -> list[Kept]:
        """The largest columns of each row, and that of the label after it."""
        plan = self.plan
        text = plan.node_text[nodes]
        # Of a node that ends where an empty token does too, the last label's.
        next_label = plan.student_ptr[text] + plan.node_depth[nodes]
        has = next_label < plan.student_ptr[text + 1]
        label = (
            plan.student_ids[np.where(has, next_label, 0)] if len(plan.student_ids) else np.zeros_like(text)
        )
        column = np.minimum(np.searchsorted(self.columns, label), len(self.columns) - 1)
        has &= self.columns[column] == label
        at = torch.from_numpy(column)[:, None].to(grouped.device)
        here, own = grouped.gather(1, at), torch.from_numpy(has)[:, None].to(grouped.device)
        others = grouped.scatter(1, at, here * ~own)  # a row without a label's column keeps all
        mass, column_of = (x.cpu() for x in others.topk(min(keep, grouped.shape[1]), dim=1))
        value = (here * own).cpu()
        rest = self.mass[nodes] - (mass.sum(dim=1).double() + value[:, 0].double()).numpy()
        self.left[nodes] = np.where(mass[:, -1].numpy() > 0, np.maximum(rest, 0.0), 0.0)
        mass, column_of = torch.cat([mass, value], 1), torch.cat([column_of, at.cpu()], 1)
        return [Kept(c[m > 0], m[m > 0]) for c, m in zip(column_of, mass, strict=True)]

    def rows(self, node: IntArray, position: IntArray, weight: FloatArray, count: int) -> torch.Tensor:
        """float32 [count, C]: the rows of nodes, int64 [k], times their weights, summed up by position; frees them."""
        out = large(count, len(self.columns))
        begun = np.zeros(count, dtype=bool)
        for n, at, share in zip(node.tolist(), position.tolist(), weight.tolist(), strict=True):
            row = self._whole.get(n)
            if row is None:
                continue
            if begun[at]:
                out[at].add_(row, alpha=share)
            else:
                torch.mul(row, share, out=out[at])
            begun[at] = True
        out[torch.from_numpy(~begun)] = 0.0
        self._free(node)
        return out

    def entries(
        self, node: IntArray, position: IntArray, weight: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """The kept entries of the rows of nodes: position, student token, mass; frees them."""
        which = np.flatnonzero([n in self._kept for n in node.tolist()])
        if not len(which):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
        found = [self._kept[n] for n in node[which].tolist()]
        owner = np.repeat(which, [len(kept.column) for kept in found])
        column = torch.cat([kept.column for kept in found]).numpy()
        mass = torch.cat([kept.mass for kept in found]).double().numpy()
        self._free(node)
        return position[owner], self.columns[column], mass * weight[owner]

    def _free(self, node: IntArray) -> None:
        for n in set(node.tolist()):
            self._whole.pop(n, None)
            self._kept.pop(n, None)
