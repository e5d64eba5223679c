"""What a position's draws are drawn from: its leaves that are not certain, and the light tokens of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from crosstok.distributions.closing import LOST, NO_TOKEN, SIDE, ClosingCollector, Heavy, Leaves
from crosstok.masses.aggregator import expand
from crosstok.masses.nodes import OUT, UNLIKELY
from crosstok.masses.prefixes import Prefixes
from crosstok.methods.sampling import LightTokens, RangeTokens
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray

# The label of a place that depends on which token is sampled there.
FIRST = -4


@dataclass(frozen=True, eq=False)
class Places:
    """Where draws may land, by position: arrays [places].

    position, node, token: int64, a teacher prefix; a token below 0, −1 − s, is one of those that were sampled as s.
    label: int64, the next student token that the estimate has there, below 0 for none; `FIRST`: that of a light token
    by itself. mass: float64, as of `Leaves`.
    """

    position: IntArray
    node: IntArray
    token: IntArray
    label: IntArray
    mass: FloatArray

    @classmethod
    def join(cls, parts: Sequence[Places]) -> Places:
        """Several together, in an order that does not depend on how they came: by position, and alike labels."""
        position, node, token, label, mass = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("position", "node", "token", "label", "mass")
        )
        order = np.lexsort((token, node, label, position))
        order = order[mass[order] > 0]
        return cls(position[order], node[order], token[order], label[order], mass[order])


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws, by position: arrays [draws]. mass: float64, what each moves; otherwise as in `Places`, tokens ≥ 0."""

    position: IntArray
    node: IntArray
    token: IntArray
    label: IntArray
    mass: FloatArray


def drawable(
    collector: ClosingCollector,
    prefixes: Prefixes,
    leaves: Leaves,
    light: LightTokens,
    ranges: RangeTokens,
) -> Places:
    """All places of a plan's positions. leaves: of the plan's own rows. Samples: those of nodes, then of ranges."""
    plan, beyond = collector.plan, collector.beyond
    open_ = leaves.where(~leaves.certain & (leaves.label != LOST))
    # Leaves without a node are what was dropped, which is drawn from token by token.
    single, left = open_.where(open_.token >= 0), _rests(collector, open_)
    parts = [Places(single.position, single.node, single.token, single.label, single.mass)]
    if not collector.row_share:
        return Places.join(parts)

    def sampled(node: IntArray, depth: IntArray, first: int, mass: FloatArray, label: int) -> Places:
        share = collector.share(prefixes, node, depth, np.zeros(len(node)))
        token, position = -1 - first - np.arange(len(node)), collector.position(node, depth)
        return Places(position, node, token, np.full(len(node), label), share * mass)

    exact = sampled(beyond.exact_node, beyond.exact_depth, 0, light.mass[beyond.exact_node], FIRST)
    parts.append(replace(exact, token=-1 - exact.node))
    parts.append(
        sampled(collector.ranges.node, collector.ranges.depth, len(light.mass), ranges.mass, NO_TOKEN)
    )
    parts.append(_left(plan, left, leaves, collector.heavy.finish(), light))
    parts.append(_dropped(collector, prefixes))
    return Places.join(parts)


def _rests(collector: ClosingCollector, leaves: Leaves) -> Leaves:
    """What replaced leaves have left. What is gone behind a prefix that may be in is no such thing: none goes on."""
    rests = leaves.where((leaves.token < 0) & (leaves.node >= 0))
    text = collector.plan.node_text[rests.node]
    depth = rests.position - collector.plan.student_ptr[text] - text
    return rests.where(~collector.is_exact(rests.node, depth, collector.beyond.exact_given_up))


def _dropped(collector: ClosingCollector, prefixes: Prefixes) -> Places:
    """Tokens that `ClosingCollector.leaves` has found too light at their positions to be looked up."""
    node, token, depth, log_mass = (
        np.concatenate([getattr(entries, name) for entries in collector.entries])
        for name in ("node", "token", "depth", "log_mass")
    )
    mass = collector.share(prefixes, node, depth, log_mass)
    exact = collector.is_exact(node, depth)
    exact &= collector.share(prefixes, node, depth, np.zeros(len(node))) >= SIDE
    some = np.flatnonzero((mass < collector.row_share) & ~exact)
    position = collector.position(node[some], depth[some])
    return Places(position, node[some], token[some], np.full(len(some), NO_TOKEN), mass[some])


def _left(plan: Plan, left: Leaves, leaves: Leaves, heavy: Heavy, light: LightTokens) -> Places:
    """What rows have left of leaves that they replaced: light tokens, and those that are too little there."""
    owner, entry = heavy.after(left.node)
    token = heavy.token[entry].astype(np.int64)
    known = _known(plan, leaves, left.position[owner], left.node[owner], token)
    owner, entry, token = owner[~known], entry[~known], token[~known]
    share = np.exp(heavy.log_mass[entry])
    owner = np.concatenate([owner, np.arange(len(left.node))])
    token = np.concatenate([token, -1 - left.node])
    share = np.concatenate([share, light.mass[left.node]])
    whole = np.bincount(owner, share, len(left.node))
    mass = left.mass[owner] * share / np.where(whole > 0, whole, 1.0)[owner]
    return Places(left.position[owner], left.node[owner], token, left.label[owner], mass)


def _known(plan: Plan, leaves: Leaves, position: IntArray, node: IntArray, token: IntArray) -> BoolArray:
    """bool [k]: whether prefixes are leaves of their positions, or were replaced by rows that the plan has."""
    leaves = leaves.where(leaves.node >= 0)
    base, nodes = int(plan.order.max(initial=0)) + 2, len(plan.node_token)

    def key(position: IntArray, node: IntArray, token: IntArray) -> IntArray:
        return (position * nodes + node) * base + token + 1

    prefix = node * base + token
    below = np.where(plan.node_parent >= 0, plan.node_parent * base + plan.node_token, -1)
    order = np.argsort(below)
    at = order[np.minimum(np.searchsorted(below[order], prefix), nodes - 1)]
    replaced = np.isin(position * nodes + at, leaves.position * nodes + leaves.node) & (below[at] == prefix)
    is_leaf = np.isin(key(position, node, token), key(leaves.position, leaves.node, leaves.token))
    found: BoolArray = is_leaf | replaced
    return found


def draw(plan: Plan, places: Places, samples: IntArray, uniform: FloatArray) -> Drawn:
    """As many places of each position as ``uniform``, float64 [positions, draws], has numbers for, by mass.

    A position's mass is cut into as many equal parts, in the order of its places, and one number falls into each: no
    worse than drawing each from the whole, and better where the parts differ. samples: int64 [samples, draws].
    """
    count, draws = uniform.shape
    ptr = np.searchsorted(places.position, np.arange(count + 1)).tolist()
    chosen, moved = np.zeros((count, draws), dtype=np.int64), np.zeros(count)
    for position, (first, last) in enumerate(pairwise(ptr)):
        if first == last:
            continue
        running = np.cumsum(places.mass[first:last])
        wanted = (np.arange(draws) + uniform[position]) / draws * running[-1]
        found = np.searchsorted(running, wanted, side="right")
        chosen[position] = first + np.minimum(found, last - first - 1)
        moved[position] = running[-1] / draws
    some = np.repeat(moved > 0, draws)
    at, number = chosen.reshape(-1)[some], np.tile(np.arange(draws), count)[some]
    node, token, label = places.node[at], places.token[at], places.label[at]
    token = np.where(token < 0, samples[np.maximum(-1 - token, 0), number], token)
    label = np.where(label == FIRST, _first_labels(plan, node, token), label)
    return Drawn(places.position[at], node, token, label, np.repeat(moved, draws)[some])


def _first_labels(plan: Plan, node: IntArray, token: IntArray) -> IntArray:
    """int64 [k]: what the estimate takes light tokens after nodes for (docs/mathematics.md, 12)."""
    order = plan.order
    place = np.zeros(int(order.max(initial=0)) + 1, dtype=np.int64)
    place[order] = np.arange(len(order))
    at = place[token]
    label: IntArray = np.asarray(plan.pair.first_tokens)[at]
    owner, ranges = expand(plan.range_ptr[node], plan.range_ptr[node + 1])
    kind, own = plan.range_kind[ranges], plan.range_depth[ranges] == plan.node_depth[node[owner]]
    holds = (plan.range_first[ranges] <= at[owner]) & (at[owner] < plan.range_last[ranges])
    out = owner[own & holds & ((kind == UNLIKELY) | (kind == OUT))]
    label[out] = NO_TOKEN
    return label
