"""Which tokens are looked up beyond student tokens: none that may be in is left out, and no other weighs on them."""

from __future__ import annotations

import crosstok as ct
import numpy as np
import pytest
import real
from general_checks import failures
from general_pairs import Sample, samples
from oracle import toys

pytest.importorskip("torch")

from crosstok.distributions.ranges import Ranges, _Parts
from crosstok.pair import Plan

PAIRS = 10


def paths(plan: Plan) -> list[list[int]]:
    """The tokens of each node."""
    found: list[list[int]] = []
    for parent, token in zip(plan.node_parent.tolist(), plan.node_token.tolist(), strict=True):
        found.append([] if parent < 0 else [*found[parent], token])
    return found


def check(plan: Plan, start: bool) -> int:
    """Every token that reaches beyond s_1..s_i is there, or out. Returns how many are left out."""
    beyond = plan.beyond()
    ranges, teacher, above = Ranges.of(plan, beyond), plan.pair.teacher, paths(plan)
    assert np.array_equal(ranges.node, beyond.node) and np.array_equal(ranges.depth, beyond.depth)
    dropped = 0
    for i, node in enumerate(ranges.node.tolist()):
        places = ranges.places(i)
        assert (np.diff(places) > 0).all()
        assert np.isin(places, np.arange(beyond.first[i], beyond.last[i])).all()
        others = np.setdiff1d(np.arange(beyond.first[i], beyond.last[i]), places)
        token = plan.order[others]
        token = token[teacher.canonical_next(above[node], start)[token]]
        at = np.full((2, len(token)), [[node], [beyond.depth[i]]], dtype=np.int64)
        assert (plan.decide(at[0], token, at[1]) == -1).all()
        dropped += len(token)
    return dropped


@pytest.mark.parametrize("kind", toys.KINDS)
def test_what_is_left_out_is_out(kind: str, one_thread: None) -> None:
    def of(sample: Sample) -> None:
        start = sample.prompt is None
        check(sample.pair.plan([sample.text], start=start, every_node=True), start)

    assert not failures(samples(kind)[:PAIRS], of)


def test_a_space_that_stands_alone() -> None:
    """SmolLM2 and Qwen3 read "every 5" with a space by itself: most tokens that begin with one are out there."""
    teacher, student = (real.load(name).tok for name in ("smollm2", "qwen3"))
    eos = [ids.eos_ids or ids.special_ids[:1].tolist() for ids in (teacher, student)]
    pair = ct.Pair(teacher, student, *eos)
    plan = pair.plan([" every 5"], every_node=True)
    assert [student.token_bytes(i) for i in plan.student_ids.tolist()] == [b" every", b" ", b"5"]
    assert check(plan, start=False) > 10_000
    ranges = Ranges.of(plan, plan.beyond())
    [i] = np.flatnonzero((plan.node_depth[ranges.node] == 1) & (ranges.depth == 2))
    assert 0 < len(ranges.places(int(i))) < 6_000


def test_parts_join_where_they_meet_or_overlap() -> None:
    one = _Parts(np.array([0, 0, 1]), np.array([0, 12, 3]), np.array([10, 14, 4]))
    other = _Parts(np.array([0, 1, 0]), np.array([2, 4, 10]), np.array([5, 9, 11]))
    joined = one.joined(other)
    assert (joined.range.tolist(), joined.first.tolist(), joined.last.tolist()) == (
        [0, 0, 1],
        [0, 12, 3],
        [11, 14, 9],
    )
