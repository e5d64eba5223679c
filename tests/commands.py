"""The command line in tests: in this process, and in processes that can be killed."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
from importlib import resources
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from crosstok.cli.app import app
from crosstok.cli.load import load_teacher
from typer.testing import CliRunner, Result

DEMO = Path(str(resources.files("crosstok.demo")))
CHAT = [
    {"role": "user", "content": "What does it return?"},
    {"role": "assistant", "content": "A string.\n"},
]
# Small batches: some texts each, so that a run is stopped between them or in one.
BATCH = 32
# What a run imports, from its first line to the model's class: done once, before children are forked.
PRELOAD = (
    "crosstok.cli.score",
    "crosstok.cli.progress",
    "crosstok.cli.table",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
)


cached_teacher = functools.cache(load_teacher)


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, *rows: Any) -> Path:
    """Write rows as JSON Lines; a string goes in as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def score_file(folder: Path, rows: list[Any], *options: object, student: object = DEMO / "student") -> Result:
    """Run `crosstok score` on ``rows``; the output goes to out.jsonl."""
    path = write(folder / "in.jsonl", *rows)
    files = ("--input", path, "--output", folder / "out.jsonl")
    return run("score", "--teacher", DEMO, "--student", student, *files, "--device", "cpu", *options)


def command(folder: Path, *options: object) -> list[str]:
    """Return the arguments of `crosstok score` for in.jsonl and out.jsonl in a folder; later options count."""
    files = ("--input", folder / "in.jsonl", "--output", folder / "out.jsonl")
    models = ("--teacher", DEMO, "--student", DEMO / "student", "--device", "cpu")
    return [str(word) for word in ("score", *models, *files, "--batch-tokens", BATCH, *options)]


def finish(folder: Path, *options: object) -> Result:
    """Run that command to its end."""
    result = run(*command(folder, *options))
    assert result.exit_code == 0, result.output
    return result


def assert_one_line(result: Result, *words: str) -> None:
    """Exit status 2 and one line on stderr that holds ``words``."""
    assert result.exit_code == 2, result.output
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("crosstok: ")
    for word in words:
        assert word in line, line


def many_rows(count: int, seed: int) -> list[Any]:
    """Draw rows of all shapes and lengths, with blank lines between them."""
    draw = random.Random(seed)
    words = [
        "Return",
        "a copy",
        "of",
        "the string",
        "key",
        "“x”",
        "é",
        "🙂",
        "if None",
        "is not\n\n",
        "",
        "found:",
    ]

    def text(most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(0, most)))

    rows: list[Any] = []
    while len([row for row in rows if row]) < count:
        chat = [{"role": "user", "content": text(9)}, {"role": "assistant", "content": text(30) + "."}]
        rows += draw.choice(
            [
                [{"text": text(40)}],
                [{"text": text(20), "ended": False}],
                [{"prompt": "Return " + text(20), "completion": text(30)}],
                [{"messages": chat}, ""],
            ]
        )
    return rows


def child(arguments: list[str], log: Path) -> ForkServerProcess:
    """Start a command in a process of its own, forked from one that has torch and all else imported.

    stderr goes to ``log``. A real process, so that it can be killed, without the seconds that imports take.
    """
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    process = context.Process(target=_command, args=(arguments, str(log)))
    process.start()
    return process


def _command(arguments: list[str], log: str) -> None:
    import torch

    torch.set_num_threads(1)  # on a busy machine several threads wait for each other most of the time
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 2)
    app(arguments)
