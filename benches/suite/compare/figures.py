"""What was found, as figures: means over positions; "closed" ones are those where the reference is all but certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..row import Row
from .found import FloatArray, Found
from .sample import CLOSED, Sample
from .ways import Way

Details = dict[str, float | str]


def reference(what: str, sample: Sample, tolerance: float, rows: int) -> Row:
    """How many positions the reference closed, what is undecided at the others, and what it cost.

    tolerance, rows: what it was given, rows a position at most.
    """
    undecided = sample.undecided
    details: Details = {
        "of": len(undecided),
        "share": float(np.mean(sample.closed)),
        f"to {tolerance:g}": int((undecided <= tolerance).sum()),
        "rows at most": rows,
        "rows": float(sample.spent.mean()),
        "undecided": float(undecided.mean()),
        **_cost(sample.seconds, sample),
    }
    if len(left := undecided[~sample.closed]):
        details |= {"open": len(left), "open mean": float(left.mean()), "open worst": float(left.max())}
    closed = int(sample.closed.sum())
    return Row("reference", f"{what}: closed to {CLOSED:g}", closed, "positions", None, details)


def tolerance(what: str, way: Way, found: Found, sample: Sample) -> Row:
    """Rows that a tolerance takes, and what is undecided then."""
    bound = way.options[0]["tolerance"]
    details: Details = {"met": float(np.mean(found.undecided <= bound))}
    details |= {"undecided": float(found.undecided.mean()), "TV": float(np.nanmean(found.tv))}
    details |= _cost(float(found.seconds.sum()), sample)
    return Row("tolerances", f"{what}: {way.name}", float(found.rows.mean()), "rows", None, details)


def errors(what: str, found: Found, sample: Sample, baseline: Found | None = None) -> Row:
    """How far distributions are off. Positions that nothing is said of are counted, and are in no mean.

    baseline: others at the same positions; by how much these are less far off comes with its standard error.
    """
    said = ~np.isnan(found.tv)
    tv, sure = found.tv[said], found.tv[said & sample.closed]
    details: Details = {"silent": int((~said).sum())} if not said.all() else {}
    if not len(tv):
        return Row("errors", f"{what}: says nothing", np.nan, "TV", None, details)
    median, p90, worst = np.quantile(tv, [0.5, 0.9, 1.0]).tolist()
    details |= {"median": median, "p90": p90, "worst": worst}
    if len(sure):
        details |= {"closed": float(sure.mean()), "closed p90": float(np.quantile(sure, 0.9))}
    if not np.array_equal(found.mean_tv, found.tv, equal_nan=True):
        details["of the mean"] = float(found.mean_tv[said].mean())
    details |= _labels(found, sample)
    if not np.isnan(found.undecided).all():
        details["undecided"] = float(found.undecided.mean())
    details |= {"rows": float(found.rows.mean()), **_cost(float(found.seconds.sum()), sample)}
    if baseline is not None:
        less = baseline.tv - found.tv
        details |= {"less by": float(less.mean()), "+-": float(less.std() / np.sqrt(len(less)))}
    return Row("errors", what, float(tv.mean()), "TV", None, details)


def labels(what: str, found: Found, sample: Sample) -> Row:
    """How far the probabilities of labels are off, where a way has no distributions."""
    details = _labels(found, sample)
    value = float(details.pop("label RMSE", np.nan))
    seconds = float(found.seconds.sum())
    details |= {"cpu s an evaluation": seconds / sample.evaluations, **_cost(seconds, sample)}
    return Row("errors", what, value, "label RMSE", None, details)


def _labels(found: Found, sample: Sample) -> Details:
    details: Details = {}
    known = sample.labelled & ~np.isnan(found.label)
    for name, which in (("label RMSE", known), ("closed label RMSE", known & sample.closed)):
        if which.any():
            details[name] = float(np.sqrt(np.mean(found.label[which] ** 2)))
    if silent := int((sample.labelled & ~known).sum()):
        details["silent labels"] = silent
    return details


def _cost(seconds: float, sample: Sample) -> Details:
    """Processor time of a position, and how many times that of a plain forward: what else runs hardly counts."""
    return {"cpu ms": 1000 * seconds / len(sample.position), "x plain": seconds / sample.plain}


def as_json(found: Found) -> Mapping[str, Sequence[float | None]]:
    """Everything by position, seconds by text; to six digits."""
    return {name: rounded(values) for name, values in vars(found).items()}


def rounded(values: FloatArray) -> Sequence[float | None]:
    """For JSON: None where there is none."""
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in values]
