"""Sessions of teachers that are no packed model: tables, rows alone, a session of their own, models path by path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.teacher import HFTeacher, TableTeacher, TokenTree, open_session
from hf_models import VOCAB, forest, torch, tree_of
from longrope import check_switch, phi3_with_switch
from sessions import blocks_of, draw_rounds, grown, hashed, worst_gap

pytestmark = pytest.mark.usefixtures("one_thread")


def test_longrope_beyond_its_switch_goes_path_by_path() -> None:
    """New nodes on both sides of position 24, below packed trees and below one that was beyond it already."""
    model = phi3_with_switch(24)
    check_switch(model, 24)
    trees = [*forest(9, nodes=18)[:3], forest(10, nodes=40)[0]]
    depths = [len(t.prompt) + int(t.depths().max()) for t in trees]
    assert max(depths[:3]) <= 24 < depths[3]
    rounds = draw_rounds(np.random.default_rng(9), trees, (60, 60, 60))
    assert any(len(t.prompt) + t.depths().max() > 24 for t in grown(trees, rounds)[:3])
    teacher = HFTeacher(model)
    assert teacher.packed, teacher.packed_reason
    assert worst_gap(model, open_session(teacher, trees), trees, rounds) <= 2e-5


def test_table_teacher_reads_each_node_once() -> None:
    calls = []

    def fn(path: tuple[int, ...]) -> Any:
        calls.append(path)
        return hashed(path)

    trees = [*forest(12), tree_of((), [-1], [-1])]
    rounds = draw_rounds(np.random.default_rng(12), trees, (30, 1, 30))
    whole = grown(trees, rounds)
    found = {
        (int(t), int(n)): row
        for b in blocks_of(open_session(TableTeacher(fn, VOCAB), trees), rounds)
        for t, n, row in zip(b.tree, b.node, b.logits, strict=True)
    }
    paths = {(t, n): tree.path(n) for t, tree in enumerate(whole) for n in range(len(tree))}
    assert sorted(calls) == sorted(paths.values())
    assert found.keys() == paths.keys()
    for node, row in found.items():
        assert row.dtype == torch.float64
        assert row.tolist() == hashed(paths[node]).tolist()


def test_a_teacher_with_rows_only(llama: Any, llama_teacher: HFTeacher) -> None:
    asked = []

    class Rows:
        vocab_size = VOCAB

        def rows(self, paths: list[tuple[int, ...]]) -> Any:
            asked.append(len(paths))
            return llama_teacher.rows(paths)

    trees = forest(13)[:3]
    rounds = draw_rounds(np.random.default_rng(13), trees, (20, 3))
    assert worst_gap(llama, open_session(Rows(), trees), trees, rounds) <= 2e-5
    assert asked == [sum(map(len, trees)), 20, 3]


def test_a_teacher_with_its_own_session() -> None:
    class Own(TableTeacher):
        def open_session(self, trees: Sequence[TokenTree]) -> Any:
            return list(trees)

    trees: Any = forest(1)
    assert open_session(Own(hashed), trees) == trees
