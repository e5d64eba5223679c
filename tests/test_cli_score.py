"""`crosstok score` beyond its numbers: summaries, shards, progress, and memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
import torch
from commands import DEMO, cached_teacher, many_rows, score_file, write
from crosstok.cli.feed import Feed
from crosstok.cli.progress import progress_bar
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.settings import Job, model_identity
from crosstok.cli.source import Place, Source
from crosstok.cli.summary import Summary
from rich.console import Console

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = many_rows(23, seed=7)
# float32 forwards of different shapes; the values of a line are sums over some rows.
NATS = 1e-3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once for all tests."""
    monkeypatch.setattr("crosstok.cli.score.load_teacher", cached_teacher)


def lines(path: Path) -> list[Any]:
    """Return the lines of an output."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Any]:
    """Output and summary of all rows."""
    folder = tmp_path_factory.mktemp("whole")
    result = score_file(folder, ROWS, "--summary", folder / "summary.json")
    assert result.exit_code == 0, result.output
    return lines(folder / "out.jsonl"), json.loads((folder / "summary.json").read_text())


def test_the_summary_is_what_the_lines_add_up_to(whole: tuple[list[Any], Any]) -> None:
    scored, summary = whole
    texts = [row.get("text", row.get("completion")) or "" for row in ROWS if row and "messages" not in row]
    texts += [row["messages"][-1]["content"] for row in ROWS if row and "messages" in row]
    assert summary["texts"] == len(scored) == len(texts) == 23
    assert summary["bytes"] == sum(len(text.encode()) for text in texts)
    assert summary["student_tokens"] == sum(len(line["student_ids"]) for line in scored)
    assert summary["teacher_rows"] == sum(sum(line["rows"]) for line in scored)
    assert summary["nats"] == pytest.approx(sum(line["total"] for line in scored))
    assert summary["bits_per_byte"] == pytest.approx(-summary["nats"] / math.log(2) / summary["bytes"])
    masses = [mass for line in scored for mass in line["noncanonical_mass"]]
    assert summary["mean_noncanonical_mass"] == pytest.approx(sum(masses) / len(masses))
    assert summary["mean_inadmissible_mass"] == 0
    assert summary["unsupported_positions"] == sum(line["status"].count(4) for line in scored)
    assert summary["rows_per_teacher_token"] == summary["teacher_rows"] / summary["teacher_tokens"]
    assert 1 <= summary["rows_per_teacher_token"] < 3
    seconds = summary["seconds"]
    assert set(seconds) == {"plan", "teacher", "aggregation", "total"}
    assert all(value > 0 for value in seconds.values())
    assert seconds["teacher"] + seconds["aggregation"] <= seconds["total"]


def test_limit_and_the_table(tmp_path: Path) -> None:
    result = score_file(tmp_path, ROWS, "--limit", 2)
    assert result.exit_code == 0, result.output
    assert len(lines(tmp_path / "out.jsonl")) == 2
    assert result.stdout == ""
    for words in (
        "texts  ",
        "bits per byte",
        "teacher rows per canonical teacher token",
        "mean non-canonical mass",
        "mean inadmissible mass",
        "unsupported positions",
        "seconds",
        "plans",
        "aggregation",
    ):
        assert words in result.stderr


@pytest.mark.parametrize("count", [1, 3, 30])
def test_shards_are_the_whole(tmp_path: Path, whole: tuple[list[Any], Any], count: int) -> None:
    joined: list[Any] = []
    rows = 0
    for shard in range(count):
        files = ("--output", tmp_path / "part.jsonl", "--summary", tmp_path / "part.json")
        options = ("--num-shards", count, "--shard", shard, "--overwrite")
        result = score_file(tmp_path, ROWS, *options, *files)
        assert result.exit_code == 0, result.output
        joined += lines(tmp_path / "part.jsonl")
        rows += json.loads((tmp_path / "part.json").read_text())["teacher_rows"]
    assert [line["index"] for line in joined] == list(range(23))
    for one, other in zip(joined, whole[0], strict=True):
        assert one["student_ids"] == other["student_ids"]
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=NATS)
    assert rows == whole[1]["teacher_rows"]


def test_a_shard_without_lines_needs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosstok.cli.score.load_teacher", None)
    for _ in range(2):
        result = score_file(tmp_path, [{"text": "a"}], "--num-shards", 3, "--shard", 0)
        assert result.exit_code == 0, result.output
        assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_shard_checks_its_own_lines_only(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b"}, "{", {"text": "d"}]
    assert score_file(tmp_path, rows, "--num-shards", 2, "--shard", 0).exit_code == 0
    result = score_file(tmp_path, rows, "--num-shards", 2, "--shard", 1, "--overwrite")
    assert "in.jsonl, line 3: not JSON" in result.stderr


@pytest.mark.parametrize("records", [0, 1, 7, 64, 1000])
def test_shards_are_neighbours_of_equal_size(records: int) -> None:
    for count in (1, 2, 3, 7, 100):
        spans = [
            Job("", "", Path(), Path(), num_shards=count, shard=shard).span(records) for shard in range(count)
        ]
        assert [index for first, stop in spans for index in range(first, stop)] == list(range(records))
        sizes = {stop - first for first, stop in spans}
        assert max(sizes) - min(sizes) <= 1


def test_a_model_of_the_hub_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "/cache/models--some--model/snapshots/0123abc/config.json"
    monkeypatch.setattr("transformers.utils.hub.cached_file", lambda repo, name: where)
    assert model_identity("some/model") == "some/model at 0123abc"


def test_lines_are_read_as_they_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", *[{"text": "Return a copy."}] * 1000)
    tokenizer = ct.Tokenizer.from_pretrained(DEMO)
    teacher = ct.HFTeacher(str(DEMO), batch_tokens=8, dtype=torch.float32, device="cpu")
    scorer = ct.Scorer(teacher, ct.Pair(tokenizer, tokenizer))
    taken = 0
    with Source(path) as source:
        rows = source.rows(Place(), 1000)

        def counted() -> Any:
            nonlocal taken
            for row in rows:
                taken += 1
                yield row

        feed = Feed(path, counted(), PromptEncoder(str(DEMO)), scorer.batch_budget)
        batches = scorer.score_batches(feed)
        done = 0
        for scores in batches:
            done += len(feed.pending.popleft().rows)
            assert len(scores) > 0
            assert taken - done <= 4 * len(scores) + 1
            if done > 100:
                break
        batches.close()  # type: ignore[attr-defined]


def test_the_bar_has_a_rate_and_shows_on_terminals_only() -> None:
    terminal = Console(force_terminal=True, record=True, width=100)
    with progress_bar(terminal) as report:
        report("checking", 5, 5)
        for done in range(0, 60, 20):
            report("scoring", done, 100)
    text = terminal.export_text()
    assert "40/100" in text
    assert "texts/s" in text
    file = Console(force_terminal=False, record=True, width=100)
    with progress_bar(file) as report:
        report("scoring", 1, 2)
    assert file.export_text().strip() == ""


def test_sums_go_through_a_journal() -> None:
    summary = Summary(texts=3, nats=-1 / 3, seconds=0.1)
    assert Summary(**json.loads(json.dumps(summary.__dict__))) == summary
