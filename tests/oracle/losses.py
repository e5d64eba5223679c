"""Losses of one position at a time, written out: plain Python floats, one loop a sum, no shortcuts.

A teacher's row is a list of log-probabilities, −inf for 0; it may sum to less than 1 and is divided by its sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Row = Sequence[float]


def softmax(logits: Row) -> list[float]:
    """Probabilities; a logit of −inf has none."""
    peak = max(logits)
    weights = [math.exp(z - peak) for z in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def normalised(row: Row) -> list[float]:
    """The teacher's probabilities, which sum to 1."""
    weights = [math.exp(x) for x in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def divergence(p: Iterable[float], q: Iterable[float]) -> float:
    """Σ p log(p / q); 0 where p is 0, infinite where only q is."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            total += math.inf if b == 0 else a * (math.log(a) - math.log(b))
    return total


def full(logits: Row, teacher: Row, temperature: float = 1.0) -> float:
    """The divergence over whole rows. The teacher's may be shorter than the logits."""
    q = softmax([z / temperature for z in logits])
    p = normalised(teacher)
    return divergence(p + [0.0] * (len(q) - len(p)), q)


def kept_ids(teacher: Row, k: int, label: int | None) -> list[int]:
    """The k likeliest tokens that have probability, by falling probability, and the label if it has any."""
    order = sorted((v for v in range(len(teacher)) if teacher[v] > -math.inf), key=lambda v: (-teacher[v], v))
    kept = order[:k]
    if label is not None and label in order[k:]:
        kept.append(label)
    return kept


def with_rest(probabilities: Row, kept: Sequence[int]) -> list[float]:
    """The probabilities of the kept tokens, and one number for all others."""
    rest = math.fsum(p for v, p in enumerate(probabilities) if v not in kept)
    return [probabilities[v] for v in kept] + [rest]


def partial(logits: Row, teacher: Row, k: int, label: int | None, temperature: float = 1.0) -> float:
    """The divergence over the kept tokens and the rest."""
    kept = kept_ids(teacher, k, label)
    q = softmax([z / temperature for z in logits])
    return divergence(with_rest(normalised(teacher), kept), with_rest(q, kept))


def cross_entropy(logits: Row, label: int) -> float:
    """−log q(label)."""
    q = softmax(logits)[label]
    return math.inf if q == 0 else -math.log(q)


def full_gradient(logits: Row, teacher: Row) -> list[float]:
    """d full / d logits: q - p."""
    q, p = softmax(logits), normalised(teacher)
    return [b - a for a, b in zip(p + [0.0] * (len(q) - len(p)), q, strict=True)]
