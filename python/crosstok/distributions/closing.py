"""The closing estimate: which student token comes next, if texts were cut behind each teacher token.

In the regime "general" a teacher token u after a node reaches beyond s_1..s_i; the text cut behind it goes on with a
certain student token, its *closing*. Tokens that carry mass are looked up one by one, in their context; the light
ones of a row are taken for their first student token by themselves (docs/mathematics.md, 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from crosstok.distributions.light import Light
from crosstok.distributions.ranges import Ranges
from crosstok.masses.aggregator import Aggregator, Block, expand, log_sum, shares
from crosstok.masses.prefixes import Prefixes
from crosstok.masses.undecided import log_masses
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray

# Tokens with this share of a row, or of a range, are looked up one by one. (With 1e-5 of a row look-ups take twice as
# long: SmolLM2 -> Gemma 3, 1.3 of the 5 s of 627 positions, for a mean undecided mass of 0.384 instead of 0.388, and a
# mean total variation of 0.0045 instead of 0.0052. That was of rows; for ranges, a tenth made no difference to either.)
ROW_SHARE = 1e-4
# Rows of nodes with a smaller share of a position have only those tokens looked up that are heavy there.
SIDE = 1e-2
# Ranges of up to so many tokens, or with no more than this share of a row, are looked at token by token.
_SHORT, _WEAK = 256, 0.1
# There exponentials, which are rounded, say which tokens may be heavy, and logarithms which are.
_LOWER = 0.999
# A difference of masses below this share of them is rounding: light mass is summed in float32.
_ROUNDING = 1e-6
# Sums of a row's shares are right to so many times the precision of these.
_SUM_ERROR = 4.0
# A closing that is none: the text does not start with the student prefix, or a character leaves it open, or it starts
# with that and no student token comes next (the mass is inadmissible, or "mask" has removed it).
NO_TOKEN, OPEN, LOST = -1, -2, -3


@dataclass(frozen=True, eq=False)
class Leaves:
    """Teacher prefixes, each a node with one more token, beyond s_1..s_i; arrays [leaves].

    node, token: int64; position: int64, of the batch's distributions, n + 1 a text. label: the next student token,
    `NO_TOKEN`, `OPEN` or `LOST`. certain: bool, no text of the prefix has another one. reads: bool, the student reads
    the text cut there as it is. mass: float64, its share of the upper bound of the position's probability. inside:
    bool, it comes after a prefix that is in, so that it is lost where it has no next token.
    """

    node: IntArray
    token: IntArray
    position: IntArray
    label: IntArray
    certain: BoolArray
    reads: BoolArray
    mass: FloatArray
    inside: BoolArray

    @classmethod
    def join(cls, parts: Sequence[Leaves]) -> Leaves:
        """Several one after the other; at least one."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def where(self, which: IntArray | BoolArray) -> Leaves:
        """Some of them."""
        return Leaves(*(getattr(self, f.name)[which] for f in fields(self)))


@dataclass(frozen=True, eq=False)
class _Entries:
    """Tokens after nodes that reach beyond s_1..s_depth: arrays [entries], log_mass after the node."""

    node: IntArray
    token: IntArray
    depth: IntArray
    log_mass: FloatArray

    @classmethod
    def join(cls, parts: Sequence[_Entries]) -> _Entries:
        """Several one after the other; at least one."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True, eq=False)
class Heavy:
    """Heavy tokens of rows. node: int64 [rows], rising; ptr: int64 [rows + 1], into the entries; token: int32
    [entries]; log_mass: float64 [entries], log q(token | node).

    Thousands of entries a row are kept for as long as the row may be asked for again: as small as they can be.
    """

    node: IntArray
    ptr: IntArray
    token: npt.NDArray[np.int32]
    log_mass: FloatArray

    def after(self, node: IntArray) -> tuple[IntArray, IntArray]:
        """The entries after nodes, int64 [k]: which of the nodes, and which entry."""
        return expand(*self._bounds(node))

    def shares(
        self, node: IntArray, mass: FloatArray, least: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Tokens after nodes: which of the nodes, token, and its mass where the node has ``mass``; arrays [entries].

        node, mass, least: [k]. Only tokens with any mass, and with ``least`` of it or more. Row by row, so that no
        array is as long as all that rows have.
        """
        tokens, masses = [], []
        bounds = (x.tolist() for x in (*self._bounds(node), mass, least))
        for lo, hi, whole, floor in zip(*bounds, strict=True):
            share = whole * np.exp(self.log_mass[lo:hi])
            keep = (share >= floor) & (share > 0)
            tokens.append(self.token[lo:hi][keep])
            masses.append(share[keep])
        owner = np.repeat(np.arange(len(node)), [len(token) for token in tokens])
        token = np.concatenate([*tokens, np.zeros(0, dtype=np.int32)]).astype(np.int64)
        return owner, token, np.concatenate([*masses, np.zeros(0)])

    def _bounds(self, node: IntArray) -> tuple[IntArray, IntArray]:
        """Where the entries after nodes begin and end; of nodes that are not there, nowhere."""
        at = np.searchsorted(self.node, node)
        there = np.append(self.node, -1)[at] == node
        first = self.ptr[at]
        return first, np.where(there, np.append(self.ptr, 0)[at + 1], first)


def look_up(
    plan: Plan,
    node: IntArray,
    token: IntArray,
    depth: IntArray,
    position: IntArray,
    mass: FloatArray,
    exact_from: float,
    threads: int,
    inside: BoolArray,
) -> Leaves:
    """Leaves with their closings. exact_from: from this mass on both tokenizers are asked whether one is certain."""
    label, certain, reads = plan.closings(node, token, depth, num_threads=threads)
    open_ = np.flatnonzero(~certain & (mass >= exact_from))
    if len(open_):
        at = (node[open_], token[open_], depth[open_])
        label[open_], certain[open_], _ = plan.closings(*at, exact=True, num_threads=threads)
    label[certain & (label == NO_TOKEN) & inside] = LOST
    return Leaves(node, token, position, label, certain, reads, mass, inside)


class HeavyTap:
    """Keeps the heavy tokens of every row, end-of-text and what is not canonical left out."""

    def __init__(self, plan: Plan, row_share: float = ROW_SHARE) -> None:
        self.plan, self.row_share = plan, row_share
        self._parts: list[Heavy] = []

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        floor = (self.row_share / block.log_scale.exp())[:, None].to(block.share.dtype)
        row, token = ((block.share >= floor) & block.mask).nonzero().cpu().numpy().T
        kept = ~np.isin(token, self.plan.pair.teacher_eos)
        row, token = row[kept], token[kept]
        ptr = np.searchsorted(row, np.arange(len(block.nodes) + 1))
        log_mass = log_masses(block, row, token)
        self._parts.append(Heavy(block.nodes, ptr, token.astype(np.int32), log_mass))

    def finish(self) -> Heavy:
        """All of them, by node."""
        none = np.zeros(0, dtype=np.int64)
        parts = [Heavy(none, np.zeros(1, dtype=np.int64), none.astype(np.int32), np.zeros(0)), *self._parts]
        node, token, log_mass = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("node", "token", "log_mass")
        )
        size = np.concatenate([np.diff(part.ptr) for part in parts])
        ptr = np.append(0, np.cumsum(size))
        order = np.argsort(node, kind="stable")
        if (order[1:] < order[:-1]).any():
            entries = expand(ptr[order], ptr[order + 1])[1]
            node, token, log_mass = node[order], token[entries], log_mass[entries]
            ptr = np.append(0, np.cumsum(size[order]))
        return Heavy(node, ptr, token, log_mass)


class ClosingCollector:
    """Collects what a plan's rows say about next student tokens, while they stream by. The plan keeps boundaries.

    row_share: tokens with this share of a row, at least, are looked up. keep: as in `Light`.
    """

    def __init__(
        self,
        plan: Plan,
        row_share: float = ROW_SHARE,
        keep: int | None = None,
    ) -> None:
        self.plan, self.row_share = plan, row_share
        self.beyond = plan.beyond()
        self.ranges = Ranges.of(plan, self.beyond)
        self.range_ptr = np.searchsorted(self.ranges.node, np.arange(len(plan.node_parent) + 1))
        self.range_total = np.full(len(self.ranges.node), -np.inf)
        self._exact = np.zeros(len(plan.node_parent), dtype=bool)
        self._exact[self.beyond.exact_node] = True
        self.light = Light(plan, row_share, keep)
        self.heavy = HeavyTap(plan, row_share)
        self.entries: list[_Entries] = []
        self._precision = 0.0

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        self._precision = torch.finfo(block.share.dtype).eps
        self.heavy.add(aggregator, block)
        exact = np.flatnonzero(self._exact[block.nodes])
        if len(exact):
            self.light.add(block, exact)
        self._add_ranges(aggregator, block)

    def _add_ranges(self, aggregator: Aggregator, block: Block) -> None:
        """Tokens after earlier nodes that reach beyond a student token."""
        known = self.ranges
        rows, ranges = expand(self.range_ptr[block.nodes], self.range_ptr[block.nodes + 1])
        if not len(ranges):
            return
        of, parts = expand(known.ptr[ranges], known.ptr[ranges + 1])
        first, last = known.first[parts], known.last[parts]
        total = log_sum(aggregator.range_sums(block, rows[of], first, last), of, len(ranges))
        self.range_total[ranges] = total
        # Of a long range with some mass only what is heavy is taken out of its row, the others token by token.
        size = np.bincount(of, last - first, len(ranges))
        long = (size > _SHORT) & (total > np.log(_WEAK)) & (self.row_share > 0)
        few = np.flatnonzero(~long[of])
        owner, places = expand(first[few], last[few])
        self._add_entries(block, rows, ranges, of[few][owner], self.plan.order[places], total)
        for i in np.flatnonzero(long).tolist():
            order = self.plan.order[known.places(int(ranges[i]))]
            at = torch.from_numpy(order).to(block.share.device)
            floor = float(np.exp(total[i] - float(block.log_scale[rows[i]]))) * self.row_share
            hits = (block.share[int(rows[i]), at] >= floor * _LOWER).nonzero().flatten().cpu().numpy()
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
        """Keep tokens of the ranges ``which`` that are heavy there."""
        log_mass = log_masses(block, rows[which], token)
        keep = self.is_heavy(log_mass, total[which])
        of = ranges[which[keep]]
        self.entries.append(
            _Entries(self.ranges.node[of], token[keep], self.ranges.depth[of], log_mass[keep])
        )

    def is_heavy(self, log_mass: FloatArray, total: FloatArray) -> BoolArray:
        """bool: which tokens have a share of their ranges' ``total``, in logarithms both: the others are light."""
        found: BoolArray = (shares(log_mass, total) >= self.row_share) & (log_mass > -np.inf)
        return found

    def leaves(self, prefixes: Prefixes, rows: Heavy, exact_from: float, num_threads: int) -> Leaves:
        """Every heavy prefix beyond a student token, looked up. rows: what `heavy` has found.

        exact_from: as in `look_up`.
        """
        plan, beyond = self.plan, self.beyond
        of, entry = rows.after(beyond.exact_node)
        node, token = beyond.exact_node[of], rows.token[entry].astype(np.int64)
        self.entries.append(_Entries(node, token, beyond.exact_depth[of], rows.log_mass[entry]))
        entries = _Entries.join(self.entries)
        node, token, depth = entries.node, entries.token, entries.depth
        mass = self.share(prefixes, node, depth, entries.log_mass)
        # What is not kept has no other place; of rows that matter little, only what is heavy there as well.
        exact = self.is_exact(node, depth)
        exact &= self.share(prefixes, node, depth, np.zeros(len(node))) >= SIDE
        keep = np.flatnonzero((mass >= self.row_share) | exact)
        node, token, depth, mass = node[keep], token[keep], depth[keep], mass[keep]
        at = self.position(node, depth)
        # Before the first token everything is in, also behind a root that is no exact node.
        inside = self.is_exact(node, depth, beyond.exact_in) | (depth == 0)
        found = look_up(plan, node, token, depth, at, mass, exact_from, num_threads, inside)
        # What comes after a prefix that may be in is not certainly out.
        doubtful = (found.label == NO_TOKEN) & self.is_exact(node, depth, beyond.exact_given_up)
        found.label[doubtful], found.certain[doubtful] = OPEN, False
        return found

    def ends(self, prefixes: Prefixes) -> Leaves:
        """Texts that end with s_1..s_i, for each i that they do."""
        plan, beyond = self.plan, self.beyond
        # The text that ends before it begins has no dummy prefix either.
        roots = self._other_roots()
        node = np.concatenate([beyond.exact_node, roots])
        depth = np.concatenate([beyond.exact_depth, np.zeros(len(roots), dtype=np.int64)])
        ending = plan.node_complete[node] & beyond.ends[self.position(node, depth)]
        node, depth = node[ending], depth[ending]
        eos = np.full(len(node), plan.pair.student_eos[0])
        mass = self.share(prefixes, node, depth, prefixes.masses.eos[node])
        return self._settled(node, depth, eos, mass)

    def _other_roots(self) -> IntArray:
        """Roots that end before the text begins: what comes first is the teacher's dummy prefix."""
        roots = np.flatnonzero(self.plan.node_parent < 0)
        found: IntArray = roots[~self.is_exact(roots, 0)]
        return found

    def lost(self, prefixes: Prefixes, total: FloatArray) -> Leaves:
        """What nodes that end where a student token does, and are in, have, and goes to no next token; open where it
        was not found out whether they are in.

        total: float64 [nodes], what a row sums to.
        """
        beyond, roots = self.beyond, self._other_roots()
        some = beyond.exact_in | beyond.exact_given_up
        node = np.concatenate([beyond.exact_node[some], roots])
        depth = np.concatenate([beyond.exact_depth[some], np.zeros(len(roots), dtype=np.int64)])
        inside = np.append(beyond.exact_in[some], np.ones(len(roots), dtype=bool))
        # Their texts that the student does not read as they are.
        unread = self.plan.node_complete[node] & ~self.beyond.ends[self.position(node, depth)]
        log_missing = np.log(np.maximum(1.0 - total[node], 1e-300))
        log_missing[total[node] >= 1.0] = -np.inf
        eos = np.where(unread, prefixes.masses.eos[node], -np.inf)
        mass = self.share(prefixes, node, depth, np.logaddexp(log_missing, eos))
        found = self._settled(node, depth, np.where(inside, LOST, OPEN), mass)
        return replace(found, certain=inside).where(mass > 0)

    def dropped(self, prefixes: Prefixes, total: FloatArray, leaves: Leaves) -> tuple[Leaves, FloatArray]:
        """What is in none of the ``leaves`` that there are, nor light nor at an end, as a leaf for each position.

        Also float64 [positions], what may be hidden by the rounding of sums that seem to leave nothing.
        """
        beyond, ranges, count = self.beyond, self.ranges, len(self.beyond.ends)
        node, depth = beyond.exact_node, beyond.exact_depth
        with np.errstate(divide="ignore"):
            going_on = np.log(np.maximum(total[node] - np.exp(prefixes.masses.eos[node]), 0.0))
        mass = self.share(prefixes, node, depth, going_on)
        all_ = np.bincount(self.position(node, depth), mass, count)
        mass = self.share(prefixes, ranges.node, ranges.depth, self.range_total)
        all_ = all_ + np.bincount(self.position(ranges.node, ranges.depth), mass, count)
        left = all_ - self.light_mass(prefixes) - np.bincount(leaves.position, leaves.mass, count)
        seen = left > _ROUNDING * all_
        hidden = np.maximum(np.where(seen, 0.0, left), _SUM_ERROR * self._precision * all_)
        some = np.flatnonzero(seen)
        none, no = np.full(len(some), -1), np.zeros(len(some), dtype=bool)
        return Leaves(none, none, some, np.full(len(some), OPEN), no, no, left[some], no), hidden

    def _settled(self, node: IntArray, depth: IntArray, label: IntArray, mass: FloatArray) -> Leaves:
        """Leaves without a row of their own, certain."""
        none, sure = np.full(len(node), -1), np.ones(len(node), dtype=bool)
        return Leaves(node, none, self.position(node, depth), label, sure, sure, mass, sure)

    def is_exact(self, node: IntArray, depth: IntArray | int, which: BoolArray | None = None) -> BoolArray:
        """bool: whether nodes end where s_1..s_depth does. which: of `Beyond`'s nodes those that count, None: all."""
        base, beyond = int(self.plan.node_depth.max(initial=0)) + 1, self.beyond
        keys = beyond.exact_node * base + beyond.exact_depth
        return np.isin(node * base + depth, keys if which is None else keys[which])

    def share(self, prefixes: Prefixes, node: IntArray, depth: IntArray, log_mass: FloatArray) -> FloatArray:
        """float64: what comes after nodes, as shares of the upper bounds of P(s_1..s_depth)."""
        at = prefixes.first[self.plan.node_text[node]] + depth
        return shares(prefixes.log_q[node] + log_mass, prefixes.upper[at])

    def position(self, node: IntArray, depth: IntArray) -> IntArray:
        """int64: numbers of distributions, n + 1 a text."""
        text = self.plan.node_text[node]
        return self.plan.student_ptr[text] + text + depth

    def light_mass(self, prefixes: Prefixes) -> FloatArray:
        """float64 [positions]: the mass of light tokens, as a share."""
        node, depth = self.beyond.exact_node, self.beyond.exact_depth
        mass = self.share(prefixes, node, depth, np.zeros(len(node))) * self.light.mass[node]
        return np.bincount(self.position(node, depth), mass, len(self.beyond.ends)).astype(np.float64)

    def exact_nodes(self, prefixes: Prefixes, text: int) -> tuple[IntArray, IntArray, FloatArray]:
        """The nodes of a text that end where a student token does: node, depth, share of the position."""
        lo, hi = np.searchsorted(self.beyond.exact_node, self.plan.node_ptr[text : text + 2]).tolist()
        node, depth = self.beyond.exact_node[lo:hi], self.beyond.exact_depth[lo:hi]
        return node, depth, self.share(prefixes, node, depth, np.zeros(hi - lo))
