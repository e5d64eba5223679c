"""`crosstok score` on a long file: seconds are linear in its lines, memory is flat.

The teacher is the demo's, part of the package, so that what is measured is mostly everything around the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crosstok import demo

from .inputs import Inputs
from .row import Bar, Row, Unavailable

if TYPE_CHECKING:
    import resource

LINES = (5_000, 10_000, 20_000)
STUDENT = "merges:200"
# Products of a model of a million weights are too small for threads: they would mostly wait for each other.
VARIABLES = {"OMP_NUM_THREADS": "1"}
# Seconds and memory of the longest file over those of the shortest, seconds per line.
LINEAR, FLAT = Bar(1.3), Bar(1.1)


def measure(inputs: Inputs) -> Iterator[Row]:
    """One process for each length."""
    if not hasattr(os, "wait4"):
        raise Unavailable("needs os.wait4")
    lengths = inputs.scaled(LINES, (10, 20))
    sentences = inputs.sentences(lengths[-1])
    found = []
    for length in lengths:
        seconds, peak = score(sentences[:length])
        found.append((seconds / length, peak))
        details = {"peak MB": peak / 1e6, "lines/s": length / seconds}
        yield Row("streams", f"crosstok score, {length:,} lines", seconds, "s", None, details)
    (short, small), (long, large) = found[0], found[-1]
    # A short file pays more for the start of the process, so that the ratio of a linear program is below 1.
    span = f"{lengths[-1]:,} over {lengths[0]:,} lines"
    yield Row("streams", f"seconds per line, {span}", long / short, "x", LINEAR)
    yield Row("streams", f"peak memory, {span}", large / small, "x", FLAT)


def score(texts: Sequence[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of the command for these texts."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        options = ["--teacher", demo.__path__[0], "--student", STUDENT]
        options += ["--input", str(source), "--output", str(target)]
        seconds, usage = _run([sys.executable, "-m", "crosstok.cli.app", "score", *options])
        written = len(target.read_text(encoding="utf-8").splitlines())
    if written != len(texts):
        raise RuntimeError(f"crosstok score wrote {written} lines for {len(texts)} texts")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _run(command: Sequence[str]) -> tuple[float, resource.struct_rusage]:
    """Wall time of a command and what it used. RuntimeError, with the end of what it wrote, where it fails."""
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **VARIABLES})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"crosstok score ended with {process.returncode}: {log.read()[-2000:]}")
    return seconds, usage
