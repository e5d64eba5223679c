"""An `Explanation` for a terminal: tokens on the colours of their probabilities, then the least likely ones."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from crosstok.show.explanation import Cover, Explanation, Position
from crosstok.show.palette import BINS, IMPOSSIBLE, bin_of
from crosstok.show.pieces import plain

# How many tokens the table has, and how many covers of each.
LEAST, COVERS = 12, 3
# What is read of a cover: beyond this many characters it is cut.
PATH = 28


def rendered(
    explanation: Explanation, width: int = 80, colour: bool = True, dark: bool | None = None
) -> Iterator[RenderableType]:
    """Yield what rich prints on lines of ``width`` characters.

    colour: tokens stand on colours, else they are parted by bars. dark: colours for a dark ground; None: as COLORFGBG
    tells, dark if it does not.
    """
    dark = on_dark() if dark is None else dark
    yield _totals(explanation)
    yield Text()
    if colour:
        yield from (_legend(explanation, dark), Text())
    yield _tokens(explanation, width, " " if colour else "│", dark)
    yield Text()
    yield _table(explanation, dark)


def on_dark() -> bool:
    """Whether the terminal's ground is dark: its colour is the last of the numbers in COLORFGBG, where that is set."""
    return os.environ.get("COLORFGBG", "").rpartition(";")[2] not in ("7", "15")


def _totals(explanation: Explanation) -> Text:
    bits = explanation.bits_per_byte
    per_byte = "" if bits is None else f", {bits:.4f} bits per byte"
    ended = "with end-of-text" if explanation.ended else "cut off"
    low, high = explanation.total_bounds
    bounds = "" if low == high else f" ({low:.4f} to {high:.4f})"
    head = Text(f"log P {explanation.total:.4f} nats", style="bold")
    head.append(f"{bounds}{per_byte}  ({explanation.regime})", style="not bold")
    head.append(
        f"\n{len(explanation.positions)} student and {len(explanation.teacher)} teacher tokens ({ended}), "
        f"{explanation.rows} teacher rows, mean non-canonical mass {explanation.mean_noncanonical:.2g}",
        style="not bold",
    )
    if explanation.bounded:
        head.append(
            "\nsome covers are undecided: probabilities are estimates between bounds", style="not bold"
        )
    return head


def _style(logprob: float, dark: bool) -> Style:
    """Colours of a token; the likely ones are left as the terminal has them."""
    return _shade(bin_of(logprob), dark)


def _shade(at: int, dark: bool) -> Style:
    if at == 0:
        return Style()
    shade = BINS[at].dark if dark else BINS[at].light
    return Style(color=shade.text, bgcolor=shade.ground, strike=at == IMPOSSIBLE)


def _legend(explanation: Explanation, dark: bool) -> Text:
    impossible = any(position.logprob == -math.inf for position in explanation.positions)
    text = Text("p ")
    for at, bin in enumerate(BINS if impossible else BINS[:-1]):
        label = (
            f"≥ {bin.least:g}" if bin.least > 0 else "0" if at == IMPOSSIBLE else f"< {BINS[at - 1].least:g}"
        )
        text.append(" ").append(f" {label} ", _shade(at, dark))
    return text


def _name(position: Position) -> str:
    return "(end)" if position.token.is_end else plain(position.token.piece)


def _tokens(explanation: Explanation, width: int, bar: str, dark: bool) -> Text:
    """The text, its tokens apart by ``bar``; lines are cut between tokens."""
    text, used = Text(overflow="fold"), 0
    for position in explanation.positions:
        name = _name(position)
        room = used + cell_len(bar) + cell_len(name) <= width
        if used:
            text.append(bar if room else "\n", "dim")
        used = used + cell_len(bar) if used and room else 0
        text.append(name, _style(position.logprob, dark))
        used += cell_len(name)
        if b"\n" in position.token.piece:
            text.append("\n")
            used = 0
    return text


def _table(explanation: Explanation, dark: bool) -> Table:
    order = explanation.least_likely()[:LEAST]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title, table.title_justify, table.title_style = "least likely tokens", "left", "bold"
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("token", overflow="fold", max_width=20)
    for name in ("p", *(["bounds of p"] if explanation.bounded else []), "log p", "covers"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("largest covers and their shares", overflow="fold")
    for at in order:
        position = explanation.positions[at]
        bounds = Text(_bounds(position), style="dim")
        table.add_row(
            Text(str(at + 1)),
            Text(_name(position), _style(position.logprob, dark)),
            Text(_probability(position.logprob)),
            *([bounds] if explanation.bounded else []),
            Text(f"{position.logprob:.4f}"),
            Text(str(len(position.covers) + position.rest)),
            _covers(position),
        )
    return table


def _covers(position: Position) -> Text:
    text = Text()
    for cover in position.covers[:COVERS]:
        text.append("   " if text else "")
        text.append(_path(cover), "cyan")
        text.append(f" {_percent(cover.share)}")
        if cover.kind != "in":
            text.append(f" {cover.kind}", "dim")
    others = len(position.covers[COVERS:]) + position.rest
    if others:
        text.append(f"   +{others}", "dim")
    return text


def _path(cover: Cover) -> str:
    pieces = ["(end)" if token.is_end else plain(token.piece) for token in cover.tokens]
    path = "·".join([*pieces, "…"] if cover.kind == "partly" else pieces)
    return path if len(path) <= PATH else path[: PATH - 1] + "…"


def _bounds(position: Position) -> str:
    if not position.bounded:
        return "exact"
    return f"{_probability(position.lower)}-{_probability(position.upper)}"


def _percent(share: float) -> str:
    if 0.9995 <= share < 1 - 1e-9:
        return ">99.9%"
    return f"{100 * share:.1f}%" if share >= 0.001 or share == 0 else "<0.1%"


def _probability(logprob: float) -> str:
    p = math.exp(logprob)
    return f"{p:.4f}" if p >= 0.001 or p == 0 else f"{p:.1e}"
