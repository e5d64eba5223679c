"""`crosstok show`: one text, in the terminal or as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

from commands import CHAT, DEMO, assert_one_line, cached_teacher, run, score_file, write
from typer.testing import Result

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once for all tests."""
    monkeypatch.setattr("crosstok.cli.one.load_teacher", cached_teacher)


def show(*options: object) -> Result:
    """Run `crosstok show` with the demo's models."""
    return run("show", "--teacher", DEMO, "--student", DEMO / "student", "--device", "cpu", *options)


def test_a_text_in_the_terminal_and_as_a_page(tmp_path: Path) -> None:
    result = show("--text", "Return a copy.")
    assert result.exit_code == 0, result.output
    assert "nats" in result.stdout
    assert "subset" in result.stdout
    page = tmp_path / "page.html"
    result = show("--text", "Return a copy.", "--output", page)
    assert (result.exit_code, result.stdout) == (0, "")
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_a_line_of_a_file_has_the_total_that_score_gives(tmp_path: Path) -> None:
    rows = [
        {"text": "a"},
        "",
        {"messages": CHAT},
        "{",
        {"prompt": "Return", "completion": " a", "ended": False},
    ]
    path = write(tmp_path / "in.jsonl", *rows)
    for line in (3, 5):
        result = show("--input", path, "--line", line)
        assert result.exit_code == 0, result.output
        scored = score_file(tmp_path, [rows[line - 1]], "--overwrite")
        [total] = [row.split()[-1] for row in scored.stderr.splitlines() if "total" in row]
        assert f"log P {float(total):.2f}" in result.stdout
        write(path, *rows)


def test_mistakes(tmp_path: Path) -> None:
    long = {"prompt": "copy " * 2000, "completion": "a"}
    path = write(tmp_path / "in.jsonl", {"text": "a"}, "", "{", {"prompt": "", "completion": "a"}, long)
    for line, words in (
        (2, "line 2: blank"),
        (3, "line 3: not JSON"),
        (4, "line 4: the prompt has no tokens"),
        (5, "line 5: "),
        (6, "line 6: not there"),
    ):
        assert_one_line(show("--input", path, "--line", line), f"in.jsonl, {words}")
    assert_one_line(show("--input", path), "--input and --line go together")
    assert_one_line(show("--text", "a", "--line", 1), "--input and --line go together")
    assert_one_line(show(), "give either --text or --input")
    assert_one_line(show("--text", "a", "--input", path, "--line", 1), "give either --text or --input")
    assert_one_line(show("--text", "a", "--output", tmp_path / "no" / "page.html"), "No such directory")
    assert_one_line(show("--text", "a", "--output", tmp_path), "not a regular file")
