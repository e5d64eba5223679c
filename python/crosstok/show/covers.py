"""The largest covers of every position, taken from the rows while they stream by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from crosstok.masses.aggregator import Aggregator, Block, expand, log_sum
from crosstok.masses.nodes import IN, OUT
from crosstok.masses.prefixes import Prefixes
from crosstok.masses.undecided import ROW_FLOOR
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray

# Beside the kinds that a range may have (`crosstok.masses.nodes`): a node, and all that follows it but what is listed
# apart.
PARTLY = 4


@dataclass(frozen=True, eq=False)
class Entries:
    """Tokens after nodes, in groups (ranges, then positions), with the logarithm of the mass of each; [entries].

    token: −1 where an entry is the node itself. kind: int8, of a range, or `PARTLY`.
    """

    group: IntArray
    node: IntArray
    token: IntArray
    log_mass: FloatArray
    kind: npt.NDArray[np.int8]

    @classmethod
    def join(cls, parts: Sequence[Entries]) -> Entries:
        """Several one after the other."""
        columns = ((part.group, part.node, part.token, part.log_mass, part.kind) for part in parts)
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    def falling(self) -> Entries:
        """By group, the largest first; equal ones keep their order."""
        order = np.lexsort((-self.log_mass, self.group))
        return self.where(order)

    def where(self, which: IntArray | npt.NDArray[np.bool_]) -> Entries:
        """Some of the entries."""
        return Entries(
            self.group[which], self.node[which], self.token[which], self.log_mass[which], self.kind[which]
        )

    def rank(self) -> IntArray:
        """Of each entry in its group, from 0; entries must be sorted by group."""
        return np.arange(len(self.group)) - np.searchsorted(self.group, self.group)


@dataclass(frozen=True, eq=False)
class Largest:
    """The covers of s_1..s_i: arrays [covers listed], falling by mass; how many are not listed, and their log mass.

    token, kind: as in `Entries`.
    """

    node: IntArray
    token: IntArray
    log_mass: FloatArray
    kind: npt.NDArray[np.int8]
    rest: int
    log_rest: float


class CoverTap:
    """Keeps the ``most`` largest entries of each range of a plan of one text, and sums up the others.

    No row outlives its block: what is kept grows with ranges times ``most``, not with the vocabulary.
    """

    def __init__(self, plan: Plan, most: int) -> None:
        self.plan, self.most = plan, most
        self._kept: list[Entries] = []
        self._count = np.zeros(len(plan.range_node), dtype=np.int64)
        self._log_rest = np.full(len(plan.range_node), -np.inf)

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows; the masses that the aggregator has are not needed."""
        plan = self.plan
        rows, ranges = expand(plan.range_ptr[block.nodes], plan.range_ptr[block.nodes + 1])
        possible = plan.range_kind[ranges] != OUT
        rows, ranges = rows[possible], ranges[possible]
        owner, places = expand(plan.range_first[ranges], plan.range_last[ranges])
        tokens = plan.order[places]
        at = torch.from_numpy(rows[owner]).to(block.logits.device)
        index = torch.from_numpy(tokens).to(block.logits.device)
        canonical = block.mask[at, index].cpu().numpy()
        log_mass = (block.logits[at, index].double() - block.log_norm[at]).cpu().numpy()
        node, kind = plan.range_node[ranges][owner], plan.range_kind[ranges][owner]
        entries = Entries(owner, node, tokens, log_mass, kind).where(canonical)
        entries = self._decided(entries, plan.range_depth[ranges][entries.group]).falling()
        top = entries.rank() < self.most
        others = entries.where(~top)
        self._count[ranges] = np.bincount(entries.group, minlength=len(ranges))
        self._log_rest[ranges] = log_sum(others.log_mass, others.group, len(ranges))
        kept = entries.where(top)
        self._kept.append(Entries(ranges[kept.group], kept.node, kept.token, kept.log_mass, kept.kind))

    def finish(self, prefixes: Prefixes, ended: bool) -> list[Largest]:
        """The covers of positions 1 to n, and those of the ended text; one item each."""
        plan, n = self.plan, len(self.plan.student_ids)
        kept = Entries.join(self._kept)
        log_q = prefixes.log_q[kept.node] + kept.log_mass
        in_ranges = Entries(plan.range_depth[kept.group], kept.node, kept.token, log_q, kept.kind)
        parts = self._parts(prefixes)
        complete = self._complete_texts(prefixes) if ended else in_ranges.where(np.zeros(0, dtype=np.int64))
        entries = Entries.join([in_ranges, parts, complete]).falling()
        top = entries.rank() < self.most
        listed, others = entries.where(top), entries.where(~top)
        count = np.bincount(plan.range_depth, self._count, n + 2).astype(np.int64)
        count += np.bincount(parts.group, minlength=n + 2)
        count[n + 1] = len(complete.group)
        # What is not listed: what no range kept, and what was kept but is not among the largest of the position.
        log_ranges = prefixes.log_q[plan.range_node] + self._log_rest
        rest = np.concatenate([log_ranges, others.log_mass]), np.concatenate([plan.range_depth, others.group])
        log_rest = log_sum(*rest, n + 2)
        bounds = np.searchsorted(listed.group, np.arange(n + 3))
        found = []
        for i in range(1, n + 1 + ended):
            here = listed.where(np.arange(bounds[i], bounds[i + 1]))
            unlisted = int(count[i]) - len(here.group)
            arrays = (here.node, here.token, here.log_mass, here.kind)
            found.append(Largest(*arrays, unlisted, float(log_rest[i])))
        return found

    def _decided(self, entries: Entries, depth: IntArray) -> Entries:
        """Entries for s_1..s_depth, those decided that weigh something; without those that turn out to be out."""
        heavy = np.flatnonzero((entries.kind != IN) & (entries.log_mass >= np.log(ROW_FLOOR)))
        if not len(heavy):
            return entries
        asked = entries.where(heavy)
        verdict = self.plan.decide(asked.node, asked.token, depth[heavy])
        kind = entries.kind.copy()
        kind[heavy[verdict == 1]], kind[heavy[verdict == -1]] = IN, OUT
        return replace(entries, kind=kind).where(kind != OUT)

    def _parts(self, prefixes: Prefixes) -> Entries:
        """What of whole rows is in, one entry for each: the node, whatever follows but what the row's ranges list."""
        plan = self.plan
        log_mass = prefixes.log_q[plan.whole_node] + prefixes.masses.whole
        count = len(log_mass)
        no_token, kind = np.full(count, -1), np.full(count, PARTLY, dtype=np.int8)
        parts = Entries(plan.whole_depth, plan.whole_node, no_token, log_mass, kind)
        return parts.where(log_mass > -np.inf)

    def _complete_texts(self, prefixes: Prefixes) -> Entries:
        """The covers of the ended text: nodes that spell it, with end-of-text."""
        plan, n = self.plan, len(self.plan.student_ids)
        nodes = np.flatnonzero((plan.node_depth == n) & plan.node_complete)
        log_mass = prefixes.log_q[nodes] + prefixes.masses.eos[nodes]
        eos, kind = np.full(len(nodes), plan.pair.teacher_eos[0]), np.full(len(nodes), IN, dtype=np.int8)
        return Entries(np.full(len(nodes), n + 1), nodes, eos, log_mass, kind)
