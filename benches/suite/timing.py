"""Seconds of calls: medians of several, and ratios of two that alternate, because machines are noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# A benchmark stops repeating what takes long: seconds spent on one figure.
BUDGET = 20.0


@dataclass(frozen=True)
class Spread:
    """Median, extremes and number of several measurements."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def details(self) -> dict[str, float | str]:
        """For `Row.details`."""
        return {"low": self.low, "high": self.high, "runs": self.runs}


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cpu_seconds(run: Callable[[], Any]) -> float:
    """Processor time of one call, of all threads: other work on the machine counts less than in wall time."""
    start = time.process_time()
    run()
    return time.process_time() - start


def repeated(
    run: Callable[[], Any],
    repeats: int,
    budget: float = BUDGET,
    clock: Callable[[Callable[[], Any]], float] = seconds,
) -> list[float]:
    """Seconds of ``repeats`` calls; of fewer, but at least one, where ``budget`` seconds are spent."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < budget:
        times.append(clock(run))
    return times


def paired(
    base: Callable[[], Any], ours: Callable[[], Any], repeats: int, warm: bool = True
) -> tuple[Spread, Spread]:
    """Ratios ours / base of alternating calls, and the seconds of ``base``. warm: one call each goes before."""
    if warm:
        ours()
        base()
    times = [(seconds(base), seconds(ours)) for _ in range(repeats)]
    return Spread.of([b / a for a, b in times]), Spread.of([a for a, _ in times])
