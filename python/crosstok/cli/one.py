"""`crosstok show`: the one text that it is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import crosstok as ct
from crosstok.cli import tolerance
from crosstok.cli.load import choose_device, load_pair, load_teacher
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Row, prompt_ids
from crosstok.cli.settings import check_writable
from crosstok.cli.source import Source, check_row
from crosstok.errors import CrosstokError, TeacherError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstok.show import Shown


@dataclass(frozen=True)
class One:
    """The options of `crosstok show`; see `app.show`. Either ``text``, or a ``line`` of ``input``."""

    teacher: str
    student: str
    text: str | None = None
    input: Path | None = None
    line: int | None = None
    output: Path | None = None
    dtype: str = "float32"
    device: str | None = None
    canonical: str = "renormalize"
    tolerance: float | None = None
    max_rows: int | None = None
    teacher_eos: Sequence[int] | None = None
    student_eos: Sequence[int] | None = None


def show_one(one: One) -> Shown:
    """Score the text. Raises CrosstokError for options that do not go together, and InputError for a bad line."""
    if (one.text is None) == (one.input is None):
        raise CrosstokError("give either --text or --input, with --line")
    if (one.input is None) != (one.line is None):
        raise CrosstokError("--input and --line go together")
    tolerance.check_options(one.tolerance, one.max_rows)
    if one.output is not None:
        check_writable(one.output)
    path, row = _row(one)
    pair = load_pair(one.teacher, one.student, one.teacher_eos, one.student_eos)
    tolerance.check_pair(pair, one.tolerance, one.max_rows)
    prompts = PromptEncoder(one.teacher)
    check_row(path, row, pair, prompts)
    ids = prompt_ids(path, row, prompts)
    teacher = load_teacher(one.teacher, one.dtype, choose_device(one.device), None)
    scorer = ct.Scorer(teacher, pair, one.canonical, tolerance=one.tolerance, max_rows=one.max_rows)
    try:
        return scorer.show(row.text, ids, row.ended)
    except TeacherError as error:
        raise InputError(path, row.line, error.reason) from error


def save(shown: Shown, path: Path) -> None:
    """Write the page. Raises CrosstokError where it cannot be written."""
    try:
        shown.save(path)
    except OSError as error:
        raise CrosstokError(f"{path}: {error.strerror}") from error


def _row(one: One) -> tuple[Path, Row]:
    """Return the text as a row, with what stands for a file in errors."""
    if one.input is None or one.line is None:
        return Path("--text"), Row(1, one.text or "")
    with Source(one.input) as source:
        return one.input, source.row(one.line)
