"""Token trees, TableTeacher and the checks that any teacher's rows go through."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from crosstok.errors import PlanError, TeacherError
from crosstok.teacher import TableTeacher, stream_rows
from hf_models import one, torch, tree_of


def test_token_tree_checks() -> None:
    for token, parent in (([-1, 1], [-1]), ([], []), ([0], [-1]), ([-1, 1], [-1, 1]), ([-1, 1], [-1, -1])):
        with pytest.raises(PlanError, match="token tree"):
            tree_of((1,), token, parent)
    tree = tree_of((9,), [-1, 1, 2, 3], [-1, 0, 1, 0])
    assert [tree.path(n) for n in range(4)] == [(9,), (9, 1), (9, 1, 2), (9, 3)]
    assert tree.depths().tolist() == [0, 1, 2, 1]


def test_table_teacher() -> None:
    calls = []

    def fn(path: tuple[int, ...]) -> Any:
        calls.append(path)
        return [-1.0 - len(path), -float("inf"), 0.5]

    teacher = TableTeacher(fn)
    rows = teacher.rows([(1,), (), (1,)])
    assert rows.dtype == torch.float64
    assert rows[:, 0].tolist() == [-2.0, -1.0, -2.0]
    assert calls == [(1,), (), (1,)]
    assert teacher.vocab_size == 3
    assert len(calls) == 3
    tree = tree_of((), [-1, 0, 2], [-1, 0, 0])
    (block,) = stream_rows(teacher, [tree, tree])
    assert block.tree.tolist() == [0, 0, 0, 1, 1, 1]
    assert block.node.tolist() == [0, 1, 2, 0, 1, 2]
    assert block.logits[:, 0].tolist() == [-1, -2, -2, -1, -2, -2]


def test_table_teacher_refusals() -> None:
    def always(row: object) -> TableTeacher:
        return TableTeacher(lambda _: row)

    for bad, match in (
        ([0.0, float("nan")], "NaN"),
        ([float("inf"), 0.0], "inf"),
        ([[0.0]], "shape"),
        ([], "shape"),
    ):
        with pytest.raises(TeacherError, match=match):
            always(bad).rows([(1,)])
    with pytest.raises(TeacherError, match="shape"):
        TableTeacher(lambda path: [0.0] * (1 + len(path))).rows([(), (1,)])
    with pytest.raises(TeacherError, match="pass vocab_size"):
        TableTeacher(lambda path: [float(path[0])]).vocab_size  # noqa: B018
    assert TableTeacher(lambda path: torch.zeros(4), vocab_size=4).rows([]).shape == (0, 4)


def test_stream_rows_checks_other_teachers() -> None:
    class Short:
        vocab_size = 3

        def rows(self, paths: list[tuple[int, ...]]) -> Any:
            return torch.zeros(len(paths), 2)

    with pytest.raises(TeacherError, match="Short: rows have shape"):
        list(stream_rows(Short(), one((1,), [1])))
