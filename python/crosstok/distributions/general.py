"""Whole distributions in the regime "general", from a batch's plan: the closing estimate, and what rows add to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from crosstok.distributions.closing import ROW_SHARE, ClosingCollector, Heavy, HeavyTap, Leaves
from crosstok.distributions.estimates import Estimate, estimates_of
from crosstok.distributions.expansion import Expansion, Positions, Rows, Search, expand_known
from crosstok.masses.aggregator import Masses
from crosstok.masses.nodes import Nodes
from crosstok.masses.prefixes import THIN, Prefixes
from crosstok.pair import BoolArray, Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.reading import Growth, Reading, trees_of
from crosstok.teacher.session import open_session


def estimates(
    reading: Reading,
    plan: Plan,
    prompts: Sequence[tuple[int, ...]],
    search: Search | None,
    keep: int | None = None,
) -> Iterator[tuple[Estimate, Prefixes]]:
    """The distributions of each text of a plan that keeps its boundaries, and what they are shares of.

    search: how far leaves are replaced by further rows; None: only by those that the plan has. keep: None, or how many
    entries of a row are wanted, about. Raises what `Reading.read` does, and TargetsError for sums that cannot be.
    """
    collector = ClosingCollector(plan, ROW_SHARE if search is None else search.row_share, keep)
    prefixes, leaves, hidden, spent, weak = _read(reading, plan, prompts, collector, search)
    for found in estimates_of(plan, collector, prefixes, leaves, hidden, spent, weak):
        yield found, prefixes


def _read(
    reading: Reading,
    plan: Plan,
    prompts: Sequence[tuple[int, ...]],
    collector: ClosingCollector,
    search: Search | None,
) -> tuple[Prefixes, Leaves, FloatArray, IntArray, BoolArray]:
    """Read the plan's rows, and further ones: what prefixes and leaves come to, what sums may hide of each position,
    how many each one used, and whether each node, further ones included, hangs on next to no canonical mass.
    """
    exact_from = np.inf if search is None else search.exact_from
    if search is None or search.max_rows == 0:
        prefixes = reading.bounded(plan, prompts, collector)
        leaves, positions = known_leaves(reading, plan, collector, prefixes, exact_from)
        return (
            prefixes,
            leaves,
            positions.hidden,
            np.zeros(len(positions.text), dtype=np.int64),
            prefixes.weak,
        )
    with open_session(reading.teacher, trees_of(plan, prompts)) as session:
        prefixes = reading.bounded(plan, prompts, collector, session)
        leaves, positions = known_leaves(reading, plan, collector, prefixes, exact_from)
        growth, weak = Growth(reading, plan, session), [prefixes.weak]

        def grow(node: IntArray, token: IntArray) -> Rows:
            tap = HeavyTap(plan, collector.row_share)
            nodes, masses = growth.read(node, token, tap)
            weak.append((masses.kept < THIN) | np.concatenate(weak)[node])
            return rows_of(reading, nodes, masses, tap.finish())

        expansion = Expansion(plan, positions, search, reading.num_threads)
        leaves = expansion.run(leaves, grow)
        return prefixes, leaves, positions.hidden, expansion.rows, np.concatenate(weak)


def known_leaves(
    reading: Reading, plan: Plan, collector: ClosingCollector, prefixes: Prefixes, exact_from: float
) -> tuple[Leaves, Positions]:
    """The leaves of a plan's own rows."""
    heavy = collector.heavy.finish()
    rows = rows_of(reading, Nodes.of(plan), prefixes.masses, heavy)
    threads, share = reading.num_threads, collector.row_share
    leaves = collector.leaves(prefixes, heavy, exact_from, threads)
    dropped, hidden = collector.dropped(prefixes, rows.total, leaves)
    others = [collector.ends(prefixes), collector.lost(prefixes, rows.total), dropped]
    positions = _positions(plan, collector, prefixes, hidden)
    leaves = expand_known(plan, leaves, rows, positions.depth, threads, share, exact_from)
    return Leaves.join([leaves, *others]), positions


def _positions(plan: Plan, collector: ClosingCollector, prefixes: Prefixes, hidden: FloatArray) -> Positions:
    count = np.diff(plan.student_ptr) + 1
    text = np.repeat(np.arange(len(count)), count)
    depth = np.arange(len(text)) - np.repeat(np.cumsum(count) - count, count)
    return Positions(text, depth, collector.light_mass(prefixes), hidden)


def rows_of(reading: Reading, nodes: Nodes, masses: Masses, heavy: Heavy) -> Rows:
    """What rows amount to, where leaves are replaced by them."""
    total = np.ones(len(nodes)) if reading.canonical == "renormalize" else masses.kept.copy()
    total[masses.dead] = 0.0
    return Rows(nodes.first, heavy, total, np.exp(masses.eos), masses.seen)
