"""`crosstok score` goes on where a signal stopped it, to the same bytes: real processes, real signals."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

from commands import child, command, finish, many_rows, run, write

KILLS = 10
# Longer than anything here takes on a busy machine.
SECONDS = 120.0

Start = Callable[[list[str], Path], Any]


@pytest.fixture(scope="module", autouse=True)
def interruptible() -> Iterator[None]:
    """Let children begin with Python's own handler of SIGINT.

    Where this process ignores it, as a background job does, the fork server would too, and with it all its children.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands in processes of their own; those that a failed test leaves, stopped ones too, are killed."""
    started: list[Any] = []

    def begin(arguments: list[str], log: Path) -> Any:
        started.append(child(arguments, log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.join()
        process.close()


def wait(process: Any, ready: Callable[[], bool]) -> None:
    """Return when ``ready()`` holds, or when the process has ended."""
    deadline = time.monotonic() + SECONDS
    while process.is_alive() and not ready():
        assert time.monotonic() < deadline, "the process does nothing"
        time.sleep(0.002)


def end(process: Any) -> int:
    """Return the exit status of a process that is about to end."""
    process.join(SECONDS)
    status = process.exitcode
    assert status is not None, "the process does not end"
    return int(status)


def test_ten_kills_change_no_byte(tmp_path: Path, start: Start) -> None:
    draw = random.Random(20)
    once, often = tmp_path / "once", tmp_path / "often"
    rows = many_rows(200, seed=1)
    for folder in (once, often):
        folder.mkdir()
        write(folder / "in.jsonl", *rows)
    assert end(start(command(once), once / "log")) == 0, (once / "log").read_text()
    whole, output = (once / "out.jsonl").read_bytes(), often / "out.jsonl"

    def size() -> int:
        return output.stat().st_size if output.exists() else 0

    sizes = [0]
    for kill in range(KILLS):
        process = start(command(often), often / "log")
        # Two of them while the model is loaded or shortly before or after: nothing may have been written yet.
        if kill not in (0, 5):
            before = size()
            wait(process, lambda before=before: size() > before)  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        assert end(process) == -signal.SIGKILL, (often / "log").read_text()
        sizes.append(size())
    assert sizes[-1] < len(whole), "the kills came too late to matter"
    assert len(set(sizes)) > KILLS // 2, "the kills came too early to matter"
    assert end(start(command(often), often / "log")) == 0, (often / "log").read_text()
    assert output.read_bytes() == whole
    assert [json.loads(line)["index"] for line in output.read_text().splitlines()] == list(range(200))
    summaries = [finish(folder).stderr.split("seconds")[0].split("complete")[1] for folder in (once, often)]
    assert summaries[0] == summaries[1]


def test_an_interrupt_leaves_whole_lines_and_other_processes_are_kept_off(
    tmp_path: Path, start: Start
) -> None:
    write(tmp_path / "in.jsonl", *many_rows(100, seed=2))
    output, log = tmp_path / "out.jsonl", tmp_path / "log"
    process = start(command(tmp_path), log)
    wait(process, lambda: output.exists() and output.stat().st_size > 0)
    os.kill(process.pid or 0, signal.SIGSTOP)
    result = run(*command(tmp_path))
    os.kill(process.pid or 0, signal.SIGCONT)
    assert result.exit_code == 2, result.output
    assert result.stderr.splitlines()[-1] == f"crosstok: {output}: another process is writing it"
    os.kill(process.pid or 0, signal.SIGINT)
    assert end(process) == 130
    assert log.read_text() == "crosstok: interrupted\n"
    lines = output.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    assert all(line.endswith(b"\n") for line in lines)
    assert 0 < len(lines) < 100
    assert end(start(command(tmp_path), log)) == 0, log.read_text()
    assert output.read_bytes().startswith(b"".join(lines))
    assert len(output.read_bytes().splitlines()) == 100
