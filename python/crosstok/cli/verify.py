"""`crosstok verify`: how far a method's numbers are from the truth on lines of a file; a table, JSON and a plot."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as xml

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from crosstok.cli.load import choose_device, load_pair, load_teacher
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Row, prompt_ids
from crosstok.cli.settings import check_writable
from crosstok.cli.source import Place, Source, check_row, input_error
from crosstok.cli.table import STATUS
from crosstok.errors import CrosstokError, TeacherError, TextError
from crosstok.show.palette import BINS
from crosstok.verify import Verification, draw, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    import crosstok as ct
    from crosstok.ragged import FloatArray, IntArray

    Report = Callable[[str, int, int], None]

# Options that go to `crosstok.verify.verify` as they are.
OPTIONS: tuple[str, ...] = ("canonical", "tolerance", "max_rows", "temperature", "positions", "seed")
OPTIONS += ("reference_tolerance", "reference_max_rows")
# Attributes of a `Verification`, and of its `Rows`, that JSON has of every position.
LABELS: tuple[str, ...] = ("position", "student_ids", "status", "logprobs", "lower", "upper", "rows_used")
LABELS += ("reference_logprobs", "reference_lower", "reference_upper", "reference_rows")
LABELS += ("label_error", "log_error", "bounds_held", "closed")
ROWS = ("tv", "tv_within", "undecided", "width", "label_lower", "label_upper")
# Exit status where a bound did not hold.
BROKEN = 1
# How many positions a line of the table names.
NAMED = 8


@dataclass(frozen=True)
class Check:
    """The options of `crosstok verify`; see `app.verify`."""

    teacher: str
    student: str
    input: Path
    sample: int = 20
    positions: int = 100
    seed: int = 0
    dtype: str = "float32"
    device: str | None = None
    canonical: str = "renormalize"
    tolerance: float | None = None
    max_rows: int | None = None
    temperature: float = 1.0
    reference_tolerance: float = 0.001
    reference_max_rows: int = 2000
    batch_tokens: int | None = None
    teacher_eos: Sequence[int] | None = None
    student_eos: Sequence[int] | None = None
    json: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Raise CrosstokError for options that do not go together, and for outputs that cannot be written."""
        if self.max_rows is not None and self.tolerance is None:
            raise CrosstokError("--max-rows needs --tolerance, which says when fewer rows are enough")
        if not 0 < self.temperature < math.inf:
            raise CrosstokError(f"--temperature {self.temperature}: must be positive and finite")
        seen = {self.input.resolve()}
        for path in filter(None, (self.json, self.plot)):
            check_writable(path)
            if path.resolve() in seen:
                raise CrosstokError(f"{path}: is the input or another output too")
            seen.add(path.resolve())

    def check_pair(self, pair: ct.Pair) -> None:
        """Raise CrosstokError for a tolerance that a model would be asked for rows without end to meet."""
        if pair.regime == "general" and self.tolerance == 0 and self.max_rows is None:
            raise CrosstokError("--tolerance 0 needs --max-rows: a model would be asked for rows without end")


@dataclass(frozen=True, eq=False)
class Checked:
    """What came out; ``lines``: the numbers of the lines drawn."""

    options: Check
    pair: ct.Pair
    lines: IntArray
    found: Verification

    def where(self, places: IntArray) -> str:
        """The first few of some positions, for people."""
        text, position = self.found.text[places], self.found.position[places]
        named = [f"line {self.lines[t]} token {p}" for t, p in zip(text, position, strict=True)]
        return ", ".join(named[:NAMED]) + (", …" if len(named) > NAMED else "")


def run(check: Check, report: Report) -> Checked:
    """Draw lines and verify them. report: takes what is being done, how many are, and of how many.

    Raises CrosstokError for mistakes, with file and line where they are about one.
    """
    check.check()
    pair = load_pair(check.teacher, check.student, check.teacher_eos, check.student_eos)
    check.check_pair(pair)
    device = choose_device(check.device)
    prompts = PromptEncoder(check.teacher)
    with Source(check.input) as source:
        rows = _drawn(source, check)
        for row in rows:
            check_row(check.input, row, pair, prompts)
    if not any(row.text or row.ended for row in rows):
        raise CrosstokError(f"{check.input}: the lines drawn have no student tokens")
    ids = [prompt_ids(check.input, row, prompts) for row in rows]
    teacher = load_teacher(check.teacher, check.dtype, device, check.batch_tokens)
    try:
        found = _verify(check, teacher, pair, rows, ids, report)
    except (TextError, TeacherError) as error:
        raise _blame(check.input, rows, error) from error
    except torch.OutOfMemoryError as error:
        raise CrosstokError("out of memory: fewer --batch-tokens need less") from error
    return Checked(check, pair, np.array([row.line for row in rows]), found)


def _verify(
    check: Check,
    teacher: ct.HFTeacher,
    pair: ct.Pair,
    rows: list[Row],
    ids: list[tuple[int, ...] | None],
    report: Report,
) -> Verification:
    texts, ended = [row.text for row in rows], [row.ended for row in rows]
    options: dict[str, Any] = {name: getattr(check, name) for name in OPTIONS}
    return verify(teacher, pair, texts, ids, ended, report=report, **options)


def _drawn(source: Source, check: Check) -> list[Row]:
    """The lines to verify. Lines that come before the last of them have to be records as well."""
    count = source.survey().records
    if not count:
        raise CrosstokError(f"{check.input}: nothing to verify")
    index = draw(count, check.sample, check.seed)
    wanted = set(index.tolist())
    rows = source.rows(Place(), int(index[-1]) + 1)
    return [row for row, after in rows if after.index - 1 in wanted]


def _blame(path: Path, rows: list[Row], error: TextError | TeacherError) -> CrosstokError:
    """The error with file and line."""
    if error.index is None:
        return error
    line = rows[error.index].line
    if isinstance(error, TextError):
        return input_error(path, line, error)
    return InputError(path, line, error.reason)


def print_verification(console: Console, checked: Checked) -> None:
    """Print the table of errors, and what else is to be known of them."""
    for table in (spread_table(checked.found), count_table(checked), effort_table(checked)):
        console.print(table, "")


def spread_table(found: Verification) -> Table:
    """Return the errors: one line a kind."""
    table = _table("", "mean", "median", "90 %", "worst")
    names = ("total variation", "undecided mass", "label error, probability", "label error, nats")
    for name, spread in zip(names, found.spreads().values(), strict=True):
        values = (spread.mean, spread.median, spread.p90, spread.worst) if spread else ()
        table.add_row(name, *(f"{value:.2e}" for value in values))
    table.add_row("label error, root mean square", f"{found.label_rmse:.2e}")
    return table


def count_table(checked: Checked) -> Table:
    """Return how many positions there are, of which kind, and whether bounds held."""
    found, table = checked.found, _table("", "")
    total, rows = len(found.text), found.rows
    table.add_row("texts", str(found.texts))
    table.add_row("positions", str(total))
    for status in np.unique(found.status).tolist():
        table.add_row(f"  {STATUS[status]}", str(int((found.status == status).sum())))
    table.add_row("bounds held", f"{int(found.bounds_held.sum())} of {total}")
    _add_list(table, "  not", checked, np.flatnonzero(~found.bounds_held), "bold red")
    table.add_row("reference closed", f"{int(found.closed.sum())} of {total}")
    _add_list(table, "  not", checked, np.flatnonzero(~found.closed))
    table.add_row("distributions compared", f"{len(rows.at)} of {rows.drawn}")
    if rows.problem is not None:
        table.add_row("  not", Text(rows.problem))
    table.add_row("their bounds held", f"{int(found.rows_held.sum())} of {len(rows.at)}")
    _add_list(table, "  not", checked, rows.at[~found.rows_held], "bold red")
    table.add_row("their reference closed", f"{int(found.rows_closed.sum())} of {len(rows.at)}")
    _add_list(table, "  not", checked, rows.at[~found.rows_closed])
    if len(rows.at):
        table.add_row("total variation known to within", f"{rows.tv_within.max():.2e}")
    return table


def effort_table(checked: Checked) -> Table:
    """Return options, rows and seconds of both."""
    found, options = checked.found, checked.options
    table, seconds = _table("", "method", "reference"), found.seconds
    none = options.tolerance is None
    table.add_row("tolerance", "none" if none else str(options.tolerance), str(found.reference_tolerance))
    limit = "no limit" if options.max_rows is None else str(options.max_rows)
    table.add_row(
        "further rows for one position, at most", "0" if none else limit, str(options.reference_max_rows)
    )
    used, again = int(found.rows_used.sum()), int(found.reference_rows.sum())
    table.add_row("teacher rows for labels", str(used), str(again))
    total = len(found.text)
    table.add_row("  for one", f"{used / total:.2f}", f"{again / total:.2f}")
    table.add_row("seconds for labels", f"{seconds.labels:.2f}", f"{seconds.reference_labels:.2f}")
    table.add_row("seconds for distributions", f"{seconds.rows:.2f}", f"{seconds.reference_rows:.2f}")
    return table


def _add_list(table: Table, name: str, checked: Checked, places: IntArray, style: str = "") -> None:
    if len(places):
        table.add_row(Text(name, style), Text(checked.where(places), style))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(others))
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right", overflow="fold")
    return table


def as_json(checked: Checked) -> dict[str, Any]:
    """Return all there is. Infinite numbers are the strings "inf" and "-inf"."""
    found, rows, options = checked.found, checked.found.rows, asdict(checked.options)
    labels = {"line": checked.lines[found.text], **{name: getattr(found, name) for name in LABELS}}
    compared: dict[str, Any] = {name: getattr(rows, name) for name in ROWS}
    compared.update(line=checked.lines[found.text[rows.at]], position=found.position[rows.at])
    compared.update(bounds_held=found.rows_held, closed=found.rows_closed)
    spreads = {name: spread and asdict(spread) for name, spread in found.spreads().items()}
    record = {
        "options": {name: str(x) if isinstance(x, Path) else x for name, x in options.items()},
        "regime": checked.pair.regime,
        "texts": found.texts,
        "positions": len(found.text),
        "bounds_held": int(found.bounds_held.sum()),
        "reference_closed": int(found.closed.sum()),
        "distributions": len(rows.at),
        "distributions_drawn": rows.drawn,
        "distributions_problem": rows.problem,
        "distributions_held": int(found.rows_held.sum()),
        "distributions_closed": int(found.rows_closed.sum()),
        "rounding_nats": found.rounding,
        "errors": spreads,
        "label_rmse": found.label_rmse,
        "rows": int(found.rows_used.sum()),
        "reference_rows": int(found.reference_rows.sum()),
        "seconds": asdict(found.seconds),
        "labels": {name: values.tolist() for name, values in labels.items()},
        "compared": {name: values.tolist() for name, values in compared.items()},
    }
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    """The same with strings for infinities, which JSON has not."""
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def write_outputs(checked: Checked) -> None:
    """Write the files that were asked for. Raises CrosstokError where that cannot be."""
    if checked.options.json is not None:
        _write(checked.options.json, json.dumps(as_json(checked), allow_nan=False) + "\n")
    if checked.options.plot is not None:
        _write(checked.options.plot, plot(checked.found))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CrosstokError(f"{path}: {error.strerror}") from error


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
