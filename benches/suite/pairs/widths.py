"""How far apart the bounds are, before and after rows were spent on them, and how many rows that took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import crosstok as ct
import numpy as np
from crosstok.results import Status

from ..row import Row
from .texts import Text

EDGES = (0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
Runs = Mapping[str, Sequence[ct.Score]]


def widths(name: str, texts: Sequence[Text], runs: Runs, tolerance: float) -> Iterator[Row]:
    """Per kind of text: the bounds' widths as probabilities, rows a position, and what is certified."""
    for kind in dict.fromkeys(text.kind for text in texts):
        which = [i for i, text in enumerate(texts) if text.kind == kind]
        chosen = {when: [scores[i] for i in which] for when, scores in runs.items()}
        for when, scores in chosen.items():
            yield _histogram(f"{name}, {kind}, {when}", scores, tolerance)
        if "after" in chosen:
            yield _rows(f"{name}, {kind}", chosen["before"], chosen["after"])


def _histogram(what: str, scores: Sequence[ct.Score], tolerance: float) -> Row:
    """Share of positions within the tolerance; how many are in each bin, and with which status."""
    found = np.concatenate([np.exp(score.upper) - np.exp(score.lower) for score in scores])
    status = np.concatenate([score.status for score in scores])
    details: dict[str, float | str] = {"positions": len(found)}
    details |= {s.name.lower(): int((status == s).sum()) for s in Status if (status == s).any()}
    for low, high in zip((-np.inf, *EDGES), EDGES, strict=False):
        details[f"<={high:g}"] = int(((found > low) & (found <= high)).sum())
    within = float(np.mean(found <= tolerance))
    return Row("widths", f"{what}: width <= {tolerance:g}", within, "", None, details)


def _rows(what: str, before: Sequence[ct.Score], after: Sequence[ct.Score]) -> Row:
    first, all_rows = (np.concatenate([score.rows for score in scores]) for scores in (before, after))
    spent = all_rows - first
    details = {"median": float(np.median(spent)), "p90": float(np.quantile(spent, 0.9))}
    details |= {"max": float(spent.max()), "share with none": float(np.mean(spent == 0))}
    details["rows before"] = float(first.mean())
    return Row("widths", f"{what}: further rows a position", float(spent.mean()), "", None, details)
