"""The closing estimate: which student token comes next, if texts were cut behind each teacher token.

In the regime "general" a teacher token u after a node reaches beyond s_1..s_i; the text cut behind it goes on with a
certain student token, its *closing*. Tokens that carry mass are looked up one by one, in their context; the light
ones of a row are taken for their first student token by themselves (docs/mathematics.md, 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from crosstok.masses import Aggregator, Block, expand, shares
from crosstok.nodes import OUT, UNLIKELY
from crosstok.pair import BoolArray, Plan
from crosstok.prefixes import Prefixes
from crosstok.ragged import FloatArray, IntArray
from crosstok.undecided import log_masses

# Tokens with this share of a row are looked up one by one; of a range, those with so many times that share of it.
ROW_SHARE = 1e-5
_IN_RANGE = 10
# Rows of nodes with a smaller share of a position have only those tokens looked up that are heavy there.
_SIDE = 1e-2
# Ranges of up to so many tokens are looked at token by token.
_SHORT = 256
# A closing that is none: the text does not start with the student prefix, or a character leaves it open.
NO_TOKEN, OPEN = -1, -2


@dataclass(frozen=True, eq=False)
class Leaves:
    """Teacher prefixes, each a node with one more token, beyond s_1..s_i; arrays [leaves].

    node, token: int64; position: int64, of the batch's distributions, n + 1 a text. label: the next student token,
    `NO_TOKEN` or `OPEN`. certain: bool, no text of the prefix has another one. reads: bool, the student reads the text
    cut there as it is. mass: float64, its share of the
    upper bound of the position's probability.
    """

    node: IntArray
    token: IntArray
    position: IntArray
    label: IntArray
    certain: BoolArray
    reads: BoolArray
    mass: FloatArray

    @classmethod
    def join(cls, parts: Sequence[Leaves]) -> Leaves:
        """Several one after the other; at least one."""
        return cls(
            node=np.concatenate([part.node for part in parts]),
            token=np.concatenate([part.token for part in parts]),
            position=np.concatenate([part.position for part in parts]),
            label=np.concatenate([part.label for part in parts]),
            certain=np.concatenate([part.certain for part in parts]),
            reads=np.concatenate([part.reads for part in parts]),
            mass=np.concatenate([part.mass for part in parts]),
        )

    def where(self, which: IntArray | BoolArray) -> Leaves:
        """Some of them."""
        return Leaves(
            self.node[which],
            self.token[which],
            self.position[which],
            self.label[which],
            self.certain[which],
            self.reads[which],
            self.mass[which],
        )


@dataclass(frozen=True, eq=False)
class _Entries:
    """Tokens after nodes that reach beyond s_1..s_depth: arrays [entries], log_mass after the node."""

    node: IntArray
    token: IntArray
    depth: IntArray
    log_mass: FloatArray


@dataclass(frozen=True, eq=False)
class Heavy:
    """Heavy tokens of rows: arrays [entries], by node; log_mass: log q(token | node)."""

    node: IntArray
    token: IntArray
    log_mass: FloatArray

    def where(self, which: BoolArray) -> Heavy:
        """Some of them."""
        return Heavy(self.node[which], self.token[which], self.log_mass[which])


def look_up(
    plan: Plan,
    node: IntArray,
    token: IntArray,
    depth: IntArray,
    position: IntArray,
    mass: FloatArray,
    exact_from: float,
    threads: int,
) -> Leaves:
    """Leaves with their closings. exact_from: from this mass on both tokenizers are asked whether one is certain."""
    label, certain, reads = plan.closings(node, token, depth, num_threads=threads)
    open_ = np.flatnonzero(~certain & (mass >= exact_from))
    if len(open_):
        at = (node[open_], token[open_], depth[open_])
        label[open_], certain[open_], _ = plan.closings(*at, exact=True, num_threads=threads)
    return Leaves(node, token, position, label, certain, reads, mass)


class HeavyTap:
    """Keeps the heavy tokens of every row, end-of-text and what is not canonical left out."""

    def __init__(self, plan: Plan, row_share: float = ROW_SHARE) -> None:
        self.plan, self.row_share = plan, row_share
        self._parts = [Heavy(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        floor = (self.row_share / block.log_scale.exp())[:, None].to(block.share.dtype)
        heavy = ((block.share >= floor) & block.mask).nonzero().cpu().numpy()
        heavy = heavy[~np.isin(heavy[:, 1], self.plan.pair.teacher_eos)]
        log_mass = log_masses(block, heavy[:, 0], heavy[:, 1])
        self._parts.append(Heavy(block.nodes[heavy[:, 0]], heavy[:, 1], log_mass))

    def finish(self) -> Heavy:
        """All of them, by node."""
        node, token, log_mass = (
            np.concatenate([getattr(part, name) for part in self._parts])
            for name in ("node", "token", "log_mass")
        )
        order = np.argsort(node, kind="stable")
        return Heavy(node[order], token[order], log_mass[order])


class ClosingCollector:
    """Collects what a plan's rows say about next student tokens, while they stream by. The plan keeps boundaries."""

    def __init__(self, plan: Plan, width: int, row_share: float = ROW_SHARE) -> None:
        """row_share: tokens with this share of a row, at least, are looked up."""
        self.plan, self.width, self.row_share = plan, width, row_share
        self._range_share = row_share * _IN_RANGE
        self.beyond = plan.beyond()
        self._ptr = np.searchsorted(self.beyond.node, np.arange(len(plan.node_parent) + 1))
        self._exact = np.zeros(len(plan.node_parent), dtype=bool)
        self._exact[self.beyond.exact_node] = True
        self._first: torch.Tensor | None = None
        self._light: dict[int, torch.Tensor] = {}
        self.heavy = HeavyTap(plan, row_share)
        self._entries: list[_Entries] = []

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        self.heavy.add(aggregator, block)
        exact = np.flatnonzero(self._exact[block.nodes])
        if len(exact):
            self._add_rows(block, exact)
        self._add_ranges(aggregator, block)

    def _add_rows(self, block: Block, rows: IntArray) -> None:
        """Rows of nodes that end where a student token does: what is not heavy, by first token."""
        at = torch.from_numpy(rows).to(block.share.device)
        share = (block.share[at].double() * block.log_scale[at].exp()[:, None]).float()
        share[share >= self.row_share] = 0.0
        self._clear_unlikely(block, rows, share)
        light = torch.zeros(self.width + 2, len(rows), device=share.device)
        light.index_add_(0, self._first_token(block), share.T.contiguous())
        light = light[: self.width].T.cpu()
        self._light.update(zip(block.nodes[rows].tolist(), light, strict=True))

    def _clear_unlikely(self, block: Block, rows: IntArray, share: torch.Tensor) -> None:
        """Leave out the light tokens behind which the text would not start with the student prefix."""
        plan, nodes = self.plan, block.nodes[rows]
        row, ranges = expand(plan.range_ptr[nodes], plan.range_ptr[nodes + 1])
        kind, own = plan.range_kind[ranges], plan.range_depth[ranges] == plan.node_depth[nodes[row]]
        listed = own & ((kind == UNLIKELY) | (kind == OUT))
        row, ranges = row[listed], ranges[listed]
        owner, places = expand(plan.range_first[ranges], plan.range_last[ranges])
        at = torch.from_numpy(row[owner] * share.shape[1] + plan.order[places]).to(share.device)
        share.view(-1)[at] = 0.0

    def _first_token(self, block: Block) -> torch.Tensor:
        """int64 [V]: the first student token of each teacher token; width for none, width + 1 for special tokens."""
        if self._first is None:
            first, pair = np.full(block.share.shape[1], self.width + 1), self.plan.pair
            first[pair.order] = np.where(pair.first_tokens >= 0, pair.first_tokens, self.width)
            self._first = torch.from_numpy(first).to(block.share.device)
        return self._first

    def _add_ranges(self, aggregator: Aggregator, block: Block) -> None:
        """Tokens after earlier nodes that reach beyond a student token."""
        beyond = self.beyond
        rows, ranges = expand(self._ptr[block.nodes], self._ptr[block.nodes + 1])
        if not len(ranges):
            return
        first, last = beyond.first[ranges], beyond.last[ranges]
        total = aggregator.range_sums(block, rows, first, last)
        # Of a long range with some mass only what is heavy is taken out of its row, the others token by token.
        long = (last - first > _SHORT) & (total > np.log(1 / _IN_RANGE)) & (self.row_share > 0)
        few, many = np.flatnonzero(~long), np.flatnonzero(long)
        owner, places = expand(first[few], last[few])
        self._add_entries(block, rows, ranges, few[owner], self.plan.order[places], total)
        for i in many.tolist():
            order = self.plan.order[first[i] : last[i]]
            at = torch.from_numpy(order).to(block.share.device)
            floor = float(np.exp(total[i] - float(block.log_scale[rows[i]]))) * self._range_share
            hits = (block.share[int(rows[i]), at] >= floor).nonzero().flatten().cpu().numpy()
            self._add_entries(block, rows, ranges, np.full(len(hits), i), order[hits], total)

    def _add_entries(
        self,
        block: Block,
        rows: IntArray,
        ranges: IntArray,
        which: IntArray,
        token: IntArray,
        total: FloatArray,
    ) -> None:
        """Keep tokens of the ranges ``which`` that have a share of them."""
        log_mass = log_masses(block, rows[which], token)
        keep = (shares(log_mass, total[which]) >= self._range_share) & (log_mass > -np.inf)
        of = ranges[which[keep]]
        self._entries.append(
            _Entries(self.beyond.node[of], token[keep], self.beyond.depth[of], log_mass[keep])
        )

    def leaves(self, prefixes: Prefixes, rows: Heavy, exact_from: float, num_threads: int) -> Leaves:
        """Every heavy prefix beyond a student token, looked up, and the ends of texts. rows: what `heavy` has found.

        exact_from: as in `look_up`.
        """
        plan, beyond = self.plan, self.beyond
        first, last = (np.searchsorted(rows.node, beyond.exact_node, side=side) for side in ("left", "right"))
        of, entry = expand(first, last)
        depth = beyond.exact_depth[of]
        self._entries.append(_Entries(rows.node[entry], rows.token[entry], depth, rows.log_mass[entry]))
        node, token, depth, log_mass = (
            np.concatenate([getattr(entries, name) for entries in self._entries])
            for name in ("node", "token", "depth", "log_mass")
        )
        mass = self._share(prefixes, node, depth, log_mass)
        # What is not kept has no other place; of rows that matter little, only what is heavy there as well.
        exact = self._is_exact(node, depth)
        exact &= self._share(prefixes, node, depth, np.zeros(len(node))) >= _SIDE
        keep = np.flatnonzero((mass >= self.row_share) | exact)
        node, token, depth, mass = node[keep], token[keep], depth[keep], mass[keep]
        found = look_up(plan, node, token, depth, self.position(node, depth), mass, exact_from, num_threads)
        # The text that ends before it begins has no dummy prefix either.
        roots = np.flatnonzero((plan.node_parent < 0) & ~self._is_exact(np.arange(len(plan.node_parent)), 0))
        nodes = np.concatenate([beyond.exact_node, roots])
        depth = np.concatenate([beyond.exact_depth, np.zeros(len(roots), dtype=np.int64)])
        ends = self.position(nodes, depth)
        ending = plan.node_complete[nodes] & beyond.ends[ends]
        nodes, depth, ends = nodes[ending], depth[ending], ends[ending]
        eos = np.full(len(nodes), plan.pair.student_eos[0])
        mass = self._share(prefixes, nodes, depth, prefixes.masses.eos[nodes])
        no_token, sure = np.full(len(nodes), -1), np.ones(len(nodes), dtype=bool)
        return Leaves.join([found, Leaves(nodes, no_token, ends, eos, sure, sure, mass)])

    def _is_exact(self, node: IntArray, depth: IntArray | int) -> BoolArray:
        """bool: whether nodes end where s_1..s_depth does."""
        base = int(self.plan.node_depth.max(initial=0)) + 1
        return np.isin(node * base + depth, self.beyond.exact_node * base + self.beyond.exact_depth)

    def _share(self, prefixes: Prefixes, node: IntArray, depth: IntArray, log_mass: FloatArray) -> FloatArray:
        at = prefixes.first[self.plan.node_text[node]] + depth
        return shares(prefixes.log_q[node] + log_mass, prefixes.upper[at])

    def position(self, node: IntArray, depth: IntArray) -> IntArray:
        """int64: numbers of distributions, n + 1 a text."""
        text = self.plan.node_text[node]
        return self.plan.student_ptr[text] + text + depth

    def light_mass(self, prefixes: Prefixes) -> FloatArray:
        """float64 [positions]: the mass of light tokens, as a share."""
        node, depth = self.beyond.exact_node, self.beyond.exact_depth
        mass = np.array([float(self._light[n].sum(dtype=torch.float64)) for n in node.tolist()])
        share = self._share(prefixes, node, depth, np.zeros(len(node))) * mass
        return np.bincount(self.position(node, depth), share, len(self.beyond.ends)).astype(np.float64)

    def light(self, prefixes: Prefixes, text: int) -> torch.Tensor:
        """float32 [n + 1, width]: the light tokens of a text's rows, as shares of their positions; frees them."""
        plan = self.plan
        count = int(plan.student_ptr[text + 1] - plan.student_ptr[text]) + 1
        out = torch.zeros(count, self.width)
        lo, hi = np.searchsorted(self.beyond.exact_node, plan.node_ptr[text : text + 2]).tolist()
        nodes, depths = self.beyond.exact_node[lo:hi], self.beyond.exact_depth[lo:hi]
        weights = self._share(prefixes, nodes, depths, np.zeros(hi - lo)).tolist()
        for node, depth, weight in zip(nodes.tolist(), depths.tolist(), weights, strict=True):
            out[depth].add_(self._light[node], alpha=weight)
        for node in set(nodes.tolist()):
            del self._light[node]
        return out
