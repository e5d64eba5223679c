"""What a benchmark yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class Unavailable(Exception):
    """A benchmark cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Bar:
    """What a value is held against: it may be at most, or has to be at least, so much."""

    value: float
    at_least: bool = False

    def met(self, measured: float) -> bool:
        """Whether a measured value is on the right side; NaN never is."""
        return measured >= self.value if self.at_least else measured <= self.value


@dataclass(frozen=True)
class Row:
    """One figure. ``details`` are others of the same measurement: spread, baseline, first pass."""

    name: str
    what: str
    value: float
    unit: str
    bar: Bar | None = None
    details: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        return None if self.bar is None else self.bar.met(self.value)

    def as_json(self) -> dict[str, object]:
        """The row as a JSON object. ``bar`` is what the value may be at most, ``bar_at_least`` at least."""
        bar = {} if self.bar is None else {"bar_at_least" if self.bar.at_least else "bar": self.bar.value}
        head = {"name": self.name, "what": self.what, "value": self.value, "unit": self.unit}
        return {**head, **bar, "met": self.met, **self.details}
