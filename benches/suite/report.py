"""Rows as a table that grows while it is measured, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from .row import Row


def head(facts: Mapping[str, object]) -> str:
    """What the rows were measured on, one fact a line."""
    return "\n".join(f"{name:>14}  {value}" for name, value in facts.items())


def line(row: Row) -> str:
    """One line of the table."""
    bar = met = ""
    if row.bar is not None:
        bar = f"{'>=' if row.bar.at_least else '<='} {number(row.bar.value)}"
        met = "met" if row.met else "NOT MET"
    details = ", ".join(f"{name} {number(value)}" for name, value in row.details.items())
    return f"  {row.what:<52} {number(row.value):>11} {row.unit:<13} {bar:<9} {met:<7}  {details}".rstrip()


def number(value: float | str) -> str:
    """Three digits are as many as a noisy machine gives."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def write(path: Path, facts: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Write the machine and the rows as JSON; infinities and NaN become strings."""
    found = {"measured_on": facts, "rows": [_plain(row.as_json()) for row in rows]}
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(row: dict[str, object]) -> dict[str, object]:
    return {key: _finite(value) for key, value in row.items()}


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
