"""`benches/run.py` refuses a debug build; with a release build its smoke test runs and writes figures.

`benches/pairs.py` checks, whatever the build; `test_real_pairs.py` runs it with a real teacher.
"""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

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
    found = run("--quick", "--json", str(target), *names, "--only", "planning", "teacher", "memory")
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    general = {row["name"] for row in rows if " -> llama2" in row["what"]}
    assert general == {"planning", "teacher", "memory"}


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
