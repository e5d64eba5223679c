"""From masses to the probabilities of student prefixes, P(s_1..s_i) for every position of every text."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crosstok.errors import TeacherError
from crosstok.masses.aggregator import Masses, log_sum, shares
from crosstok.masses.nodes import IN, LIKELY, OUT, UNLIKELY
from crosstok.masses.undecided import Known
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray

# A node with less canonical mass cannot be trusted (docs/mathematics.md, 7), and a position of which more than
# this share comes through such nodes depends on them.
THIN = 1e-4


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Per position, numbered through all texts: text t has n_t + 2 of them, s_1..s_i for i = 0..n_t and the ended text.

    first: int64 [texts + 1], each text's first position. [positions], float64 unless said otherwise: lower, estimate,
    upper: log P and its bounds, one and the same array where nothing is undecided; −inf for the ended text where it
    was not asked for. noncanonical: mean of the mass removed where the covers cross. weak_share: what share of P comes
    through nodes with next to no canonical mass. dead: share of P(s_1..s_i) at nodes without any. rows: int64, teacher
    rows at the position. further: int64, rows read beyond the plan's for the position.
    [nodes]: log_q, float64, log of the product of q down to each node; weak: bool, whether the node or one above it
    has next to no canonical mass. masses: what all was gathered from. Formulas: docs/mathematics.md, 7 and 10.
    """

    first: IntArray
    lower: FloatArray
    estimate: FloatArray
    upper: FloatArray
    noncanonical: FloatArray
    weak_share: FloatArray
    dead: FloatArray
    rows: IntArray
    further: IntArray
    log_q: FloatArray
    weak: BoolArray
    masses: Masses

    @property
    def thin(self) -> BoolArray:
        """bool [positions]: whether a position depends on nodes with next to no canonical mass."""
        return self.weak_share > THIN

    @property
    def bounded(self) -> bool:
        """Whether anything was undecided at first."""
        return self.upper is not self.lower


@dataclass(frozen=True, eq=False)
class _Covers:
    """Parts of the positions' probabilities: where each comes from and what it is; arrays [parts]."""

    node: IntArray
    position: IntArray
    log_mass: FloatArray
    kind: npt.NDArray[np.int8]

    def where(self, which: BoolArray) -> _Covers:
        return _Covers(self.node[which], self.position[which], self.log_mass[which], self.kind[which])

    def log_p(self, first: IntArray) -> FloatArray:
        """float64 [positions]: log of their sums; P of the empty prefix is 1 in any case."""
        log_p = log_sum(self.log_mass, self.position, int(first[-1]))
        log_p[first[:-1]] = 0.0
        return log_p


def gather(plan: Plan, masses: Masses, known: Known | None = None) -> Prefixes:
    """Sum the relative covers of every prefix, P(s) = Σ q(e), and what is undecided beside it.

    known: what has come of the plan's undecided ranges, in place of these.

    Raises TeacherError where a node's row is missing.
    """
    if not masses.seen.all():
        raise TeacherError(f"the teacher left out {int((~masses.seen).sum())} of {len(masses.seen)} rows")
    first = np.concatenate([[0], np.cumsum(np.diff(plan.student_ptr) + 2)]).astype(np.int64)
    log_q, weak = _node_logprobs(plan, masses), _depends_on_thin(plan, masses)
    covers = _covers(plan, masses, first, log_q, known)
    if plan.range_kind.any() or len(plan.whole_node):
        lower = covers.where(covers.kind == IN).log_p(first)
        estimate = covers.where(covers.kind <= LIKELY).log_p(first)
        upper = covers.where(covers.kind <= UNLIKELY).log_p(first)
        # Equal sums must not come out in another order by rounding.
        lower, upper = np.minimum(lower, estimate), np.maximum(upper, estimate)
        covers = covers.where(covers.kind <= LIKELY)
    else:
        lower = estimate = upper = covers.log_p(first)
    count = int(first[-1])
    weight = shares(covers.log_mass, estimate[covers.position])
    at = first[plan.node_text] + plan.node_depth
    # A row without any canonical mass loses all that reaches it.
    lost = np.where(masses.dead, shares(log_q, estimate[at]), 0.0)
    return Prefixes(
        first=first,
        lower=lower,
        estimate=estimate,
        upper=upper,
        noncanonical=_sum(weight * (1.0 - masses.kept[covers.node]), covers.position, count),
        weak_share=_sum(weight * weak[covers.node], covers.position, count),
        dead=np.minimum(_sum(lost, at, count), 1.0),
        rows=np.bincount(at, minlength=count).astype(np.int64),
        further=np.zeros(count, dtype=np.int64),
        log_q=log_q,
        weak=weak,
        masses=masses,
    )


def tightened(prefixes: Prefixes) -> Prefixes:
    """Bounds that also heed P(s_1..s_i+1) ≤ P(s_1..s_i), along each text."""
    if not prefixes.bounded:
        return prefixes
    lower, upper = prefixes.lower.copy(), prefixes.upper.copy()
    for start, stop in zip(prefixes.first[:-1].tolist(), prefixes.first[1:].tolist(), strict=True):
        np.minimum.accumulate(upper[start:stop], out=upper[start:stop])
        np.maximum.accumulate(lower[start:stop][::-1], out=lower[start:stop][::-1])
    exact = prefixes.lower == prefixes.upper
    lower, upper = np.where(exact, prefixes.lower, lower), np.where(exact, prefixes.upper, upper)
    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)  # what rounding may have crossed
    return replace(prefixes, lower=lower, estimate=np.clip(prefixes.estimate, lower, upper), upper=upper)


def _covers(plan: Plan, masses: Masses, first: IntArray, log_q: FloatArray, known: Known | None) -> _Covers:
    """Every way to cover a position: a range after a node, the rest of a whole row, or end-of-text after a node."""
    ends = np.flatnonzero(plan.node_depth == np.diff(plan.student_ptr)[plan.node_text])
    which = np.flatnonzero(plan.range_kind != OUT) if known is None else np.flatnonzero(plan.range_kind == IN)
    kinds = np.concatenate([plan.range_kind[which], np.full(len(plan.whole_node) + len(ends), IN, np.int8)])
    depth = np.concatenate([plan.range_depth[which], plan.whole_depth, plan.node_depth[ends] + 1])
    node = np.concatenate([plan.range_node[which], plan.whole_node, ends])
    log_mass = np.concatenate([masses.ranges[which], masses.whole, masses.eos[ends]])
    if known is not None:
        found, inside = known.undecided, known.inside
        each = np.repeat(np.arange(len(found.node)), 2)
        two = np.tile(np.array([LIKELY, UNLIKELY], dtype=np.int8), len(found.node))
        kinds = np.concatenate([kinds, two, np.full(len(inside.slot), IN, np.int8)])
        depth = np.concatenate([depth, found.depth[each], found.depth[inside.slot]])
        node = np.concatenate([node, found.node[each], found.node[inside.slot]])
        log_mass = np.concatenate([log_mass, found.mass.reshape(-1), inside.log_mass])
    return _Covers(node, first[plan.node_text[node]] + depth, log_q[node] + log_mass, kinds)


def _sum(values: FloatArray, group: IntArray, groups: int) -> FloatArray:
    return np.bincount(group, values, groups).astype(np.float64, copy=False)


def _node_logprobs(plan: Plan, masses: Masses) -> FloatArray:
    """log q of every node: parents come first."""
    log_q = masses.edge.copy()
    parent = plan.node_parent
    for node in np.flatnonzero(parent >= 0):
        log_q[node] += log_q[parent[node]]
    return log_q


def _depends_on_thin(plan: Plan, masses: Masses) -> BoolArray:
    weak = masses.kept < THIN
    for node in np.flatnonzero(plan.node_parent >= 0):
        weak[node] |= weak[plan.node_parent[node]]
    return weak
