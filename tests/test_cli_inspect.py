"""`crosstok inspect` knows before a model is loaded what `crosstok score` finds out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
from commands import CHAT, DEMO, assert_one_line, many_rows, run, score_file, write
from crosstok.cli.inspect import Inspection, inspect, read_sample

pytestmark = pytest.mark.usefixtures("one_thread")


def sample(found: Inspection, path: Path, limit: int | None = None) -> Any:
    """Return the sums over a file."""
    return read_sample(found, str(DEMO), path, limit, lambda name, done, total: None)


def words_of(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def copy_of(folder: Path, **changes: Any) -> Path:
    """Copy the demo's tokenizer, with other fields at the top of its tokenizer.json."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**data, **changes}), encoding="utf-8")
    return folder


def test_a_pair_without_a_sample() -> None:
    result = run("inspect", "--teacher", DEMO, "--student", "merges:100")
    assert result.exit_code == 0, result.output
    out = words_of(result.stdout)
    tokenizer = ct.Tokenizer.from_pretrained(DEMO)
    small = tokenizer.first_merges(100)
    assert f"regime: subset: {ct.Pair(tokenizer, small).reason}" in out
    assert f"ids {tokenizer.vocab_size} {small.vocab_size}" in out
    common = small.vocab_size - len(small.special_ids)
    share = 100 * common / (tokenizer.vocab_size - len(tokenizer.special_ids))
    assert f"in the other {common} ({share:.1f} %) {common} (100.0 %)" in out
    assert "end-of-text 0 <|endoftext|> 0 <|endoftext|>" in out
    assert tokenizer.fingerprint[:16] in out
    assert small.fingerprint[:16] in out
    assert "not available" not in out


def test_a_sample_says_what_score_finds(tmp_path: Path) -> None:
    rows = many_rows(70, seed=8)
    result = score_file(tmp_path, rows, "--summary", tmp_path / "summary.json")
    assert result.exit_code == 0, result.output
    scored = json.loads((tmp_path / "summary.json").read_text())
    found = inspect(str(DEMO), str(DEMO / "student"), None, None)
    counts = sample(found, tmp_path / "in.jsonl")
    assert (counts.texts, counts.refused, counts.size) == (70, 0, scored["bytes"])
    assert counts.student_tokens + counts.ends == scored["student_tokens"]
    assert counts.teacher_tokens + counts.ends == scored["teacher_tokens"]
    assert counts.known_tokens == counts.student_tokens  # the student's tokens are the teacher's
    # An empty text that is cut off has a node, the root of its tree, but no position that its row is counted for.
    nothing = [row for row in rows if row and row.get("text") == "" and not row.get("ended", True)]
    assert counts.nodes == scored["teacher_rows"] + len(nothing)
    assert 1 < counts.cost < counts.rows_per_token
    result = run(
        "inspect", "--teacher", DEMO, "--student", DEMO / "student", "--sample", tmp_path / "in.jsonl"
    )
    assert result.exit_code == 0, result.output
    assert f"teacher rows per canonical token, with end-of-text {counts.rows_per_token:.3f}" in words_of(
        result.stdout
    )
    assert f"teacher columns against plain forwards {counts.cost:.3f} ×" in words_of(result.stdout)


def test_the_same_tokenizer_costs_a_plain_forward(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "Return a copy."}, {"prompt": "a b", "completion": " c"})
    counts = sample(inspect(str(DEMO), str(DEMO), None, None), path)
    assert (counts.rows_per_token, counts.cost) == (1, 1)
    assert sample(inspect(str(DEMO), str(DEMO), None, None), path, limit=1).texts == 1


def test_no_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "crosstok.teacher.hf", None)
    path = write(tmp_path / "in.jsonl", {"messages": CHAT})
    # A file beside which the template lies.
    file = tmp_path / "model" / "tokenizer.json"
    options = ("--student", "merges:9", "--sample", path, "--teacher-eos", 0, "--student-eos", 0)
    result = run("inspect", "--teacher", file, *options)
    assert result.exit_code == 0, result.output
    assert "texts 1" in words_of(result.stdout)


def test_a_pair_in_the_general_regime(tmp_path: Path) -> None:
    student = copy_of(tmp_path / "student", normalizer={"type": "NFC"})
    path = write(
        tmp_path / "in.jsonl", {"text": "Return e\u0301"}, {"text": "Return"}, {"text": "\u1100\u1161"}
    )
    result = run("inspect", "--teacher", DEMO, "--student", student, "--sample", path)
    assert result.exit_code == 0, result.output
    out = words_of(result.stdout)
    assert "regime: general" in out
    assert "scores come between bounds" in out
    assert "texts 1 texts that cannot be scored 2" in out
    assert "teacher rows per canonical token, with end-of-text" in out
    assert "first text that cannot be scored:" in out
    assert "in.jsonl, line 1: byte 7: the normalizer changes the text here" in out


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_what_is_not_supported_is_a_finding(tmp_path: Path, whose: str) -> None:
    bad = copy_of(tmp_path / "bad", model={"type": "WordPiece", "vocab": {}})
    options = {"--teacher": DEMO, "--student": DEMO, f"--{whose}": bad}
    result = run("inspect", *(word for pair in options.items() for word in pair))
    assert result.exit_code == 2
    out = words_of(result.stdout)
    assert f"{whose} is not supported: {bad}: model.type" in out
    # What is known of the other one is there.
    assert ct.Tokenizer.from_pretrained(DEMO).fingerprint[:16] in out
    assert "in the other" not in out


def test_merges_of_what_is_not_supported(tmp_path: Path) -> None:
    bad = copy_of(tmp_path / "bad", model={"type": "WordPiece", "vocab": {}})
    result = run("inspect", "--teacher", bad, "--student", "merges:5")
    assert result.exit_code == 2
    assert "student is not supported: needs the teacher's" in words_of(result.stdout)


def test_an_end_of_text_that_is_not_known() -> None:
    result = run("inspect", "--teacher", DEMO, "--student", DEMO / "student" / "tokenizer.json")
    assert result.exit_code == 2
    out = words_of(result.stdout)
    assert "no pair: the student does not say which ids end a text" in out
    assert "end-of-text 0 <|endoftext|> not known" in out


def test_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "a"}, "{")
    options = ("inspect", "--teacher", DEMO, "--student", DEMO / "student")
    result = run(*options, "--sample", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"crosstok: {path}, line 2: not JSON")
    result = run(*options, "--sample", tmp_path / "none")
    assert (result.exit_code, "none: No such file" in result.stderr) == (2, True)
    assert_one_line(run("inspect", "--teacher", DEMO, "--student", "merges:x"), "merges:x")
    assert_one_line(run(*options, "--student-eos", 7), "student", "7")


def test_an_empty_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl")
    result = run("inspect", "--teacher", DEMO, "--student", DEMO / "student", "--sample", path)
    assert result.exit_code == 0, result.output
    assert "texts 0" in words_of(result.stdout)
