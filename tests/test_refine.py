"""Bounds and their refinement over plans made by hand (`worlds`), against sums over all teacher prefixes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path as File
from typing import Any

import crosstok as ct
import numpy as np
import pytest
from oracle.scores import random_teacher
from worlds import FakePlan, Path, Truth, World

pytest.importorskip("torch")

from crosstok.masses.prefixes import Prefixes
from crosstok.reading import Reading
from crosstok.results import Score, Status, Timings
from crosstok.scores.labels import score_of
from crosstok.scores.refine import Goal
from crosstok.teacher.session import PathSession

MODES = ("renormalize", "mask")


def teacher_of(seed: int, spread: float) -> Callable[[Path], Any]:
    """A table of six tokens."""
    return random_teacher(6, seed, spread=spread)


def constant(row: Any) -> Any:
    """A teacher that always says the same."""
    return ct.TableTeacher(lambda ids: row, 6)


def read(worlds: list[World], fn: Any, mode: str, goal: Goal | None) -> tuple[Any, Prefixes, list[Score]]:
    """Prefixes and scores of worlds in one batch; the teacher as a function."""
    plan: Any = FakePlan(worlds)
    reading = Reading(ct.TableTeacher(fn, 6), mode, 1.0, 1, Timings())
    ended = [True] * len(worlds)
    prefixes = reading.prefixes(plan, [(9,)] * len(worlds), ended, goal)
    tolerance = None if goal is None else goal.tolerance
    scores = [score_of(plan, prefixes, t, True, tolerance=tolerance) for t in range(len(worlds))]
    return plan, prefixes, scores


CASES = [(seed, 1.5 if seed % 2 else 8.0, MODES[seed // 2 % 2]) for seed in range(24)]


@pytest.mark.parametrize(("seed", "spread", "mode"), CASES)
def test_bounds_close_in_on_the_sum_over_all_prefixes(seed: int, spread: float, mode: str) -> None:
    world, fn = World(seed), teacher_of(seed, spread)
    expected, removed = Truth(world, fn, mode).prefixes()
    labels = np.diff(expected, prepend=0.0)
    lower, upper = np.full(3, -np.inf), np.zeros(3)
    for goal in (None, *(Goal(0.0, rows) for rows in (0, 1, 2, 3, 5, 8, 13, 40)), Goal(0.0, None)):
        _, _, (score,) = read([world], fn, mode, goal)
        now_lower, now_upper = score.prefix_lower[:3], score.prefix_upper[:3]
        assert (now_lower >= lower - 1e-12).all() and (now_upper <= upper + 1e-12).all()
        assert (now_lower <= expected + 1e-12).all() and (expected <= now_upper + 1e-12).all()
        assert (score.lower[:3] <= labels + 1e-12).all() and (labels <= score.upper[:3] + 1e-12).all()
        assert (score.lower <= score.logprobs).all() and (score.logprobs <= score.upper).all()
        assert (score.upper <= 0).all()
        lower, upper = now_lower, now_upper
    assert score.logprobs[:3] == pytest.approx(labels, abs=1e-10)
    assert lower == pytest.approx(expected, abs=1e-10) and upper == pytest.approx(expected, abs=1e-10)
    assert score.noncanonical_mass[:3] == pytest.approx(removed, abs=1e-9)
    assert set(score.status.tolist()) <= {Status.EXACT, Status.CERTIFIED, Status.UNSUPPORTED}


def test_what_was_given_up_keeps_its_mass() -> None:
    """What may be in is not replaced by its row, behind which mass is lost; called undecided, it would be."""
    broken = closed = 0
    for seed in range(16):
        fn = teacher_of(seed, 1.5)
        expected, _ = Truth(World(seed), fn, "mask").prefixes()
        for tells in (True, False):
            world = World(seed, give_up=0.25, tells=tells)
            upper = np.zeros(3)
            for goal in (None, Goal(0.0, 3), Goal(0.0, None)):
                _, _, (score,) = read([world], fn, "mask", goal)
                low, high = score.prefix_lower[:3], score.prefix_upper[:3]
                assert (low <= expected + 1e-12).all() and (high <= upper + 1e-12).all()
                upper = high
                if tells:
                    assert (expected <= high + 1e-12).all(), (seed, goal)
                else:
                    broken += int((expected > high + 1e-9).any())
            closed += int(tells and (high - low < 1e-9).any())
    assert broken > 10 and closed > 0


def test_statuses_say_how_wide_bounds_are() -> None:
    seen = set()
    for seed in range(12):
        world, fn = World(seed), teacher_of(seed, 1.5)
        for tolerance, rows in ((None, None), (0.1, 0), (0.1, 1), (0.1, None), (0.02, None)):
            goal = None if tolerance is None else Goal(tolerance, rows)
            _, _, (score,) = read([world], fn, "renormalize", goal)
            width = np.exp(score.upper) - np.exp(score.lower)
            for w, status in zip(width, score.status, strict=True):
                seen.add(int(status))
                if status == Status.EXACT:
                    assert w < 1e-15
                elif status == Status.CERTIFIED:
                    assert tolerance is not None and w <= tolerance
                elif status == Status.ESTIMATED:
                    assert tolerance is None or w > tolerance
            if rows is None and tolerance is not None:
                assert (width <= tolerance).all()
    assert {Status.EXACT, Status.CERTIFIED, Status.ESTIMATED} <= seen


def test_a_budget_holds_for_each_position_and_rows_are_read_once() -> None:
    world, fn = World(3, reach=4), teacher_of(3, 1.0)
    asked: list[Path] = []

    def counted(ids: Path) -> Any:
        asked.append(ids)
        return fn(ids)

    for most in (1, 4, None):
        asked.clear()
        plan, prefixes, (score,) = read([world], counted, "renormalize", Goal(0.0, most))
        assert len(asked) == len(set(asked)) == len(plan.paths)
        assert most is None or prefixes.further.max() <= most
        assert prefixes.further.max() >= (most or 5)
        assert score.rows.sum() == prefixes.rows.sum() + prefixes.further.sum()


@pytest.mark.parametrize("mode", MODES)
def test_a_text_has_the_same_numbers_in_any_batch(mode: str) -> None:
    worlds, fn, goal = [World(seed) for seed in range(6)], teacher_of(5, 1.5), Goal(0.01, 6)
    _, _, together = read(worlds, fn, mode, goal)
    for world, score in zip(worlds, together, strict=True):
        _, _, (alone,) = read([world], fn, mode, goal)
        for name in (
            "logprobs",
            "lower",
            "upper",
            "prefix_lower",
            "prefix_upper",
            "noncanonical_mass",
            "rows",
        ):
            assert np.array_equal(getattr(score, name), getattr(alone, name)), name


def test_texts_of_probability_zero() -> None:
    world = World(2)
    rows = random_teacher(6, 2)

    def dead(ids: Path) -> Any:  # no row after the path's second token has mass but in non-canonical tokens
        row = rows(ids).copy()
        if len(ids) > 2:
            row[[0, *(t for t in range(1, 6) if world.canonical(ids[1:], t))]] = -np.inf
        return row

    for goal in (None, Goal(0.0, None)):
        _, _, (score,) = read([world], dead, "renormalize", goal)
        for name in ("logprobs", "lower", "upper", "prefix_lower", "prefix_upper", "noncanonical_mass"):
            assert not np.isnan(getattr(score, name)).any()
        assert score.status[-1] == Status.UNSUPPORTED and np.isneginf(score.upper[-1])


@pytest.mark.parametrize("small", [1e-3, 1e-7, 1e-14, 1e-40, 1e-310])
def test_what_is_left_of_a_row_keeps_its_digits(small: float) -> None:
    checked = 0
    for world in map(World, range(8)):
        plan: Any = FakePlan([world])
        for w, (node, depth) in enumerate(zip(plan.whole_node, plan.whole_depth, strict=True)):
            path = plan.paths[node][1]
            kinds = {t: FakePlan.below(world, (*path, t), depth) for t in range(1, 6)}
            row = np.array([0.0, *(small if kinds[t] < 0 else 1.0 for t in kinds)])
            canonical = np.array([False, *(world.canonical(path, t) for t in kinds)])
            if world.complete(path) or not {small, 1.0} <= set(row[canonical]):
                continue
            with np.errstate(divide="ignore"):
                logs = np.log(row)
            expected = np.log(((row == small) & canonical).sum()) + np.log(small) - np.log(row.sum())
            masses = Reading(constant(logs), "mask", 1.0, 1, Timings()).read(plan, [(9,)]).masses
            assert masses.whole[w] == pytest.approx(expected, abs=1e-9)
            checked += 1
    assert checked > 3


def test_a_position_behind_nodes_with_next_to_no_canonical_mass_is_unsupported() -> None:
    world, table = World(3, reach=4), random_teacher(6, 3)

    def thin(ids: Path) -> Any:  # off the path next to all mass is in a token that is never canonical
        row = table(ids)
        if world.on_path(ids[1:]):
            return row
        row = row + math.log(1e-6)
        row[[t for t in range(1, 6) if not world.canonical(ids[1:], t)][:1]] = math.log1p(-1e-6)
        return row

    found = [read([world], thin, "renormalize", goal)[1].thin[1:4] for goal in (None, Goal(0.0, None))]
    assert not found[0].any() and found[1].any()


class Short(ct.TableTeacher):
    """Its session reads what is planned, and after that nothing longer than ``most`` tokens, prompt included."""

    def __init__(self, fn: Any, most: float) -> None:
        super().__init__(fn, 6)
        self.most, self.longest = most, 0

    def open_session(self, trees: Any) -> Any:
        """As a model's."""
        return PathSession(self, trees, self._check)

    def _check(self, ids: Any, length: int, prompt: int) -> None:
        if length > self.most:
            raise ct.TeacherError("too long")
        self.longest = max(self.longest, length)


def read_short(worlds: list[World], fn: Any, most: float, goal: Goal) -> tuple[Prefixes, int]:
    """What a teacher with a limit comes to, and the longest further path that it has read."""
    plan: Any = FakePlan(worlds)
    teacher = Short(fn, most)
    reading = Reading(teacher, "renormalize", 1.0, 1, Timings())
    prefixes = reading.prefixes(plan, [(9,)] * len(worlds), [True] * len(worlds), goal)
    return prefixes, teacher.longest


def test_a_teacher_that_refuses_longer_paths_leaves_bounds() -> None:
    fits = partial_ = 0
    for seed in range(8):
        world, fn, goal = World(seed), teacher_of(seed, 1.5), Goal(0.0, None)
        expected, _ = Truth(world, fn, "renormalize").prefixes()
        free, longest = read_short([world], fn, math.inf, goal)
        before: Any = np.inf
        rows = 0
        for most in range(2, longest + 1):
            prefixes, _ = read_short([world], fn, most, goal)
            lower, upper = prefixes.lower[1:4], prefixes.upper[1:4]
            assert (lower <= expected + 1e-12).all() and (expected <= upper + 1e-12).all()
            gap = np.exp(upper) - np.exp(lower)
            assert (gap <= before + 1e-12).all() and prefixes.further.sum() >= rows
            partial_ += int(most < longest and prefixes.further.sum() > rows > 0)
            before, rows = gap, int(prefixes.further.sum())
        fits += longest > 2
        assert prefixes.further.tolist() == free.further.tolist()
    assert fits > 4 and partial_ > 4


def test_a_text_that_is_too_long_leaves_the_others_of_its_batch_alone() -> None:
    """And of a position's own paths those that fit are read: what is heaviest may be what does not."""
    worlds, fn, goal = [World(seed) for seed in range(6)], teacher_of(5, 1.5), Goal(0.0, 12)
    together, _ = read_short(worlds, fn, 5, goal)
    for t, world in enumerate(worlds):
        alone, _ = read_short([world], fn, 5, goal)
        part = slice(int(together.first[t]), int(together.first[t + 1]))
        assert np.array_equal(together.lower[part], alone.lower)
        assert np.array_equal(together.upper[part], alone.upper)
        assert together.further[part].tolist() == alone.further.tolist()


class Plain:
    """A model's rows, path by path."""

    def __init__(self, teacher: Any) -> None:
        self.vocab_size, self.rows = teacher.vocab_size, teacher.rows


def demo_pair() -> tuple[Any, Any]:
    """The embedded model, and a student that lacks every third of its merges: the general regime."""
    folder = File(str(resources.files("crosstok.demo")))
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tok = ct.Tokenizer.from_pretrained(folder)
    made = {left + right for left, right in spec["model"]["merges"]}
    known = {token for token in spec["model"]["vocab"] if token not in made}
    merges = []
    for number, (left, right) in enumerate(spec["model"]["merges"]):
        if number % 3 and {left, right} <= known:
            merges.append([left, right])
            known.add(left + right)
    spec["model"] |= {
        "merges": merges,
        "vocab": {t: id for t, id in spec["model"]["vocab"].items() if t in known},
    }
    student = ct.Tokenizer.from_json(json.dumps(spec))
    return ct.HFTeacher(str(folder)), ct.Pair(tok, student, student_eos=tok.eos_ids)


@pytest.fixture(scope="module")
def demo(one_thread: None) -> tuple[Any, Any]:
    """`demo_pair`."""
    return demo_pair()


def test_a_model_is_read_on_over_what_it_has_read(demo: tuple[Any, Any]) -> None:
    teacher, pair = demo
    assert pair.regime == "general"
    texts, ended = (
        ["Return a copy of the string with all occurrences", "Changed in version 3.9: the"],
        [True, False],
    )
    options: dict[str, Any] = {"tolerance": 0.01, "max_rows": 12}
    loose = ct.Scorer(teacher, pair).score(texts, ended=ended)
    packed = ct.Scorer(teacher, pair, **options).score(texts, ended=ended)
    plain = ct.Scorer(Plain(teacher), pair, **options).score(texts, ended=ended)
    own = ct.Scorer(teacher, ct.Pair(pair.teacher, pair.teacher)).score(texts, ended=ended)
    assert packed[0].total == pytest.approx(own[0].total, abs=1e-4)
    for first, then, other in zip(loose, packed, plain, strict=True):
        assert (then.rows > first.rows).any() and (then.rows >= first.rows).all()
        assert (then.prefix_lower >= first.prefix_lower - 1e-4).all()
        assert (then.prefix_upper <= first.prefix_upper + 1e-4).all()
        assert (then.status == Status.CERTIFIED).sum() > (first.status == Status.CERTIFIED).sum() == 0
        assert other.rows.tolist() == then.rows.tolist()
        for name in ("logprobs", "lower", "upper", "prefix_lower", "prefix_upper"):
            np.testing.assert_allclose(getattr(then, name), getattr(other, name), rtol=0, atol=1e-4)


def test_what_a_scorer_refuses_in_the_general_regime(demo: tuple[Any, Any]) -> None:
    teacher, pair = demo
    with pytest.raises(ValueError, match="tolerance 0 needs max_rows"):
        ct.Scorer(teacher, pair, tolerance=0)
    ct.Scorer(teacher, pair, tolerance=0, max_rows=3)
    ct.Scorer(teacher, ct.Pair(pair.teacher, pair.teacher), tolerance=0)
