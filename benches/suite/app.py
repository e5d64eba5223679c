"""The command line of `run.py`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from crosstok import _core, demo

from . import machine, report
from .inputs import Inputs
from .row import Row, Unavailable

# Modules beside this one, each with a function ``measure`` of `Inputs` that yields `Row`. They are imported when they
# are run: some need torch.
BENCHMARKS = ("teacher", "planning", "growth", "encode", "covers", "load", "memory", "streams", "further")


def main() -> None:
    """Measure, print, write. Exit status 1 where a bar is not met, 2 where the options or the build are no good."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = _parser()
    options = parser.parse_args()
    if _core.build_profile != "release":
        print(
            f"crosstok is a {_core.build_profile} build ({_core.__file__}), whose times mean nothing: "
            "install it with `pip install .` first",
            file=sys.stderr,
        )
        sys.exit(2)
    inputs = _inputs(options)
    if wrong := inputs.problem():
        parser.error(wrong)
    facts = {**machine.describe(), "teacher": str(inputs.teacher), "quick": inputs.quick}
    print(report.head(facts))
    rows: list[Row] = []
    for name in options.only or BENCHMARKS:
        print(f"\n{name}")
        for row in _rows(name, inputs):
            print(report.line(row))
            rows.append(row)
        if options.json:  # after each benchmark, so that what is measured is kept
            report.write(options.json, facts, rows)
    missed = [row for row in rows if row.met is False]
    print(f"\n{len(rows)} figures, {len(missed)} bars not met")
    sys.exit(1 if missed else 0)


def _rows(name: str, inputs: Inputs) -> Iterator[Row]:
    """The figures of a benchmark; without bars where everything is too small for them."""
    try:
        for row in import_module(f".{name}", __package__).measure(inputs):
            yield dataclasses.replace(row, bar=None) if inputs.quick else row
    except Unavailable as reason:
        print(f"  not measured: {reason}")


def _inputs(options: argparse.Namespace) -> Inputs:
    """From the command line; quick runs take one text and two pairs of runs."""
    return Inputs(
        teacher=options.teacher or Path(demo.__path__[0]),
        data=options.data,
        tokenizers=options.tokenizers,
        names=tuple(options.names),
        quick=options.quick,
        device=options.device,
        texts=options.texts or (1 if options.quick else 4),
        repeats=options.repeats or (2 if options.quick else 7),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benches/run.py", description=__doc__)
    add = parser.add_argument
    add("--teacher", type=_folder, help="a transformers model directory; left out: the demo's")
    add("--data", type=_file, help="JSON Lines with messages; left out: Python's documentation")
    add("--tokenizers", type=_folder, help="a directory with */tokenizer.json")
    add("--names", nargs="+", default=(), metavar="NAME", help="only these of the tokenizers")
    add("--json", type=Path, help="write the figures there too")
    add("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    add("--quick", action="store_true", help="a smoke test: everything small, and no bars")
    add("--texts", type=int, help="texts of the teacher ratios (4)")
    add("--repeats", type=int, help="pairs of runs of the teacher ratios (7)")
    add("--device", default="cpu", help="of the teacher ratios")
    return parser


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no directory")
    return Path(text)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is no file")
    return Path(text)
