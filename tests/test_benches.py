"""`benches/run.py` refuses a debug build; with a release build its smoke test runs and writes figures.

`benches/pairs.py` checks, whatever the build; `test_real_pairs.py` runs it with a real teacher.
"""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import real
from crosstok import _core

BENCHES = Path(__file__).resolve().parent.parent / "benches"
TOKENIZERS = real.SHARED / "tokenizers"
RELEASE = _core.build_profile == "release"
PARTS = (("planning", "growth", "encode", "covers", "load"), ("teacher", "memory", "streams"))


def run(*options: str, command: str = "run.py") -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(BENCHES / command), *options]
    return subprocess.run(program, capture_output=True, text=True, timeout=500)


@pytest.mark.skipif(RELEASE, reason="a release build is measured")
def test_a_debug_build_is_refused() -> None:
    found = run("--quick", "--only", "load")
    assert found.returncode == 2
    assert "crosstok is a debug build" in found.stderr and "pip install ." in found.stderr
    assert found.stdout == ""


def test_an_unknown_benchmark_is_refused() -> None:
    found = run("--only", "nothing")
    assert found.returncode == 2 and "nothing" in found.stderr


@pytest.mark.skipif(not RELEASE, reason="a debug build is refused")
@pytest.mark.parametrize("names", PARTS)
def test_smoke(names: tuple[str, ...], tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    found = run("--quick", "--json", str(target), "--only", *names)
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    written = json.loads(target.read_text(encoding="utf-8"))
    facts, rows = written["measured_on"], written["rows"]
    assert facts["build"] == "release" and facts["quick"] and facts["cores"] >= 1
    available = {name for name in names if f"\n{name}\n  not measured" not in found.stdout}
    assert {row["name"] for row in rows} == available
    for row in rows:
        assert row["what"] in found.stdout and isinstance(row["unit"], str) and row["met"] is None
        # Only growth of memory may be nothing, or less: a small text's is noise.
        assert row["value"] > 0 or row["name"] == "memory"


@pytest.mark.skipif(not RELEASE, reason="a debug build is refused")
def test_smoke_of_unrelated_tokenizers(tmp_path: Path) -> None:
    """The embedded teacher with one student of ../shared."""
    real.load("llama2")
    target = tmp_path / "figures.json"
    names = ("--tokenizers", str(TOKENIZERS), "--names", "llama2")
    kinds = ("planning", "teacher", "memory", "growth", "further")
    found = run("--quick", "--json", str(target), *names, "--only", *kinds)
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    general: dict[str, list[str]] = {}
    for row in rows:
        if " -> llama2" in row["what"]:
            general.setdefault(row["name"], []).append(row["what"])
    assert set(general) == set(kinds)
    assert [what.split(": ")[1] for what in general["further"]] == ["a row, at most 4", "a row, at most 8"]
    ways = ("labels one by one", "labels batched", "dense", "top 32")
    assert [what.rsplit(", ", 1)[1] for what in general["teacher"]] == list(ways)
    assert any("top 32" in what for what in general["memory"])
    assert all(what.endswith((", first pass", ", warm")) for what in general["growth"])


def test_growth_is_of_the_last_size_over_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever build it is: linear is 1, and where one size alone was measured nothing is hidden."""
    monkeypatch.syspath_prepend(str(BENCHES))
    lengths = importlib.import_module("suite.lengths")
    value, details = lengths.growth([10, 20, 40], [1.0, 2.0, 16.0])
    assert value == pytest.approx(4) and list(details.values()) == [1.0, 2.0, 16.0]
    assert lengths.growth([10], [30.0])[0] == math.inf
    whole = SimpleNamespace(running_text=lambda size: "".join(chr(0x4E00 + i) for i in range(size // 4)))
    first, second = lengths.texts_of(whole, "text", (3, 5))
    assert (len(first), len(second)) == (3, 5) and not set(first) & set(second)
    assert lengths.texts_of(whole, "spaces", (3, 5)) == ["   ", "     "]


def test_growth_that_would_take_too_long_is_measured_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHES))
    lengths = importlib.import_module("suite.lengths")
    pair = SimpleNamespace(plan=lambda texts, num_threads: len(texts[0]) ** 2 / 1000)
    monkeypatch.setattr(lengths, "cpu_seconds", lambda call: call())
    monkeypatch.setattr(lengths, "repeated", lambda call, repeats, budget, clock: [clock(call)])
    found = lengths.figures(
        SimpleNamespace(pair=lambda: pair), "", ["a" * size for size in (50, 100, 200, 400)]
    )
    assert [(what, value, list(details)) for what, value, details in found] == [
        (what, pytest.approx(2), ["s at 50", "s at 100"]) for what in ("first pass", "warm")
    ]


@pytest.mark.parametrize("options", [(), ("--tokenizers", "nowhere"), ("--students", "nobody")])
def test_pairs_needs_tokenizers(options: tuple[str, ...]) -> None:
    where = () if not options or options[0] == "--tokenizers" else ("--tokenizers", str(TOKENIZERS))
    found = run(*options, *where, command="pairs.py")
    assert found.returncode == 2 and (options[-1] if options else "--tokenizers") in found.stderr


def test_pairs_smoke(tmp_path: Path) -> None:
    """A few texts under the embedded teacher; the command itself checks."""
    real.load("llama2")
    target = tmp_path / "figures.json"
    options = ("--quick", "--tokenizers", str(TOKENIZERS), "--students", "llama2", "--oracle-rows", "30")
    found = run(*options, "--json", str(target), command="pairs.py")
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    assert {row["name"] for row in rows} == {"texts", "seconds", "checks", "widths", "oracle"}
    assert all(row["what"] in found.stdout and row["met"] is not False for row in rows)


def test_the_texts_in_many_scripts() -> None:
    """NFC, all different, and fifty are left for SmolLM2."""
    path = BENCHES / "texts" / "multilingual.json"
    texts = [entry["text"] for entry in json.loads(path.read_text(encoding="utf-8"))]
    assert all(unicodedata.is_normalized("NFC", text) for text in texts)
    assert len(set(texts)) == len(texts) == 52
    admissible = real.load("smollm2").admissible_ids(texts)
    assert sum(ids is not None for ids in admissible) == 50
    assert None not in real.load("qwen3").admissible_ids(texts)


def test_compare_smoke(tmp_path: Path) -> None:
    """A few positions under the embedded teacher, in every way that has a figure."""
    real.load("llama2")
    target = tmp_path / "figures.json"
    options = ("--quick", "--tokenizers", str(TOKENIZERS), "--students", "llama2", "--json", str(target))
    found = run(*options, command="compare.py")
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    assert {row["name"] for row in rows} == {"texts", "reference", "tolerances", "errors"}
    [reference] = [row for row in rows if row["name"] == "reference"]
    assert 0 <= reference["value"] <= reference["of"] and reference["rows"] <= reference["rows at most"] == 10
    assert all(row["cpu ms"] > 0 and row["x plain"] > 0 for row in rows if row["name"] != "texts")
    [student] = json.loads(target.with_suffix(".positions.json").read_text(encoding="utf-8"))
    count = len(student["position"])
    assert count == reference["of"] >= 8 and student["student"] == "llama2"
    assert all(text["prompt"] for text in student["texts"])
    assert student["position"].count(0) == len(student["texts"])  # the first position of each counts
    assert {"unbiased, 1 draw", "unbiased, 4 draws"} < student["ways"].keys()
    for name, way in student["ways"].items():
        assert f"llama2: {name} " in found.stdout
        assert len(way["tv"]) == len(way["label"]) == count
        # With negative probabilities it may be more.
        assert name.startswith("unbiased") or all(tv is None or 0 <= tv <= 1 + 1e-6 for tv in way["tv"])
    assert all(tv is not None for tv in student["ways"]["closing estimate"]["tv"])
    alone = run(*options, "--processes", "2", "--only", "closing", command="compare.py")
    assert alone.returncode == 0, alone.stdout + alone.stderr[-2000:]
    [same] = json.loads(target.with_suffix(".positions.json").read_text(encoding="utf-8"))
    for name in ("texts", "text", "position", "reference"):
        assert same[name] == student[name]
    assert same["ways"].keys() == {"closing estimate"}
    assert same["ways"]["closing estimate"]["tv"] == student["ways"]["closing estimate"]["tv"]
