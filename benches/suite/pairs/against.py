"""Scores against the oracle, as figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import crosstok as ct
import numpy as np

from ..row import Bar, Row
from .positions import Oracle, Position
from .texts import Text

Runs = Mapping[str, Sequence[ct.Score]]


def against_oracle(
    name: str,
    oracle: Oracle,
    texts: Sequence[Text],
    runs: Runs,
    count: int,
    rng: np.random.Generator,
    rounding: float,
) -> Iterator[Row]:
    """At ``count`` random positions: one row for each that the oracle could not close, then what all say together."""
    begin = time.perf_counter()
    found: list[Position] = []
    for position in oracle.positions(texts, count, rng):
        found.append(position)
        missed = [when for when, scores in runs.items() if position.apart(scores[position.text]) > rounding]
        if missed or not position.closed:
            yield _listed(name, texts, position, missed)
    taken = time.perf_counter() - begin
    for when, scores in runs.items():
        yield _summary(f"{name}, {when}", found, scores, rounding)
    spent = np.array([interval.rows for p in found for interval in (p.before, p.after)])
    details: dict[str, float | str] = {"prefixes": len(spent), "rows": int(spent.sum())}
    yield Row("seconds", f"{name}: oracle", taken, "s", None, details)


def _listed(name: str, texts: Sequence[Text], position: Position, missed: Sequence[str]) -> Row:
    """A position that was left open, or at which bounds do not overlap. The value: the share left undecided."""
    text = texts[position.text]
    what = f"{name}: {text.kind} {position.text}, position {position.index}"
    what += ", APART" if missed else ", open"
    lower, upper = position.label
    details: dict[str, float | str] = {"label from": lower, "to": upper}
    details |= {"before": position.before.undecided, "missed": " ".join(missed) or "none"}
    return Row("oracle", what, position.after.undecided, "undecided", None, details)


def _summary(what: str, found: Sequence[Position], scores: Sequence[ct.Score], rounding: float) -> Row:
    """How far bounds are apart at worst; how good the values are where the oracle knows."""
    apart = np.array([position.apart(scores[position.text]) for position in found])
    details: dict[str, float | str] = {"positions": len(found), "disjoint": int((apart > rounding).sum())}
    errors = [_error(p, scores[p.text]) for p in found if p.closed]
    details["closed"] = len(errors)
    if errors:
        quantiles = np.quantile(errors, [0.5, 0.9, 1.0]).tolist()
        details |= dict(zip(("|p - oracle| median", "p90", "max"), quantiles, strict=True))
    worst = float(apart.max(initial=0.0))
    return Row("oracle", f"{what}: bounds apart from the oracle's", worst, "nats", Bar(rounding), details)


def _error(position: Position, score: ct.Score) -> float:
    """Between the probability of the label and the middle of the oracle's bounds."""
    truth = float(np.exp(position.label).mean())
    return abs(float(np.exp(score.logprobs[position.index - 1])) - truth)
