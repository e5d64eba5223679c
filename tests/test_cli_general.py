"""Pairs in the general regime on the command line and in `show`: bounds, what is undecided, and what is asked for."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
from commands import CHAT, DEMO, assert_one_line, cached_teacher, run, score_file
from crosstok.show import Explanation, page
from general_pairs import Sample, draw_sample
from oracle import toys
from oracle.pairs import student_kind

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "Return a copy of the string."
ROWS = [{"text": TEXT}, {"text": "if None", "ended": False}, {"prompt": "Return ", "completion": "a key."}]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once for all tests."""
    for module in ("score", "one"):
        monkeypatch.setattr(f"crosstok.cli.{module}.load_teacher", cached_teacher)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's tokenizer without two merges of three: words are cut elsewhere."""
    folder = tmp_path_factory.mktemp("student")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, kept, seen = data["model"]["vocab"], [], set()
    for n, merge in enumerate(data["model"]["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        known = all(len(part) == 1 or part in seen for part in (left, right))
        if known and (n % 3 == 0 or n < 40):
            seen.add(left + right)
            kept.append(merge)
    special = {token["content"] for token in data["added_tokens"]}
    names = [name for name in vocab if len(name) == 1 or name in seen or name in special]
    data["model"] |= {"merges": kept, "vocab": {name: id for id, name in enumerate(names)}}
    for token in data["added_tokens"]:
        token["id"] = data["model"]["vocab"][token["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def scored(folder: Path, student: Path, *options: object) -> tuple[list[Any], dict[str, Any], str]:
    """Lines, summary and what is printed of `crosstok score`."""
    folder.mkdir(exist_ok=True)
    result = score_file(folder, ROWS, "--summary", folder / "sums.json", *options, student=student)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "sums.json").read_text()), " ".join(result.stderr.split())


def number(value: float | str) -> float:
    """A log-probability of an output."""
    return float(value)


def widths(lines: list[Any]) -> list[float]:
    """How far the bounds of every label are apart, as probabilities."""
    return [
        math.exp(number(high)) - math.exp(number(low))
        for line in lines
        for low, high in zip(line["lower"], line["upper"], strict=True)
    ]


def test_lines_hold_bounds_and_the_summary_counts(tmp_path: Path, student: Path) -> None:
    lines, sums, printed = scored(tmp_path, student)
    for line in lines:
        for low, value, high in zip(line["lower"], line["logprobs"], line["upper"], strict=True):
            assert number(low) <= number(value) <= number(high) <= 0
        assert number(line["total_lower"]) <= line["total"] <= number(line["total_upper"])
    assert (
        lines[0]["total_lower"] == lines[0]["total"] == lines[0]["total_upper"]
    )  # of ended texts it is exact
    status = [status for line in lines for status in line["status"]]
    names = ("exact", "certified", "estimated", "unsupported")
    counts = {name: sums[f"{name}_positions"] for name in names}
    assert counts == {name: status.count(n) for name, n in zip(names, (0, 1, 2, 4), strict=True)}
    assert counts["estimated"] > 0 == counts["certified"]
    assert sums["widest_bounds"] == pytest.approx(max(widths(lines)))
    assert f"estimated positions {counts['estimated']}" in printed
    assert "widest bounds, as probabilities" in printed


def test_a_tolerance_is_met_and_determines_the_output(tmp_path: Path, student: Path) -> None:
    wide, before, _ = scored(tmp_path / "wide", student)
    lines, sums, printed = scored(tmp_path / "narrow", student, "--tolerance", 0.001)
    assert max(widths(lines)) <= 0.001 < max(widths(wide))
    assert sums["estimated_positions"] == 0 < sums["certified_positions"]
    assert sums["teacher_rows"] > before["teacher_rows"]
    assert f"certified positions {sums['certified_positions']}" in printed
    again = score_file(tmp_path / "narrow", ROWS, "--tolerance", 0.01, student=student)
    assert_one_line(again, "tolerance was 0.001, is 0.01")
    again = score_file(tmp_path / "narrow", ROWS, "--tolerance", 0.001, "--max-rows", 1, student=student)
    assert_one_line(again, "max rows was None, is 1")
    capped, _, _ = scored(tmp_path / "capped", student, "--tolerance", 0, "--max-rows", 1)
    total = [sum(sum(line["rows"]) for line in some) for some in (wide, capped)]
    assert total[0] < total[1] <= total[0] + sum(len(line["rows"]) for line in capped)


def test_exact_pairs_have_the_lines_they_had(tmp_path: Path) -> None:
    lines, sums, printed = scored(tmp_path, DEMO / "student", "--tolerance", 0)
    assert all("lower" not in line and "total_lower" not in line for line in lines)
    assert sums["exact_positions"] == sums["student_tokens"] and sums["widest_bounds"] == 0
    assert "widest" not in printed


def test_options_that_cannot_be_met(tmp_path: Path, student: Path) -> None:
    assert_one_line(
        score_file(tmp_path, ROWS, "--tolerance", 0, student=student), "--tolerance 0", "--max-rows"
    )
    assert_one_line(score_file(tmp_path, ROWS, "--max-rows", 3, student=student), "--max-rows", "--tolerance")
    for value in ("1.5", "-1", "nan"):
        assert_one_line(score_file(tmp_path, ROWS, "--tolerance", value, student=student), "tolerance")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("template", [None, "{{ raise_exception('not for teachers') }}"])
def test_prompts_are_rendered_by_the_teachers_template(
    tmp_path: Path, student: Path, template: str | None
) -> None:
    """edge_cases.md, 24: whatever the student's own is, the completion comes in its tokens, whole."""
    folder = shutil.copytree(student, tmp_path / "student")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    result = score_file(tmp_path, [{"messages": CHAT}], student=folder)
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "out.jsonl").read_text())
    teacher, other = ct.Tokenizer.from_pretrained(DEMO), ct.Tokenizer.from_pretrained(folder)
    assert other.decode(line["student_ids"][:-1]).decode() == CHAT[1]["content"]
    prompt = teacher.encode("user: What does it return?\nassistant: ")
    scorer = ct.Scorer(cached_teacher(str(DEMO), "float32", "cpu", None), ct.Pair(teacher, other))
    (score,) = scorer.score([CHAT[1]["content"]], [prompt.tolist()])
    assert line["total"] == pytest.approx(score.total, abs=1e-4)
    assert line["student_ids"] == score.student_ids.tolist()


def test_inspect_says_what_general_means(tmp_path: Path, student: Path) -> None:
    scored(tmp_path, student)
    options = ("--teacher", DEMO, "--student", student, "--sample", tmp_path / "in.jsonl")
    result = run("inspect", *options)
    assert result.exit_code == 0, result.output
    out = " ".join(result.stdout.split())
    assert "regime: general" in out and "scores come between bounds" in out and "not available" not in out
    share = re.search(r"student tokens that something is undecided of ([\d.]+) %", out)
    assert share and 0 < float(share[1]) <= 100
    assert "teacher rows per canonical token, with end-of-text" in out


def test_show_on_the_command_line(tmp_path: Path, student: Path) -> None:
    options = ("--teacher", DEMO, "--student", student, "--text", TEXT, "--device", "cpu")
    result = run("show", *options)
    assert result.exit_code == 0, result.output
    out = result.stdout
    assert "(general)" in out and "estimates between bounds" in out and "bounds of p" in out
    assert any(kind in out for kind in ("likely", "partly"))
    result = run("show", *options, "--output", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', source, re.S)[1])  # type: ignore[index]
    assert data["kinds"] == ["in", "likely", "unlikely", "partly"] and data["facts"]["bounded"]
    columns = data["positions"]
    assert [len(c) for c in columns["kinds"]] == [len(c) for c in columns["covers"]]
    assert {1, 3} <= {kind for kinds in columns["kinds"] for kind in kinds}


def test_a_score_shows_itself(student: Path) -> None:
    pair = ct.Pair(ct.Tokenizer.from_pretrained(DEMO), ct.Tokenizer.from_pretrained(student))
    scorer = ct.Scorer(cached_teacher(str(DEMO), "float32", "cpu", None), pair)
    score = scorer.score([TEXT])[0]
    found = score.show().explanation
    for i, position in enumerate(found.positions):
        assert position.logprob == pytest.approx(score.logprobs[i], abs=1e-3)
        assert math.exp(position.lower) == pytest.approx(math.exp(score.lower[i]), abs=1e-3)
    assert found.total == pytest.approx(score.total, abs=1e-3)


def test_a_page_shows_the_tolerance_that_was_asked_for(tmp_path: Path, student: Path) -> None:
    options = ("--teacher", DEMO, "--student", student, "--device", "cpu", "--text", TEXT)
    wide, narrow = (tmp_path / name for name in ("wide.html", "narrow.html"))
    assert run("show", *options, "--output", wide).exit_code == 0
    assert run("show", *options, "--tolerance", 0.001, "--output", narrow).exit_code == 0
    assert narrow.read_text() != wide.read_text()
    assert_one_line(run("show", *options, "--max-rows", 3), "--max-rows", "--tolerance")
    assert_one_line(run("show", *options, "--tolerance", 0), "--tolerance 0", "--max-rows")
    pair = ct.Pair(ct.Tokenizer.from_pretrained(DEMO), ct.Tokenizer.from_pretrained(student))
    scorer = ct.Scorer(cached_teacher(str(DEMO), "float32", "cpu", None), pair, tolerance=0.001)
    (score,) = scorer.score([TEXT])
    shown = score.show().explanation.positions
    for i, position in enumerate(shown):
        assert math.exp(position.upper) - math.exp(position.lower) <= 0.001 + 1e-6
        assert position.lower == pytest.approx(score.lower[i], abs=1e-3)
    assert "certified" in {position.status for position in shown}


@pytest.mark.parametrize("kind", toys.KINDS)
def test_covers_make_up_the_bounds(kind: str) -> None:
    for number in range(6):
        sample = draw_sample(kind, student_kind(kind, number), number)
        scorer = sample.scorer("renormalize")
        every = scorer.show(sample.text, sample.prompt, True, 100_000).explanation
        check_bounds(every)
        check_spelling(every, sample)
        some = scorer.show(sample.text, sample.prompt, True, 2).explanation
        for position, whole in zip(some.positions, every.positions, strict=True):
            assert len(position.covers) + position.rest == len(whole.covers)
            assert log_sum(*(c.log_mass for c in position.covers), position.log_rest) == close(
                whole.log_covers
            )
        assert page(some)


def check_bounds(found: Explanation) -> None:
    """What is surely in is no more than the lower bound, all together no less than the upper, one of them each."""
    for position in found.positions:
        sure = [cover.log_mass for cover in position.covers if cover.kind in ("in", "partly")]
        assert position.log_covers == close(log_sum(*(cover.log_mass for cover in position.covers)))
        assert log_sum(*sure) <= position.prefix_lower + 1e-9
        assert position.log_covers >= position.prefix_upper - 1e-9
        assert sum(cover.share for cover in position.covers) == close(float(position.log_covers > -math.inf))
        if all(cover.kind in ("in", "partly") for cover in position.covers):
            assert position.prefix_lower == close(position.prefix_upper)


def check_spelling(found: Explanation, sample: Sample) -> None:
    """Covers begin with the trunk, are canonical, and reach the end of their student token."""
    for index, position in enumerate(found.positions):
        for cover in position.covers:
            path = [id for id in found.path(index, cover) if id not in sample.teacher_eos]
            assert sample.pair.teacher.is_canonical(path, start=sample.prompt is None)
            end = cover.tokens[-1].end if cover.tokens else found.teacher[0].start
            assert end >= position.token.end


def log_sum(*values: float) -> float:
    """Log of a sum of exponentials."""
    return float(np.logaddexp.reduce([-np.inf, *values]))


def close(value: float) -> Any:
    """Equal but for rounding."""
    return pytest.approx(value, abs=1e-9)
