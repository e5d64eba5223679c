"""The options --tolerance and --max-rows, which go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    import crosstok as ct


def check_options(tolerance: float | None, max_rows: int | None) -> None:
    """Raise CrosstokError for a limit on rows that are not read."""
    if max_rows is not None and tolerance is None:
        raise CrosstokError("--max-rows needs --tolerance, which says when fewer rows are enough")


def check_pair(pair: ct.Pair, tolerance: float | None, max_rows: int | None) -> None:
    """Raise CrosstokError for a tolerance that a model would be asked for rows without end to meet."""
    if pair.regime == "general" and tolerance == 0 and max_rows is None:
        raise CrosstokError("--tolerance 0 needs --max-rows: a model would be asked for rows without end")
