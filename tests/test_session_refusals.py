"""What sessions refuse: extensions that are none, what a model cannot read, calls out of order, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.errors import PlanError, TeacherError
from crosstok.teacher import HFTeacher, Session, TableTeacher, open_session, probe, runner
from hf_models import VOCAB, forest, torch, tree_of
from sessions import draw_rounds, extension, hashed, worst_gap

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_model_that_cannot_pack(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "mismatch", lambda *_: "told so")
    with pytest.warns(RuntimeWarning, match="told so"):
        teacher = HFTeacher(llama)
    trees = forest(11)
    rounds = draw_rounds(np.random.default_rng(11), trees, (20, 5))
    assert worst_gap(llama, open_session(teacher, trees), trees, rounds) <= 2e-5
    check_model_refusals(open_session(teacher, trees[:2]))


def check_model_refusals(session: Session) -> None:
    """What the model cannot read is refused with the tree's number, before any forward; nothing stays appended."""
    list(session.stream())
    before = [len(grown) for grown in session.trees]
    deep = [(1, before[1] - 1, 5)] + [(1, before[1] + i, 5) for i in range(600)]
    with pytest.raises(
        TeacherError, match="text 1: 513 tokens, 7 of them the prompt's: the model has 512 positions"
    ):
        session.extend(*extension((0, 0, 1), *deep))
    with pytest.raises(TeacherError, match="text 0: token id 101: the model has 101 embeddings") as caught:
        session.extend(*extension((1, 0, 1), (0, 0, 101)))
    assert caught.value.index == 0
    with pytest.raises(TeacherError, match="token id -1"):
        session.extend(*extension((0, 0, -1)))
    assert [len(grown) for grown in session.trees] == before
    (block,) = session.extend(*extension((1, 0, 1)))
    assert block.tree.tolist() == [1] and block.node.tolist() == [before[1]]


def test_model_refusals(llama_teacher: HFTeacher) -> None:
    check_model_refusals(open_session(llama_teacher, forest(14)[:2]))
    with pytest.raises(TeacherError, match="text 1: a language model needs at least one prompt token"):
        open_session(llama_teacher, [*forest(14)[:1], tree_of((), [-1], [-1])])


@pytest.mark.parametrize("kind", ["table", "model"])
def test_extensions_that_are_none(kind: str, llama_teacher: HFTeacher) -> None:
    teacher = TableTeacher(hashed, VOCAB) if kind == "table" else llama_teacher
    with open_session(teacher, [tree_of((1,), [-1, 2], [-1, 0])]) as session:
        list(session.stream())
        for nodes, match in (
            ([(0, 2, 1)], "parent 2 of a tree with 2 nodes"),
            ([(0, -1, 1)], "parent -1"),
            ([(0, 0, 1), (0, 3, 1)], "parent 3 of a tree with 3 nodes"),
            ([(1, 0, 1)], "tree 1 of 1"),
            ([(-1, 0, 1)], "tree -1"),
        ):
            with pytest.raises(PlanError, match=match):
                session.extend(*extension(*nodes))
        with pytest.raises(PlanError, match=r"tree \(1,\), parent \(2,\)"):
            session.extend(np.zeros(1, int), np.zeros(2, int), np.zeros(1, int))
        nothing = np.zeros(0, dtype=np.int64)
        assert list(session.extend(nothing, nothing, nothing)) == []
        (block,) = session.extend(*extension((0, 1, 3), (0, 2, 4), (0, 2, 4)))
        assert sorted(block.node.tolist()) == [2, 3, 4]
        assert torch.allclose(block.logits[1], block.logits[2], atol=1e-5)  # the same path twice


@pytest.mark.parametrize("kind", ["table", "model"])
def test_calls_out_of_order(kind: str, llama_teacher: HFTeacher) -> None:
    teacher = TableTeacher(hashed, VOCAB) if kind == "table" else llama_teacher
    trees, more = [tree_of((1,), [-1, 2], [-1, 0])], extension((0, 0, 1))
    session = open_session(teacher, trees)
    with pytest.raises(TeacherError, match=r"read the rows of stream\(\) first"):
        session.extend(*more)
    found = session.stream()
    next(found)
    with pytest.raises(TeacherError, match="not read to their end"):
        session.extend(*more)
    assert list(found) == []
    with pytest.raises(TeacherError, match="was read before"):
        session.stream()
    session.extend(*more)
    with pytest.raises(TeacherError, match="not read to their end"):
        session.extend(*more)
    session.close()
    with pytest.raises(TeacherError, match="closed"):
        session.extend(*more)
    early = open_session(teacher, trees)
    found = early.stream()
    next(found)
    early.close()
    with pytest.raises(TeacherError, match="closed"):
        next(found)


def test_no_trees(llama_teacher: HFTeacher) -> None:
    session = open_session(llama_teacher, [])
    assert list(session.stream()) == []
    with pytest.raises(PlanError, match="tree 0 of 0"):
        session.extend(*extension((0, 0, 1)))


def test_nan_is_refused_with_its_tree(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(HFTeacher(llama), forest(15)[:2])
    list(session.stream())
    forward = runner.Runner._forward

    def broken(self: runner.Runner, inputs: dict[str, Any], keep: Any) -> Any:
        logits = forward(self, inputs, keep).clone()
        logits[1, 7] = float("nan")
        return logits

    monkeypatch.setattr(runner.Runner, "_forward", broken)
    with pytest.raises(TeacherError, match="NaN") as caught:
        list(session.extend(*extension((0, 0, 1), (1, 0, 1))))
    assert caught.value.index == 1
    with pytest.raises(TeacherError, match="not read to their end"):
        session.extend(*extension((0, 0, 1)))
