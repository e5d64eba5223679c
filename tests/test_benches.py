"""`benches/run.py` refuses a debug build; with a release build its smoke test runs and writes figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from crosstok import _core

RUN = Path(__file__).resolve().parent.parent / "benches" / "run.py"
RELEASE = _core.build_profile == "release"
PARTS = (("planning", "growth", "encode", "covers", "load"), ("teacher", "memory", "streams"))


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *options], capture_output=True, text=True, timeout=500)


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
