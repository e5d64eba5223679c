"""From leaves and light rows to distributions, with the mass that is undecided (docs/mathematics.md, 12)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from crosstok.distributions.closing import LOST, NO_TOKEN, ClosingCollector, Leaves
from crosstok.distributions.status import StatusArray, check_sums, status_of
from crosstok.masses.entries import Entries
from crosstok.masses.memory import large
from crosstok.masses.prefixes import THIN, Prefixes
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray

# How far sums of masses may be from what they should be.
_ROUNDING = 1e-6
# Masses below this are shares of an upper bound that is hundreds of nats above all estimates.
_LEAST = 1e-290


@dataclass(frozen=True, eq=False)
class Estimate:
    """A text's distributions, in parts that sum to them.

    node, depth, weight: int64, int64, float64 [k]: rows whose light mass the collector has, and what each counts at
    which position. leaves: those that have a next student token, by position; their positions count from 0 here.
    total: float64 [n + 1], what all parts and the lost mass of a position sum to, as a share of the upper bound of
    P(s_1..s_i); 1 where it has probability zero. most: the same, of what P(s_1..s_i) is at most. undecided: float64
    [n + 1], a bound of the total variation from the truth. spent: int64 [n + 1], further rows. empty: bool [n + 1], no
    student token has any mass. thin: bool [n + 1], more than `THIN` of the row comes through nodes with next to no
    canonical mass.
    """

    collector: ClosingCollector
    node: IntArray
    depth: IntArray
    weight: FloatArray
    leaves: Leaves
    total: FloatArray
    most: FloatArray
    undecided: FloatArray
    spent: IntArray
    empty: BoolArray
    thin: BoolArray

    def __len__(self) -> int:
        """n + 1."""
        return len(self.total)

    def status(self, tolerance: float | None = None) -> StatusArray:
        """uint8 [n + 1]: the `Status` of each row. tolerance: what was to be certified, if any."""
        return status_of(self.undecided, self.empty | self.thin, tolerance)

    def dense(self, width: int) -> torch.Tensor:
        """float32 [n + 1, width] on the CPU: natural logarithms. Once only: frees what the collector has."""
        light = self.collector.light.rows(
            self.node, self.depth, self.weight / self.total[self.depth], len(self)
        )
        columns = self.collector.light.columns
        leaves = self.leaves
        keys, of = np.unique(leaves.position * width + leaves.label, return_inverse=True)
        position, label = keys // width, keys % width
        mass = np.bincount(of, leaves.mass / self.total[leaves.position], len(keys)).astype(np.float64)
        column = np.minimum(np.searchsorted(columns, label), max(len(columns) - 1, 0))
        if len(columns):
            at = torch.from_numpy(position), torch.from_numpy(column)
            mass = mass + np.where(columns[column] == label, light[at].double().numpy(), 0.0)
        out = large(len(self), width).fill_(-torch.inf)
        out.index_copy_(1, torch.from_numpy(columns), light.log_())
        out[torch.from_numpy(position), torch.from_numpy(label)] = torch.from_numpy(mass).log().float()
        return out

    def entries(self) -> Entries:
        """The largest entries of each row, and all those that leaves have. Once only, as `dense`."""
        light, weight = self.collector.light, self.weight / self.total[self.depth]
        left = np.bincount(self.depth, weight * light.left[self.node], len(self))
        row, token, mass = light.entries(self.node, self.depth, weight)
        leaves = self.leaves
        mass = np.concatenate([mass, leaves.mass / self.total[leaves.position]])
        row, token = np.concatenate([row, leaves.position]), np.concatenate([token, leaves.label])
        with np.errstate(divide="ignore"):
            return Entries.of(row, token, np.log(mass), np.log(left))

    def label_bounds(self, ids: IntArray) -> tuple[FloatArray, FloatArray]:
        """float64 [k]: bounds of the probabilities of ids, int64 [k], at the first k positions (fact 32)."""
        leaves, sure = self.leaves, np.zeros(len(self))
        mine = leaves.certain & (
            leaves.label == np.append(ids, np.full(len(self) - len(ids), LOST))[leaves.position]
        )
        sure += np.bincount(leaves.position[mine], leaves.mass[mine], len(self))
        low = sure / self.most
        others = np.maximum(1.0 - self.undecided - low, 0.0)
        return low[: len(ids)], np.clip(1.0 - others, 0.0, 1.0)[: len(ids)]


def estimates_of(
    plan: Plan,
    collector: ClosingCollector,
    prefixes: Prefixes,
    leaves: Leaves,
    hidden: FloatArray,
    spent: IntArray,
    weak: BoolArray,
) -> Iterator[Estimate]:
    """The closing estimate of each text of a plan.

    hidden: float64 [positions], as in `accounts`. spent: int64 [positions], further rows. weak: bool [nodes], those of
    the plan and of what further rows added to it: whether a node or one above it has next to no canonical mass. Raises
    TargetsError for raw sums that contradict the bounds of P(s_1..s_i).
    """
    total, most, undecided = accounts(leaves, collector.light_mass(prefixes), hidden)
    labelled = leaves.where(leaves.label >= 0)
    labelled = labelled.where(np.argsort(labelled.position, kind="stable"))
    says, through = _weight(collector, prefixes, labelled, weak)
    certain = leaves.where(leaves.certain & ((leaves.label >= 0) | (leaves.label == LOST)))
    sure = np.bincount(certain.position, certain.mass, len(total)).astype(np.float64)
    for text in range(len(plan)):
        first, last = int(plan.student_ptr[text]) + text, int(plan.student_ptr[text + 1]) + text + 1
        of_text = slice(*np.searchsorted(labelled.position, [first, last]).tolist())
        mine = labelled.where(np.arange(of_text.start, of_text.stop))
        mine.position[:] -= first
        possible = prefixes.upper[prefixes.first[text] + np.arange(last - first)] > -np.inf
        # Of what is less than any number of its own nothing is known.
        some = possible & (total[first:last] >= _LEAST)
        # What is counted may be more than the bound: a closing may be what the bound has ruled out (fact 32). What is
        # certain may not.
        check_sums(sure[first:last])
        mine = mine.where(some[mine.position])
        node, depth, weight = collector.exact_nodes(prefixes, text)
        weight = np.where(some[depth] & (collector.light.mass[node] > 0), weight, 0.0)
        yield Estimate(
            collector,
            node,
            depth,
            weight,
            leaves=mine,
            total=np.where(some, total[first:last], 1.0),
            most=np.where(some, most[first:last], 1.0),
            undecided=np.where(possible, np.where(some, undecided[first:last], 1.0), 0.0),
            spent=spent[first:last],
            empty=~some | (says[first:last] == 0),
            thin=possible & (through[first:last] > THIN * says[first:last]),
        )


def _weight(
    collector: ClosingCollector, prefixes: Prefixes, labelled: Leaves, weak: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """float64 [positions] both: what goes to student tokens, and what of that comes through ``weak`` nodes."""
    beyond, count = collector.beyond, len(collector.beyond.ends)
    node = beyond.exact_node
    light = collector.share(prefixes, node, beyond.exact_depth, np.zeros(len(node)))
    light = light * collector.light.mass[node]
    position = np.concatenate([labelled.position, collector.position(node, beyond.exact_depth)])
    mass = np.concatenate([labelled.mass, light])
    through = mass * weak[np.concatenate([labelled.node, node])]
    says, thin = (np.bincount(position, values, count) for values in (mass, through))
    return says.astype(np.float64), thin.astype(np.float64)


def accounts(
    leaves: Leaves, light: FloatArray, hidden: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What positions' leaves, and light mass, float64 [positions], sum to; a bound of P(s_1..s_i) in the same unit; and
    how much of it is undecided.

    1 − Σ_v (mass that certainly goes on with v, or that is certainly lost) over P(s_1..s_i), 1 where nothing is known:
    whatever becomes of the rest, estimate and truth share the certain mass, so that they are no further apart in total
    variation. P(s_1..s_i) is at most 1, in the unit of masses. It is also at most all that is not certainly out, which
    is used where leaves and light mass are seen to be all that U consists of: where they sum to 1 at least. What that
    sum may hide by its rounding, float64 [positions], counts where nearly all of it is out.
    """
    counts = (leaves.label >= 0) | (leaves.label == LOST)

    def summed(which: BoolArray) -> FloatArray:
        found = np.bincount(leaves.position[which], leaves.mass[which], len(light))
        return found.astype(np.float64)

    total = summed(counts) + light
    out = leaves.certain & (leaves.label == NO_TOKEN)
    perhaps = total + summed(~counts & ~out)
    everything = perhaps + summed(out) >= 1.0 - _ROUNDING
    most = np.maximum(total, np.where(everything, np.minimum(perhaps, 1.0), 1.0))
    most = np.where(hidden > _ROUNDING * most, np.minimum(most + hidden, 1.0), most)
    certain = np.divide(summed(counts & leaves.certain), most, out=np.zeros(len(light)), where=most > 0)
    return total, most, np.clip(1.0 - certain, 0.0, 1.0)
