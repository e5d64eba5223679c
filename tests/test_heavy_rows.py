"""Heavy tokens of rows, kept in flat arrays, against lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.distributions.closing import Heavy, HeavyTap
from hypothesis import given
from hypothesis import strategies as st

# Powers of 4 and what is between them: that one share is above another does not hang on rounding.
MASSES = st.sampled_from([0.0, *(4.0**-k for k in range(9))])
BETWEEN = st.sampled_from([0.0, *(0.5 * 4.0**-k for k in range(17))])
ROW = st.dictionaries(st.integers(0, 9), MASSES, max_size=4)
# Blocks of rows, by node; nodes come in any order, and some never.
BLOCKS = st.lists(st.dictionaries(st.integers(0, 12), ROW, max_size=4), max_size=4)


def block_of(rows: dict[int, dict[int, float]]) -> Heavy:
    """As `HeavyTap.add` keeps a block."""
    sizes = [len(row) for row in rows.values()]
    tokens = [token for row in rows.values() for token in sorted(row)]
    masses = [row[token] for row in rows.values() for token in sorted(row)]
    with np.errstate(divide="ignore"):
        log_mass = np.log(np.array(masses, dtype=np.float64))
    node = np.array(list(rows), dtype=np.int64)
    return Heavy(
        node, np.append(0, np.cumsum(sizes)).astype(np.int64), np.array(tokens, dtype=np.int32), log_mass
    )


@given(blocks=BLOCKS, asked=st.lists(st.tuples(st.integers(0, 13), MASSES, BETWEEN), max_size=8))
def test_rows_are_found_whatever_order_they_came_in(
    blocks: list[dict[int, dict[int, float]]], asked: list[tuple[int, float, float]]
) -> None:
    rows: dict[int, dict[int, float]] = {}
    tap: Any = object.__new__(HeavyTap)
    tap._parts = []
    for block in blocks:
        new = {node: row for node, row in block.items() if node not in rows}
        rows.update(new)
        tap._parts.append(block_of(new))
    heavy = tap.finish()
    assert heavy.node.tolist() == sorted(rows)
    node = np.array([node for node, _, _ in asked], dtype=np.int64)
    mass, least = (np.array([entry[k] for entry in asked], dtype=np.float64) for k in (1, 2))
    owner, entry = heavy.after(node)
    found = list(zip(owner.tolist(), heavy.token[entry].tolist(), strict=True))
    assert found == [(k, token) for k, at in enumerate(node.tolist()) for token in sorted(rows.get(at, {}))]
    owner, token, share = heavy.shares(node, mass, least)
    want = [
        (k, token, whole * q)
        for k, (at, whole, floor) in enumerate(asked)
        for token, q in sorted(rows.get(at, {}).items())
        if whole * q >= floor and whole * q > 0
    ]
    assert list(zip(owner.tolist(), token.tolist(), strict=True)) == [entry[:2] for entry in want]
    np.testing.assert_allclose(share, [entry[2] for entry in want], rtol=1e-12)
