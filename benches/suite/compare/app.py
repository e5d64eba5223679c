"""The command line of `compare.py`.

For each student the teacher's distributions over the next student token, at all positions of fixed short texts, are
computed in several ways and compared with a reference, which is the same with a tight tolerance and many rows. Every
text follows a prompt: an answer its question, Python and sentences their own first half. All positions count.

* tolerances: further rows that each tolerance takes, how often it is met, and the undecided mass that is left;
* errors: total variation from the reference (mean, median, 90th percentile, worst), the root mean square error of the
  probability of the text's own token, and the cost of the closing estimate, of the orders in which further rows are
  read, of the unbiased estimate, of byte-prefix marginalization, of strict 1:1 alignment and, for labels alone, of the
  beam (published: 0.015 at 0.5 s an evaluation).

Costs are further rows ("rows") and processor time of this process, all threads, planning warm: of a position
("cpu ms"), and over that of plain forwards over the same prompts and texts ("x plain"). Unlike wall time they hardly
depend on what else the machine does.

The true total variation is known to within the reference's undecided mass, which is reported, as are positions at which
the reference does not close; errors are given over all positions and over those that it closes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from crosstok import demo

from .. import machine, report
from ..inputs import Inputs
from ..row import Row, Unavailable
from .measure import Settings
from .run import Run
from .ways import PARTS, Choice

STUDENTS = ("qwen3", "gemma3", "llama3", "deepseek")
TOLERANCES, BUDGETS = (0.2, 0.1, 0.05, 0.02, 0.01), (1, 2, 4, 8)
REFERENCE_TOLERANCE = 0.005
# Of a smoke test.
QUICK = {
    "positions": 8,
    "reference_rows": 10,
    "max_rows": 4,
    "tolerances": (0.2,),
    "rows_budgets": (1,),
    "seeds": 2,
}
FULL = {"positions": 300, "reference_rows": 96, "max_rows": 64, "seeds": 4}
DEFAULTS = {**FULL, "tolerances": TOLERANCES, "rows_budgets": BUDGETS}


def main() -> None:
    """Compare, print, write. Exit status 2 where the options are no good, or there are too few texts."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = _parser()
    options = parser.parse_args()
    settings = _settings(parser, options)
    facts = {
        **machine.describe(),
        "teacher": str(options.teacher),
        "quick": options.quick,
        "reference": f"at most {settings.reference_rows} rows, to {settings.reference_tolerance:g}",
    }
    print(report.head(facts))
    run, rows = Run.of(settings), list[Row]()
    try:
        for row in run.rows():
            if not rows or row.name != rows[-1].name:
                print(f"\n{row.name}")
            print(report.line(row))
            rows.append(row)
            if options.json:  # after each figure, so that what is found is kept
                _write(options.json, facts, rows, run)
    except Unavailable as reason:
        parser.error(str(reason))


def _write(path: Path, facts: dict[str, object], rows: list[Row], run: Run) -> None:
    """The figures as other benchmarks write them, and beside them everything by position."""
    report.write(path, facts, rows)
    students = [student.as_json() for student in run.students]
    path.with_suffix(".positions.json").write_text(
        json.dumps(students, allow_nan=False) + "\n", encoding="utf-8"
    )


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Settings:
    students = {name: options.tokenizers / name for name in options.students}
    for name, folder in students.items():
        if not (folder / "tokenizer.json").is_file():
            parser.error(f"{options.tokenizers} has no {name}/tokenizer.json")
    inputs = Inputs(options.teacher, options.data, options.tokenizers, (), options.quick, "cpu", 0, 0)
    if wrong := inputs.problem():
        parser.error(wrong)
    for name, value in (QUICK if options.quick else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    choice = Choice(
        parts=options.only,
        tolerances=options.tolerances,
        max_rows=options.max_rows,
        budgets=options.rows_budgets,
        tight=options.budget_tolerance,
        seeds=max(1, options.seeds),
    )
    limits = options.reference_tolerance, options.reference_rows
    if options.processes is not None and options.processes < 1:
        parser.error("--processes must be at least 1")
    return Settings(inputs, students, options.positions, *limits, choice, options.processes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benches/compare.py", description=__doc__)
    add = parser.add_argument
    add(
        "--teacher",
        type=Path,
        default=Path(demo.__path__[0]),
        help="a transformers model directory (the demo's)",
    )
    add("--tokenizers", type=Path, required=True, help="a directory with */tokenizer.json")
    add("--data", type=Path, help="JSON Lines with messages; left out: Python's documentation")
    add("--students", nargs="+", default=STUDENTS, metavar="NAME", help=", ".join(STUDENTS))
    add("--positions", type=int, help=f"of each student, at least ({FULL['positions']})")
    add("--reference-rows", type=int, help=f"further rows of a position ({FULL['reference_rows']})")
    add(
        "--reference-tolerance",
        type=float,
        default=REFERENCE_TOLERANCE,
        help=f"undecided mass to reach there ({REFERENCE_TOLERANCE:g})",
    )
    add("--tolerances", nargs="+", type=float, metavar="T", help="those of the table")
    add("--max-rows", type=int, help=f"further rows of a position there ({FULL['max_rows']})")
    add("--rows-budgets", nargs="+", type=int, metavar="N", help="further rows of the orderings")
    add(
        "--budget-tolerance",
        type=float,
        default=0.01,
        help="undecided mass at which a position leaves its budget unspent (0.01)",
    )
    add("--seeds", type=int, help=f"how often the unbiased estimate is drawn ({FULL['seeds']})")
    add(
        "--processes",
        type=int,
        metavar="N",
        help="so many texts at a time, each in a process of its own (thousands of rows take gigabytes)",
    )
    add("--only", nargs="+", choices=PARTS, default=PARTS, metavar="NAME", help=", ".join(PARTS))
    add("--json", type=Path, help="write the figures there too, and NAME.positions.json beside it")
    add("--quick", action="store_true", help="a smoke test: few positions and rows")
    return parser
