"""What brute force has to say about `crosstok`'s numbers for one sample (`general_pairs`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from general_pairs import Sample
from oracle.brute import Ids
from oracle.general import GeneralScorer

Interval = tuple[float, float]
Tally = Counter[str]

TOLERANCE = 1e-9
BUDGETS = (0, 1, 2, 4, 8, None)
EXACT, CERTIFIED, ESTIMATED, UNSUPPORTED = 0, 1, 2, 4


def failures(samples: Iterable[Sample], check: Callable[[Sample], None]) -> str:
    """Runs a check on samples until three have failed, and says what went wrong with which."""
    failed = (text for sample in samples if (text := _failure(sample, check)))
    return "\n".join(["samples that fail, the first:", *found]) if (found := list(islice(failed, 3))) else ""


def _failure(sample: Sample, check: Callable[[Sample], None]) -> str:
    """A sample that fails is judged once more, by a deeper enumeration: the horizon may have been too near."""
    try:
        check(sample)
    except AssertionError:
        try:
            check(sample.deeper())
        except AssertionError as error:
            return f"{sample}: {error}"
    return ""


def steps(sample: Sample, ended: bool = True) -> list[tuple[Ids, bool]]:
    """The empty prefix, then s_1..s_i for each i, then the ended text."""
    prefixes = [(sample.ids[:i], False) for i in range(len(sample.ids) + 1)]
    return [*prefixes, (sample.ids, True)] if ended else prefixes


def truths(sample: Sample, mode: str, ended: bool = True) -> tuple[list[Interval], list[Interval]]:
    """Brute intervals of P(s_1..s_i) and of P(s_i | s_<i), for each label."""
    known = [sample.truths[mode].probability(*step) for step in steps(sample, ended)]
    parts = [ratio(after, before) for before, after in pairwise(known)]
    return known[1:], parts


def ratio(after: Interval, before: Interval) -> Interval:
    """P(s·v) / P(s); 0 where P(s) = 0 (−inf after a token of probability zero)."""
    if before[1] == 0:
        return 0.0, 0.0
    return after[0] / before[1], min(1.0, after[1] / before[0]) if before[0] > 0 else 1.0


def inside(low: float, high: float, truth: Interval, what: str) -> None:
    """Bounds and truth (intervals both) overlap: where the truth is exact, it is inside. low, high: logarithms."""
    assert not math.isnan(low) and not math.isnan(high), what
    bounds = f"{what}: bounds [{math.exp(low):.15g}, {math.exp(high):.15g}], brute force {truth}"
    assert low <= high, bounds
    assert math.exp(low) <= truth[1] * (1 + TOLERANCE) + 1e-15, bounds
    assert math.exp(high) >= truth[0] * (1 - TOLERANCE) - 1e-15, bounds


def equal(value: float, truth: Interval, what: str, scale: float = 1.0) -> None:
    """A logarithm whose exponential is the truth to `TOLERANCE` (of `scale`), and what the truth itself is short of."""
    assert not math.isnan(value), what
    error = abs(math.exp(value) - truth[0])
    assert error <= TOLERANCE * scale + truth[1] - truth[0] + 1e-15, (
        f"{what}: {math.exp(value):.15g}, brute force {truth}"
    )
    if truth == (0.0, 0.0) or truth[0] > 1e-12:
        assert (value == -math.inf) == (truth[1] == 0), f"{what}: {value}, brute force {truth}"


def check_score(sample: Sample, mode: str, score: Any, ended: bool = True) -> None:
    """Bounds hold the truth, in order, at every position; statuses say what the bounds do."""
    prefixes, parts = truths(sample, mode, ended)
    assert score.student_ids.tolist() == [*sample.ids, *[sample.student.eos] * ended]
    assert len(score.lower) == len(parts)
    for i, (prefix, part) in enumerate(zip(prefixes, parts, strict=True)):
        what = f"{mode}, position {i}"
        inside(score.prefix_lower[i], score.prefix_upper[i], prefix, f"{what}, prefix")
        inside(score.lower[i], score.upper[i], part, f"{what}, label")
        assert score.lower[i] <= score.logprobs[i] <= score.upper[i], what
    check_statuses(sample, sample.truths[mode], score, mode)


def check_statuses(sample: Sample, truth: GeneralScorer, score: Any, mode: str) -> None:
    """Exact only where bounds agree, unsupported only where the text hangs on nodes with next to no mass."""
    assert set(score.status.tolist()) <= {EXACT, CERTIFIED, ESTIMATED, UNSUPPORTED}
    exact = score.status == EXACT
    assert np.array_equal(score.lower[exact], score.upper[exact]), f"{mode}: exact, but {score}"
    for i in np.flatnonzero(score.status == UNSUPPORTED):
        done = bool(i == len(sample.ids))
        thin = truth.thinnest_node(sample.ids[: i + 1], done) < 1.01e-4
        assert thin or score.prefix_lower[i] < -30, f"{mode}, position {i}: unsupported"


def check_exact(sample: Sample, mode: str, score: Any, ended: bool = True) -> None:
    """Tolerance 0: both bounds meet the truth."""
    prefixes, parts = truths(sample, mode, ended)
    for i, (prefix, part) in enumerate(zip(prefixes, parts, strict=True)):
        for bound in ("lower", "upper"):
            what = f"{mode}, tolerance 0, position {i}, {bound}"
            equal(getattr(score, f"prefix_{bound}")[i], prefix, f"{what}, prefix", scale=prefix[1])
            equal(getattr(score, bound)[i], part, f"{what}, label")
        assert score.status[i] in (EXACT, CERTIFIED, UNSUPPORTED), f"{mode}, position {i}: {score.status[i]}"


def check_total(sample: Sample, mode: str, score: Any) -> None:
    """The ended text has q(τ(x))·q(end), whatever the student, and whatever the bounds of its parts are."""
    tau = sample.brute.teacher.encode(sample.text)
    assert tau is not None
    total = sample.truths[mode].q(tau, True)
    assert score.prefix_lower[-1] == score.prefix_upper[-1], mode
    equal(score.prefix_lower[-1], (total, total), f"{mode}, total", scale=total)


def check_sum(sample: Sample, mode: str, score: Any) -> None:
    """Tolerance 0: the labels' logarithms add up to the total. (Estimates need not: each is kept in its bounds.)"""
    if np.isfinite(score.logprobs).all():
        total = sample.truths[mode].probability(sample.ids, True)
        added = float(score.logprobs.sum())
        equal(added, total, f"{mode}, sum of labels", scale=total[1] * len(score.logprobs))


def check_nested(scores: Sequence[Any], what: str) -> None:
    """Each score's bounds lie in those of the one before, which had fewer rows."""
    for wide, tight in pairwise(scores):
        for low, high in (("prefix_lower", "prefix_upper"), ("lower", "upper")):
            fell = at_most(getattr(wide, low), getattr(tight, low)) & at_most(
                getattr(tight, high), getattr(wide, high)
            )
            assert fell.all(), f"{what}: {low}, {high} grew at {np.flatnonzero(~fell)}: {wide} then {tight}"


def at_most(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """a ≤ b as probabilities, but for rounding. a, b: logarithms."""
    return np.exp(a) <= np.exp(b) * (1 + 1e-12)


def check_widths(score: Any, tolerance: float, what: str) -> None:
    """No label is wider than the tolerance."""
    width = np.exp(score.upper) - np.exp(score.lower)
    fine = (width <= tolerance * (1 + 1e-9)) | (score.status == UNSUPPORTED)
    assert fine.all(), f"{what}: tolerance {tolerance}, widths {width}, {score}"
    assert not (score.status == ESTIMATED).any(), f"{what}: {score}"


def check_next(sample: Sample, mode: str, following: Any, prefix: Ids, exact: bool, tally: Tally) -> None:
    """Every student token's P(v | s); with `exact` also what is missing to 1: the inadmissible mass."""
    truth = sample.truths[mode]
    before, known = truth.probability(prefix), truth.next_tokens(prefix)
    lower, upper, row = (
        np.asarray(x, dtype=np.float64) for x in (following.lower, following.upper, following.logprobs)
    )
    for token in range(len(lower)):
        what = f"{mode}, next token {token} after {prefix}"
        part = ratio(known.get(token, (0.0, 0.0)), before)
        inside(lower[token], upper[token], part, what)
        assert lower[token] <= row[token] <= upper[token], what
        if exact:
            equal(lower[token], part, f"{what}, tolerance 0")
            equal(upper[token], part, f"{what}, tolerance 0")
    lost = 1 - math.fsum(low for low, _ in known.values()) / before[0]
    given = sum(high - low for low, high in known.values()) / before[0]
    missing = 1 - np.exp(row).sum()
    if exact:
        assert abs(missing - lost) <= TOLERANCE + given, (
            f"{mode}: {missing} missing after {prefix}, not {lost}"
        )
    tally["distributions"] += 1


def check_continuations(sample: Sample, mode: str, prefix: Ids, tally: Tally) -> None:
    """P(s·v) of every v that can follow s, each by a text that has it, together the mass that is not lost."""
    truth = sample.truths[mode]
    stem = sample.brute.student.text_bytes(prefix)
    before = truth.probability(prefix)
    if stem is None or before[0] == 0:
        return
    shortest: dict[int, str] = {}
    for text, (_, sigma) in sorted(sample.brute.texts_from(stem).items(), key=lambda known: len(known[0])):
        if sigma[: len(prefix)] == prefix:
            shortest.setdefault((*sigma, sample.student.eos)[len(prefix)], text)
    tokens, texts = list(shortest), list(shortest.values())
    prompts = None if sample.prompt is None else [sample.prompt] * len(texts)
    scores = sample.scorer(mode, tolerance=0.0).score(texts, prompts)
    known = truth.next_tokens(prefix)
    for token, text, score in zip(tokens, texts, scores, strict=True):
        what = f"{mode}, {prefix} then {token} in {text!r}"
        found, part = score.prefix_lower[len(prefix)], known.get(token, (0.0, 0.0))
        equal(found, part, what, scale=max(part[1], 1e-6))
    total = math.fsum(math.exp(score.prefix_lower[len(prefix)]) for score in scores) / before[0]
    lost = 1 - math.fsum(low for low, _ in known.values()) / before[0]
    given = sum(high - low for low, high in known.values()) / before[0]
    assert abs(1 - total - lost) <= TOLERANCE + given, f"{mode}: {1 - total} lost after {prefix}, not {lost}"
    tally["rows with inadmissible mass"] += mode == "renormalize" and lost > 1e-6
