"""The command line of `pairs.py`.

For each student the teacher scores answers after their questions (as chat prompts), snippets of Python (which start a
document) and sentences in many scripts (half of them each way), without expansion ("before") and with it ("after"):

* checks: a text's total equals that of plain forwards, P(s_1..s_i) <= P(its bytes), bounds are in order;
* widths: of the bounds, and the rows it took;
* oracle: at random positions the bounds overlap with those of plain forwards and plain strings (`oracle.py`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crosstok import demo

from .. import machine, report
from ..inputs import Inputs
from ..row import Row
from .run import Run, Settings, Sizes

STUDENTS = ("qwen3", "gemma3", "llama3", "llama2", "deepseek")
# Of a whole run and of a smoke test. More sentences than there are means all.
SIZES = {"answers": 100, "snippets": 100, "texts": 1_000, "positions": 200}
QUICK = {"answers": 2, "snippets": 2, "texts": 3, "positions": 4}


def main() -> None:
    """Check, print, write. Exit status 1 where something does not hold, 2 where the options are no good."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = _parser()
    options = parser.parse_args()
    settings = _settings(parser, options)
    facts = {**machine.describe(), "teacher": str(options.teacher), "quick": options.quick}
    print(report.head(facts))
    rows: list[Row] = []
    for row in Run.of(settings).rows():
        if not rows or row.name != rows[-1].name:
            print(f"\n{row.name}")
        print(report.line(row))
        rows.append(row)
        if options.json:  # after each figure, so that what is found is kept
            report.write(options.json, facts, rows)
    missed = [row for row in rows if row.met is False]
    print(f"\n{len(rows)} figures, {len(missed)} of them not as they must be")
    for row in missed:
        print(report.line(row))
    sys.exit(1 if missed else 0)


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Settings:
    students = {name: options.tokenizers / name for name in options.students}
    for name, folder in students.items():
        if not (folder / "tokenizer.json").is_file():
            parser.error(f"{options.tokenizers} has no {name}/tokenizer.json")
    inputs = Inputs(options.teacher, options.data, options.tokenizers, (), options.quick, "cpu", 0, 0)
    if wrong := inputs.problem():
        parser.error(wrong)
    sizes = dict(QUICK if options.quick else SIZES)
    sizes.update((name, size) for name in sizes if (size := getattr(options, name)) is not None)
    expansion = options.tolerance, options.max_rows
    return Settings(inputs, students, Sizes(**sizes), *expansion, options.oracle_rows, options.dtype)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benches/pairs.py", description=__doc__)
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
    add("--answers", type=int, help=f"answers after their questions ({SIZES['answers']})")
    add("--snippets", type=int, help=f"snippets of the standard library ({SIZES['snippets']})")
    add("--texts", type=int, help="sentences in many scripts (all)")
    add(
        "--positions",
        type=int,
        help=f"positions for the oracle, of all students together ({SIZES['positions']})",
    )
    add("--oracle-rows", type=int, default=200, help="prefixes expanded there for a student prefix (200)")
    add("--tolerance", type=float, default=0.01, help="width of bounds to reach (0.01)")
    add("--max-rows", type=int, default=64, help="further rows of a position (64); 0: only without")
    add("--dtype", default="float32", choices=["float32", "float64"])
    add("--json", type=Path, help="write the figures there too")
    add("--quick", action="store_true", help="a smoke test: few texts and positions")
    return parser
