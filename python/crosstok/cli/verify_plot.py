"""The plot of `crosstok verify`: which share of the positions has an error of at most x."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree as xml

import numpy as np

from crosstok.show.palette import BINS

if TYPE_CHECKING:
    from crosstok.ragged import FloatArray
    from crosstok.verify import Verification

# The plot, in pixels: its size, and the box of its axes.
WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 66, 700, 62, 384
# Errors below 10 to this are drawn at the left edge.
LEAST = -12
# Grounds, ink and grid of both kinds of pages, as `show` has them.
PAGES = (("light", "#ffffff", "#1c1a24", "#dedbe3"), ("dark", "#15141a", "#eceaf2", "#3a3745"))
# Two shades that lightness tells apart, and a dash for those who see neither.
CURVES = (("tv", BINS[-2], ""), ("label", BINS[4], "7 4"))


def plot(found: Verification) -> str:
    """Return an SVG image: which share of the positions has an error of at most x, for two kinds of errors."""
    errors = {"tv": found.rows.tv, "label": found.label_error}
    low, high = _decades(np.concatenate([*errors.values(), [found.reference_tolerance]]))
    root = xml.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")
    xml.SubElement(root, "title").text = "Errors of the method against the reference"
    xml.SubElement(root, "style").text = _style()
    xml.SubElement(root, "rect", {"class": "page", "width": str(WIDTH), "height": str(HEIGHT)})
    _axes(root, low, high)
    if found.reference_tolerance > 0:
        x = _across(found.reference_tolerance, low, high)
        _line(root, "mark", x, TOP, x, BOTTOM)
        _text(root, x, TOP - 6, "reference tolerance", "end" if 2 * x > LEFT + RIGHT else "start")
    names = {"tv": f"total variation ({len(errors['tv'])})", "label": f"label error ({len(errors['label'])})"}
    for place, (key, _, _) in enumerate(CURVES):
        if len(errors[key]):
            xml.SubElement(root, "path", {"class": f"curve {key}", "d": _steps(errors[key], low, high)})
        x0, y = LEFT + 210 * place, 24
        xml.SubElement(root, "path", {"class": f"curve {key}", "d": f"M{x0} {y - 4}h30"})
        _text(root, x0 + 38, y, names[key] if len(errors[key]) else f"{names[key]}: none", "start")
    return xml.tostring(root, encoding="unicode") + "\n"


def _decades(errors: FloatArray) -> tuple[int, int]:
    """Powers of ten between which the errors that can be drawn lie."""
    drawn = errors[errors >= 10.0**LEAST]
    if not len(drawn):
        return LEAST, 0
    low, high = math.floor(math.log10(drawn.min())), math.ceil(math.log10(drawn.max()))
    return low, max(high, low + 1)


def _across(error: float, low: int, high: int) -> float:
    """Where an error is drawn; below the axis at its left end."""
    share = (math.log10(error) - low) / (high - low) if error > 0 else 0.0
    return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, share))


def _down(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _steps(errors: FloatArray, low: int, high: int) -> str:
    """The empirical distribution function as a path: steps, one for each tenth of a pixel at most."""
    across = np.array([round(_across(error, low, high), 1) for error in np.sort(errors).tolist()])
    at, count = np.unique(across, return_counts=True)
    shares = np.cumsum(count) / len(errors)
    steps = [f"H{x:.1f}V{_down(share):.1f}" for x, share in zip(at, shares, strict=True)]
    return f"M{LEFT} {BOTTOM}{''.join(steps)}H{RIGHT}"


def _axes(root: xml.Element, low: int, high: int) -> None:
    """Grid, ticks and labels."""
    for power in range(low, high + 1, 1 if high - low <= 8 else 2):
        x = _across(10.0**power, low, high)
        _line(root, "grid", x, TOP, x, BOTTOM)
        _text(root, x, BOTTOM + 18, f"1e{power}" if power else "1", "middle")
    for quarter in range(5):
        y = _down(quarter / 4)
        _line(root, "grid", LEFT, y, RIGHT, y)
        _text(root, LEFT - 8, y + 4, f"{25 * quarter} %", "end")
    middle = (LEFT + RIGHT) / 2
    _text(root, middle, HEIGHT - 14, "error, as a probability (smaller ones are at the left end)", "middle")
    side = _text(root, 0, 0, "share of positions with at most this error", "middle")
    side.set("transform", f"translate(16 {(TOP + BOTTOM) / 2:.0f}) rotate(-90)")


def _line(root: xml.Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    xml.SubElement(root, "line", {"class": kind, **ends})


def _text(root: xml.Element, x: float, y: float, words: str, anchor: str) -> xml.Element:
    element = xml.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    element.text = words
    return element


def _style() -> str:
    """Colours on light and on dark pages."""
    light, dark = [
        f".page{{fill:{page}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}.mark{{stroke:{ink}}}"
        + "".join(f".{key}{{stroke:{getattr(bin, mode).ground}}}" for key, bin, _ in CURVES)
        for mode, page, ink, grid in PAGES
    ]
    dashes = "".join(f".{key}{{stroke-dasharray:{dash}}}" for key, _, dash in CURVES if dash)
    return (
        "text{font:13px system-ui,'DejaVu Sans',sans-serif}.curve{fill:none;stroke-width:2.5}"
        f".mark{{stroke-dasharray:2 3}}{dashes}{light}@media(prefers-color-scheme:dark){{{dark}}}"
    )
