"""Colours for probabilities: one scale that gets steadily darker (or, on dark ground, lighter) towards the unlikely.

The order can be read from lightness alone, so colour blindness does not matter, and every ground has its own colour of
text, at a contrast of at least 4.5 to 1 (WCAG AA; a test computes it). The hues are those of matplotlib's magma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shade:
    """Colours of ground and text, as #rrggbb."""

    ground: str
    text: str


@dataclass(frozen=True)
class Bin:
    """Probabilities from ``least`` up to the bin before; shades on light and on dark pages."""

    least: float
    label: str
    light: Shade
    dark: Shade


BINS = (
    Bin(0.9, "0.9 – 1", Shade("#f3f2f0", "#1c1a24"), Shade("#2b2933", "#eceaf2")),
    Bin(0.5, "0.5 – 0.9", Shade("#fdeccb", "#1c1a24"), Shade("#432357", "#f5eefb")),
    Bin(0.2, "0.2 – 0.5", Shade("#fecf92", "#1c1a24"), Shade("#6c2080", "#fdf2fb")),
    Bin(0.05, "0.05 – 0.2", Shade("#fda06c", "#1c1a24"), Shade("#a5317e", "#ffffff")),
    Bin(0.01, "0.01 – 0.05", Shade("#ee6a5f", "#160d1d"), Shade("#e8616a", "#160d1d")),
    Bin(0.001, "0.001 – 0.01", Shade("#b5367a", "#ffffff"), Shade("#fd9f6c", "#160d1d")),
    Bin(0.0, "below 0.001", Shade("#641a80", "#ffffff"), Shade("#fde2a3", "#160d1d")),
    Bin(-1.0, "0, impossible", Shade("#140e36", "#ffffff"), Shade("#ffffff", "#160d1d")),
)
IMPOSSIBLE = len(BINS) - 1


def bin_of(logprob: float) -> int:
    """Which of `BINS` a log-probability falls into; only −inf is impossible."""
    if logprob == -math.inf:
        return IMPOSSIBLE
    p = math.exp(logprob)
    return next(at for at, bin in enumerate(BINS) if p >= bin.least)


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two colours #rrggbb, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
