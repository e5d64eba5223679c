"""From masses to the probabilities of student prefixes, P(s_1..s_i) for every position of every text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosstok.errors import TeacherError
from crosstok.masses import Masses, log_sum, shares
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray

# A node with less canonical mass cannot be trusted (docs/mathematics.md, 7), and a position of which more than
# this share comes through such nodes depends on them.
THIN = 1e-4


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Per position, numbered through all texts: text t has n_t + 2 of them, s_1..s_i for i = 0..n_t and the ended text.

    first: int64 [texts + 1], each text's first position. All else but the last two is [positions], float64 unless said
    otherwise. log_p: log P, −inf for the ended text where it was not asked for. noncanonical: mean of the mass removed
    where the covers cross. dead: share of P(s_1..s_i) at nodes without any canonical mass. thin: bool, whether it
    depends on nodes with next to none. rows: int64, teacher rows at the position. log_q: float64 [nodes], log of the
    product of q down to each node. masses: what they were gathered from. Formulas: docs/mathematics.md, 7.
    """

    first: IntArray
    log_p: FloatArray
    noncanonical: FloatArray
    dead: FloatArray
    thin: npt.NDArray[np.bool_]
    rows: IntArray
    log_q: FloatArray
    masses: Masses


def gather(plan: Plan, masses: Masses) -> Prefixes:
    """Sum the relative covers of every prefix, P(s) = Σ q(e). Raises TeacherError where a node's row is missing."""
    if not masses.seen.all():
        raise TeacherError(f"the teacher left out {int((~masses.seen).sum())} of {len(masses.seen)} rows")
    lengths = np.diff(plan.student_ptr)
    first = np.concatenate([[0], np.cumsum(lengths + 2)]).astype(np.int64)
    log_q = _node_logprobs(plan, masses)
    node_position = first[plan.node_text] + plan.node_depth
    # Every way to cover a position: a range after a node, or end-of-text after a node.
    ends = np.flatnonzero(plan.node_depth == lengths[plan.node_text])
    node = np.concatenate([plan.range_node, ends])
    position = np.concatenate(
        [first[plan.node_text[plan.range_node]] + plan.range_depth, node_position[ends] + 1]
    )
    mass = log_q[node] + np.concatenate([masses.ranges, masses.eos[ends]])
    count = int(first[-1])
    log_p = log_sum(mass, position, count)
    log_p[first[:-1]] = 0.0
    weight = shares(mass, log_p[position])
    removed = _sum(weight * (1.0 - masses.kept[node]), position, count)
    weak = _depends_on_thin(plan, masses)
    through = _sum(weight * weak[node], position, count)
    # A row without any canonical mass loses all that reaches it.
    lost = shares(log_q, log_p[node_position]) * masses.dead
    return Prefixes(
        first=first,
        log_p=log_p,
        noncanonical=removed,
        dead=_sum(lost, node_position, count),
        thin=through > THIN,
        rows=np.bincount(node_position, minlength=count).astype(np.int64),
        log_q=log_q,
        masses=masses,
    )


def _sum(values: FloatArray, group: IntArray, groups: int) -> FloatArray:
    return np.bincount(group, values, groups).astype(np.float64, copy=False)


def _node_logprobs(plan: Plan, masses: Masses) -> FloatArray:
    """log q of every node: parents come first."""
    log_q = masses.edge.copy()
    parent = plan.node_parent
    for node in np.flatnonzero(parent >= 0):
        log_q[node] += log_q[parent[node]]
    return log_q


def _depends_on_thin(plan: Plan, masses: Masses) -> npt.NDArray[np.bool_]:
    weak = masses.kept < THIN
    for node in np.flatnonzero(plan.node_parent >= 0):
        weak[node] |= weak[plan.node_parent[node]]
    return weak
