"""`crosstok verify`: how far a method's numbers are from the truth on lines of a file; a table, JSON and a plot."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from crosstok.cli import tolerance
from crosstok.cli.load import choose_device, load_pair, load_teacher
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Row, prompt_ids
from crosstok.cli.settings import check_writable
from crosstok.cli.source import Place, Source, check_row, input_error
from crosstok.cli.table import STATUS
from crosstok.cli.verify_plot import plot
from crosstok.errors import CrosstokError, TeacherError, TextError
from crosstok.verify import Verification, draw, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    import crosstok as ct
    from crosstok.pair import BoolArray
    from crosstok.ragged import IntArray

    Report = Callable[[str, int, int], None]

# Options that go to `crosstok.verify.verify` as they are.
OPTIONS: tuple[str, ...] = ("canonical", "method", "tolerance", "max_rows", "temperature")
OPTIONS += ("positions", "seed", "reference_tolerance", "reference_max_rows")
# Attributes of a `Verification`, and of its `Rows`, that JSON has of every position.
LABELS: tuple[str, ...] = ("position", "student_ids", "status", "logprobs", "lower", "upper", "rows_used")
LABELS += ("reference_logprobs", "reference_lower", "reference_upper", "reference_rows")
LABELS += ("label_error", "log_error", "bounds_held", "closed")
ROWS = ("tv", "tv_within", "undecided", "width", "label_lower", "label_upper", "certified_tv")
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
    method: str = "auto"
    method_option: Sequence[str] = ()
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
        tolerance.check_options(self.tolerance, self.max_rows)
        if self.method != "auto" and self.tolerance is not None:
            raise CrosstokError(f"--tolerance is for --method auto, not for {self.method}")
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
        tolerance.check_pair(pair, self.tolerance, self.max_rows)


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
    options["method_options"] = method_options(check.method_option)
    try:
        return verify(teacher, pair, texts, ids, ended, report=report, **options)
    except ValueError as error:
        if check.method_option:
            raise CrosstokError(f"--method-option: {error}") from error
        raise


def method_options(given: Sequence[str]) -> dict[str, Any]:
    """From NAME=VALUE: numbers where they are, else strings. Raises CrosstokError for what has no value."""
    found: dict[str, Any] = {}
    for option in given:
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise CrosstokError(f"--method-option {option}: wants NAME=VALUE, as in draws=4")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


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
    _add_held(table, "bounds held", found.bounds_held, found.bounded)
    _add_list(table, "  not", checked, np.flatnonzero(~found.bounds_held), "bold red")
    table.add_row("reference closed", f"{int(found.closed.sum())} of {total}")
    _add_list(table, "  not", checked, np.flatnonzero(~found.closed))
    table.add_row("distributions compared", f"{len(rows.at)} of {rows.drawn}")
    if rows.problem is not None:
        table.add_row("  not", Text(rows.problem))
    _add_held(table, "their bounds held", found.rows_held, np.full(len(rows.at), found.certified))
    _add_list(table, "  not", checked, rows.at[~found.rows_held], "bold red")
    table.add_row("their reference closed", f"{int(found.rows_closed.sum())} of {len(rows.at)}")
    _add_list(table, "  not", checked, rows.at[~found.rows_closed])
    if len(rows.at):
        table.add_row("total variation known to within", f"{rows.tv_within.max():.2e}")
    return table


def effort_table(checked: Checked) -> Table:
    """Return options, rows and seconds of both."""
    found, options = checked.found, checked.options
    table, seconds = _table("", options.method, "reference"), found.seconds
    none = options.tolerance is None
    table.add_row("tolerance", "none" if none else str(options.tolerance), str(found.reference_tolerance))
    limit = "no limit" if options.max_rows is None else str(options.max_rows)
    table.add_row(
        "further rows for one position, at most", "0" if none else limit, str(options.reference_max_rows)
    )
    used, again = int(found.rows_used.sum()), int(found.reference_rows.sum())
    table.add_row("rounding allowed for, nats", f"{found.rounding:g}")
    table.add_row("teacher rows for labels", str(used), str(again))
    total = len(found.text)
    table.add_row("  for one", f"{used / total:.2f}", f"{again / total:.2f}")
    table.add_row("seconds for labels", f"{seconds.labels:.2f}", f"{seconds.reference_labels:.2f}")
    table.add_row("seconds for distributions", f"{seconds.rows:.2f}", f"{seconds.reference_rows:.2f}")
    return table


def _add_held(table: Table, name: str, held: BoolArray, bounded: BoolArray) -> None:
    """How many bounds held, of those that say anything."""
    count = f"{int(held[bounded].sum())} of {int(bounded.sum())}"
    table.add_row(name, count if bounded.any() or not len(held) else "there are none")


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
        "bounded": int(found.bounded.sum()),
        "bounds_held": int(found.bounds_held.sum()),
        "reference_closed": int(found.closed.sum()),
        "distributions": len(rows.at),
        "distributions_certified": found.certified,
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
