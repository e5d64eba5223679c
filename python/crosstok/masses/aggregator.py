"""From teacher rows to masses: what a row gives to its children, to ranges of tokens, and to end-of-text.

Rows come as logits of any scale. Each is masked to its canonical entries and renormalised over them (`canonical=
"renormalize"`) or over all entries (`"mask"`); docs/mathematics.md, 7 and 8. Sums are in float64, and a sum that
exponentials could have lost is taken again from the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from crosstok.errors import TeacherError
from crosstok.masses.nodes import Nodes
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray

# Below these shares of a row's maximum, exponentials may have been flushed to zero or lost digits.
FAINT = {torch.float32: 1e-30, torch.float64: 1e-290}
# Below this share of the row's mass the canonical entries are summed again on their own scale.
_LOG_THIN_ROW = float(np.log(1e-6))
# What is left of a row is the row less what is listed; below this share of the row it is summed entry by entry, since
# the difference has an error of some 1e-15 of the row.
_SMALL_REST = 1e-6
# Shares are no larger than e to this.
_LARGEST = 700.0
# Ranges of more tokens than this are summed by running sums over the row, which take about this much memory at a time.
_LONG = 64
RUNNING_BYTES = 16 << 20


@dataclass(eq=False)
class Masses:
    """What all rows of a plan (or of an extension) amount to; float64, natural logarithms, −inf where there is no mass.

    kept: [nodes], share of a node's mass that is canonical (κ, no logarithm). dead: bool [nodes], there is none at all.
    edge: [nodes], log q(token | parent), 0 at roots, not known in an extension. ranges: [ranges], log of the mass of
    each range after its node. whole: [wholes], log of the mass that is in, of each whole row (`Nodes`). eos: [nodes],
    of end-of-text after a node, −inf where the text may not end. seen: bool [nodes], the row was read.
    """

    kept: FloatArray
    dead: npt.NDArray[np.bool_]
    edge: FloatArray
    ranges: FloatArray
    whole: FloatArray
    eos: FloatArray
    seen: npt.NDArray[np.bool_] = field(repr=False)

    @classmethod
    def empty(cls, nodes: Nodes) -> Masses:
        """Nothing known yet."""
        count, no = len(nodes), np.zeros(len(nodes), dtype=bool)
        edge = np.where(nodes.parent < 0, 0.0, -np.inf)
        ranges, whole = np.full(len(nodes.range_node), -np.inf), np.full(len(nodes.whole_node), -np.inf)
        return cls(np.zeros(count), no, edge, ranges, whole, np.full(count, -np.inf), no.copy())


@dataclass(eq=False)
class Block:
    """Rows after `prepare`: share[r, t] · exp(log_scale[r]) is q(t | node r), zero where t is not canonical.

    nodes: int64 [k]. Tensors are on the device of the logits.
    """

    nodes: IntArray
    share: torch.Tensor
    """float32 or float64 [k, V]: canonical entries over the row's maximum (over their own, where that is far below)."""
    log_scale: torch.Tensor
    """float64 [k]: log of what one unit of share is worth."""
    logits: torch.Tensor
    """[k, V], in the dtype of share: relative to the row's maximum, over temperature; not masked."""
    log_norm: torch.Tensor
    """float64 [k]: log of the normaliser on the scale of the logits; +inf where a row has no canonical mass."""
    mask: torch.Tensor
    """bool [k, V]: canonical entries, end-of-text among them."""
    total: torch.Tensor
    """float64 [k]: the sum of each row of share."""


class Workspace:
    """Memory for one block of rows, taken once.

    Without it some 50 MB would come and go with each block, and what a model allocates in between (keys and values,
    which stay) would leave the heap in pieces: 0.5 GB more after 1,600 tokens.
    """

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def get(self, name: str, rows: torch.Tensor, dtype: torch.dtype, host: bool = False) -> torch.Tensor:
        """A tensor of the shape of ``rows``, on its device or the host's; valid until it is asked for again."""
        kept, device = self._kept.get(name), torch.device("cpu") if host else rows.device
        fits = kept is not None and kept.shape[0] >= rows.shape[0] and kept.shape[1:] == rows.shape[1:]
        if kept is None or not fits or (kept.dtype, kept.device) != (dtype, device):
            kept = self._kept[name] = torch.empty(rows.shape, dtype=dtype, device=device)
        return kept[: rows.shape[0]]

    def copy(self, name: str, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A copy of ``rows``, likewise."""
        return self.get(name, rows, dtype).copy_(rows)


class Aggregator:
    """Turns blocks of rows into `Masses`. One for each plan and each extension; not to be shared between threads.

    A block's tensors are valid until the next block is added.
    """

    def __init__(
        self,
        nodes: Nodes,
        canonical: str,
        temperature: float,
        num_threads: int,
        space: Workspace | None = None,
    ) -> None:
        """space: memory to go on with, of an aggregator that is done."""
        self.nodes, self.canonical, self.temperature = nodes, canonical, temperature
        self.num_threads = num_threads
        self.masses = Masses.empty(nodes)
        self.space = Workspace() if space is None else space
        self._tokens = nodes.plan.order

    @property
    def plan(self) -> Plan:
        """The plan of the nodes."""
        return self.nodes.plan

    def add(self, nodes: IntArray, logits: torch.Tensor, exact: bool = False) -> Block:
        """Take in the rows of ``nodes``, int64 [k]; logits [k, V] of any float dtype, each row up to a constant.

        exact: exponentials in float64 whatever the logits are. Raises TeacherError, naming the text, for NaN and +inf.
        """
        block = self.prepare(nodes, logits, exact)
        self._edges(block)
        self._ranges(block)
        self.masses.seen[nodes - self.nodes.first] = True
        return block

    def prepare(self, nodes: IntArray, logits: torch.Tensor, exact: bool) -> Block:
        """Mask and normalise rows; fills in `Masses.kept`, `Masses.dead` and `Masses.eos`."""
        double = exact or logits.dtype == torch.float64
        logits = self.space.copy("logits", logits, torch.float64 if double else torch.float32)
        top = logits.amax(dim=1, keepdim=True)
        bad = torch.isnan(top) | torch.isposinf(top)
        if bool(bad.any()):
            first = int(bad.flatten().nonzero()[0, 0])
            text = self.nodes.text[nodes[first] - self.nodes.first]
            raise TeacherError("a teacher row holds NaN or +inf", int(text))
        # Relative to the maximum before anything else, so that no temperature overflows.
        logits -= torch.where(torch.isneginf(top), torch.zeros_like(top), top)
        if self.temperature != 1.0:
            logits /= self.temperature
        mask = self._mask(nodes, logits)
        share = torch.exp(logits, out=self.space.get("share", logits, logits.dtype))
        log_full = self._row_sums(share).log()
        share *= mask
        total = self._row_sums(share)
        unit = self._rescue_thin_rows(logits, mask, share, total, log_full)
        log_norm = self._keep(nodes, logits, log_full, total.log() + unit)
        return Block(nodes, share, unit - log_norm, logits, log_norm, mask, total)

    def _keep(
        self, nodes: IntArray, logits: torch.Tensor, log_full: torch.Tensor, log_canonical: torch.Tensor
    ) -> torch.Tensor:
        """Note what is canonical of each row, and end-of-text; give the log of the normaliser, float64 [k]."""
        at = nodes - self.nodes.first
        dead = torch.isneginf(log_canonical)
        log_norm = log_canonical if self.canonical == "renormalize" else log_full
        log_norm = torch.where(dead, torch.full_like(log_norm, torch.inf), log_norm)
        self.masses.dead[at] = dead.cpu().numpy()
        kept = torch.where(dead, torch.zeros_like(log_full), (log_canonical - log_full).exp())
        self.masses.kept[at] = _numpy(kept)
        eos = logits[:, list(self.plan.pair.teacher_eos)].double().logsumexp(dim=1) - log_norm
        complete = torch.from_numpy(self.nodes.complete[at]).to(eos.device)
        self.masses.eos[at] = _numpy(torch.where(complete, eos, torch.full_like(eos, -torch.inf)))
        return log_norm

    def _row_sums(self, rows: torch.Tensor) -> torch.Tensor:
        """float64 [k]. Converted first: the reduction that torch has for mixed types takes twice as long."""
        double = rows if rows.dtype == torch.float64 else self.space.copy("double", rows, torch.float64)
        return double.sum(dim=1)

    def _mask(self, nodes: IntArray, logits: torch.Tensor) -> torch.Tensor:
        flags = self.space.get("mask", logits, torch.bool, host=True)
        self.plan.masks(nodes, logits.shape[1], self.num_threads, flags.numpy())
        complete = torch.from_numpy(self.nodes.complete[nodes - self.nodes.first])
        flags[:, list(self.plan.pair.teacher_eos)] = complete[:, None]
        return flags.to(logits.device)

    def _rescue_thin_rows(
        self,
        logits: torch.Tensor,
        mask: torch.Tensor,
        share: torch.Tensor,
        total: torch.Tensor,
        log_full: torch.Tensor,
    ) -> torch.Tensor:
        """Put rows with next to no canonical mass, and their totals, on the scale of their own maximum (in place).

        Gives float64 [k]: the log of that scale, 0 for all other rows.
        """
        unit = torch.zeros_like(total)
        for row in torch.nonzero(total.log() < log_full + _LOG_THIN_ROW).flatten().tolist():
            own = torch.where(mask[row], logits[row], torch.full_like(logits[row], -torch.inf))
            peak = own.max()
            if torch.isneginf(peak):
                continue
            share[row] = (own - peak).exp()
            unit[row] = peak
            total[row] = share[row].sum(dtype=torch.float64)
        return unit

    def _edges(self, block: Block) -> None:
        """Log-probabilities of the nodes below these rows."""
        below, ptr = self.nodes.children
        if not len(below):
            return
        rows, children = expand(ptr[block.nodes], ptr[block.nodes + 1])
        children = below[children]
        at = torch.from_numpy(rows).to(block.logits.device)
        tokens = torch.from_numpy(self.plan.node_token[children]).to(block.logits.device)
        edge = block.logits[at, tokens].double() - block.log_norm[at]
        self.masses.edge[children] = _numpy(edge)

    def _ranges(self, block: Block) -> None:
        nodes, at = self.nodes, block.nodes - self.nodes.first
        rows, ranges = expand(nodes.range_ptr[at], nodes.range_ptr[at + 1])
        sums = np.zeros(len(ranges))
        if len(ranges):
            first, last = nodes.range_first[ranges], nodes.range_last[ranges]
            sums, self.masses.ranges[ranges] = self._range_sums(block, rows, first, last)
        if len(nodes.whole_node):
            self._whole_rows(block, ranges, sums)

    def range_sums(self, block: Block, rows: IntArray, first: IntArray, last: IntArray) -> FloatArray:
        """Log of the mass of places ``first..last`` of rows (int64 [ranges], rows rising); float64 [ranges]."""
        return self._range_sums(block, rows, first, last)[1]

    def _range_sums(
        self, block: Block, rows: IntArray, first: IntArray, last: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Sums of shares over ranges of places, and their log masses: long ranges as differences of running sums."""
        linear, log_mass = np.zeros(len(rows)), np.full(len(rows), -np.inf)
        long = np.flatnonzero(last - first > _LONG)
        if len(long):
            linear[long] = self._long_sums(block, rows[long], first[long], last[long])
            with np.errstate(divide="ignore"):
                log_mass[long] = np.log(linear[long]) + _numpy(block.log_scale)[rows[long]]
        total = _numpy(block.total)[rows]
        short = np.flatnonzero((last - first <= _LONG) | (linear < _SMALL_REST * total))
        inside, places = expand(first[short], last[short])
        sums = self._sums(block, rows[short][inside], places, inside, len(short), rows[short])
        linear[short], log_mass[short] = sums
        return linear, log_mass

    def _long_sums(self, block: Block, rows: IntArray, first: IntArray, last: IntArray) -> FloatArray:
        """float64 [ranges]: sums of shares over ranges of places, rows rising."""
        device, sums = block.share.device, np.zeros(len(rows))
        order = torch.from_numpy(self._tokens).to(device)
        used, of = np.unique(rows, return_inverse=True)
        step = max(1, RUNNING_BYTES // (8 * len(self._tokens)))
        for lo in range(0, len(used), step):
            some = block.share[torch.from_numpy(used[lo : lo + step]).to(device)]
            running = some[:, order].double().cumsum(dim=1)
            which = np.flatnonzero((of >= lo) & (of < lo + step))
            row, to = (torch.from_numpy(x[which]).to(device) for x in (of - lo, last))
            before = torch.from_numpy(first[which]).to(device)
            begin = torch.where(before > 0, running[row, (before - 1).clamp(min=0)], 0.0)
            sums[which] = _numpy(running[row, to - 1] - begin)
        return sums

    def _whole_rows(self, block: Block, ranges: IntArray, sums: FloatArray) -> None:
        """What is in of whole rows: all that the rows' ranges, whose sums these are, do not list."""
        nodes, at = self.nodes, block.nodes - self.nodes.first
        rows, wholes = expand(nodes.whole_ptr[at], nodes.whole_ptr[at + 1])
        of = nodes.range_whole[ranges]
        listed = np.bincount(of[of >= 0], sums[of >= 0], len(nodes.whole_node))[wholes]
        ends = block.share[:, list(self.plan.pair.teacher_eos)].sum(dim=1, dtype=torch.float64)
        total = _numpy(block.total)[rows]
        left = total - _numpy(ends)[rows] - listed
        with np.errstate(divide="ignore"):
            log_in = np.log(np.maximum(left, 0.0)) + _numpy(block.log_scale)[rows]
        small = np.flatnonzero(left < _SMALL_REST * total)
        if len(small):
            log_in[small] = self._rests(block, rows[small], wholes[small])
        eos = np.where(nodes.whole_end[wholes], self.masses.eos[at[rows]], -np.inf)
        self.masses.whole[wholes] = np.logaddexp(log_in, eos)

    def _rests(self, block: Block, rows: IntArray, wholes: IntArray) -> FloatArray:
        """float64 [wholes]: log of what the ranges of whole rows do not list, summed entry by entry."""
        nodes, out = self.nodes, np.empty(len(wholes))
        for i, whole in enumerate(wholes.tolist()):  # one by one: each may have the whole vocabulary
            free, node = np.ones(len(self._tokens), dtype=bool), int(nodes.whole_node[whole]) - nodes.first
            for r in range(int(nodes.range_ptr[node]), int(nodes.range_ptr[node + 1])):
                if nodes.range_whole[r] == whole:
                    free[nodes.range_first[r] : nodes.range_last[r]] = False
            places = np.flatnonzero(free)
            row, group = np.full(len(places), rows[i]), np.zeros(len(places), dtype=np.int64)
            out[i] = self.sum_groups(block, row, places, group, 1, rows[i : i + 1])[0]
        return out

    def sum_groups(
        self, block: Block, rows: IntArray, places: IntArray, group: IntArray, groups: int, row_of: IntArray
    ) -> FloatArray:
        """Log of the mass of groups of entries: rows, places, group [entries]; row_of [groups]; float64 [groups]."""
        return self._sums(block, rows, places, group, groups, row_of)[1]

    def _sums(
        self, block: Block, rows: IntArray, places: IntArray, group: IntArray, groups: int, row_of: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """The same, after the sums of shares."""
        device = block.share.device
        flat = torch.from_numpy(rows * block.share.shape[1] + self._tokens[places]).to(device)
        values = block.share.reshape(-1)[flat].double()
        at = torch.from_numpy(group).to(device)
        sums = torch.zeros(groups, dtype=torch.float64, device=device).index_add_(0, at, values)
        log_mass = _numpy(sums.log() + block.log_scale[torch.from_numpy(row_of).to(device)])
        linear = _numpy(sums)
        faint = linear < FAINT[block.share.dtype]
        if faint.any():
            entries = np.flatnonzero(faint[group])
            again = self._log_sums(block, flat[torch.from_numpy(entries).to(device)], group[entries], groups)
            log_norm = _numpy(block.log_norm)[row_of[faint]]
            log_mass[faint] = again[faint] - log_norm
        return linear, log_mass

    @staticmethod
    def _log_sums(block: Block, flat: torch.Tensor, group: IntArray, groups: int) -> FloatArray:
        """Sums of groups from the logits, where exponentials may have been lost; −inf if no entry is canonical."""
        canonical = block.mask.reshape(-1)[flat]
        logits = _numpy(block.logits.reshape(-1)[flat[canonical]])
        return log_sum(logits, group[canonical.cpu().numpy()], groups)


def log_sum(values: FloatArray, group: IntArray, groups: int) -> FloatArray:
    """Log of the sum of exp(values) in each group; −inf for an empty one."""
    top = np.full(groups, -np.inf)
    np.maximum.at(top, group, values)
    weights = shares(values, top[group])
    with np.errstate(divide="ignore"):
        logs: FloatArray = top + np.log(np.bincount(group, weights, groups))
    return logs


def shares(values: FloatArray, of: FloatArray) -> FloatArray:
    """exp(values − of), zero where either is −inf, and finite."""
    possible = (values > -np.inf) & (of > -np.inf)
    out = np.zeros(len(values))
    out[possible] = np.exp(np.minimum(values[possible] - of[possible], _LARGEST))
    return out


def expand(first: IntArray, last: IntArray) -> tuple[IntArray, IntArray]:
    """All numbers of several ranges, and which range each is from."""
    size = last - first
    owner = np.repeat(np.arange(len(first)), size)
    start = np.cumsum(size) - size
    return owner, np.arange(int(size.sum())) - start[owner] + first[owner]


def _numpy(tensor: torch.Tensor) -> FloatArray:
    array: FloatArray = tensor.double().cpu().numpy()
    return array
