"""General pairs of real tokenizers: a few texts of `benches/pairs.py`, and whether its oracle's decisions are sound."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import crosstok as ct
import pytest
import real
import torch
from test_real_model import smollm2  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))
decisions = import_module("suite.pairs.decisions")

ODD = [
    "ﬁ",
    "😀",
    "👨\u200d👩\u200d👧 family",
    "é",
    "한국어",
    "नमस्ते",
    "日本語のテキスト",
    "中文字符,测试。",
    "don't  we'll",
    "\u200b",
]
STUDENTS = ("qwen3", "gemma3", "llama3", "llama2", "deepseek")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benches" / "pairs.py"), *options]
    command += ["--tokenizers", str(real.SHARED / "tokenizers")]
    command += ["--data", str(real.SHARED / "data" / "gsm8k_train.jsonl")]
    return subprocess.run(command, capture_output=True, text=True, timeout=1100)


@pytest.mark.timeout(1200)
def test_a_few_texts_under_smollm2(smollm2: Path, tmp_path: Path) -> None:  # noqa: F811
    """Totals, bytes, order of bounds and the oracle, for a student of each kind; the command itself checks."""
    target, students = tmp_path / "figures.json", ("qwen3", "llama2")
    sizes = ["--answers", "1", "--snippets", "1", "--texts", "2", "--positions", "8", "--oracle-rows", "30"]
    options = ["--students", *students, *sizes, "--max-rows", "8", "--json", str(target)]
    found = run("--teacher", str(smollm2), *options)
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    assert {row["name"] for row in rows} == {"texts", "seconds", "checks", "widths", "oracle"}
    for student in students:
        compared = [row for row in rows if row["name"] == "oracle" and row["what"].startswith(f"{student}, ")]
        assert [row["positions"] for row in compared] == [4, 4]
        assert all(row["disjoint"] == 0 for row in compared)
        check_widths([row for row in rows if row["name"] == "widths" and f"{student}, " in row["what"]])
    assert sum(row.get("closed", 0) for row in rows if row["name"] == "oracle") >= 4


def check_widths(rows: list[Any]) -> None:
    """Bounds of (-inf, 0) hold always: most are to be close, and none further apart with further rows."""
    shares = {row["what"]: row["value"] for row in rows if "width <=" in row["what"]}
    before, after = (
        [x for what, x in shares.items() if f", {when}: " in what] for when in ("before", "after")
    )
    assert len(before) == len(after) == 3
    assert min(before) > 0.3 and min(after) > 0.5
    assert all(one <= other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("name", STUDENTS)
def test_decisions_of_the_oracle_are_sound(name: str) -> None:
    """What is decided on a text so far is so for every text that goes on from there."""
    tokenizer = real.load(name)
    student = decisions.Student.of(tokenizer.tok)
    rng = random.Random(1)
    settled = {decisions.IN: 0, decisions.OUT: 0, decisions.LOST: 0}
    for _ in range(1000):
        text, start = real.random_text(tokenizer, rng, 4), rng.random() < 0.3
        [ids] = tokenizer.admissible_ids([text], start)
        if not ids:
            continue
        prefix = list(ids[: rng.randint(1, len(ids))])
        size = student.ends(prefix, start)[-1]
        other = text.encode()[:size].decode(errors="ignore") + real.random_text(tokenizer, rng, 2)
        over = (text if rng.random() < 0.3 else other).encode()[size : size + rng.randint(0, 12)]
        target = decisions.Target.of(student, text.encode(), prefix, start)
        for decision in (target.decide(over), target.settle(over)):
            if decision != decisions.UNDECIDED:
                settled[decision] += 1
                check(tokenizer, text.encode()[:size] + over, prefix, start, decision, rng)
    assert min(settled[decisions.IN], settled[decisions.OUT]) > 20, settled


def check(
    tokenizer: real.Real, data: bytes, prefix: list[int], start: bool, decision: int, rng: random.Random
) -> None:
    """Encodings of texts that begin with ``data`` begin with ``prefix`` (IN), or do not (OUT); LOST: there are none."""
    completed = data + b"\x80" * 3
    lengths = (len(data) + extra for extra in range(4))
    whole = next((completed[:n] for n in lengths if is_text(completed[:n])), None)
    if whole is None:
        return
    texts = [whole.decode() + real.random_text(tokenizer, rng, 2) for _ in range(12)]
    for text, ids in zip(texts, tokenizer.admissible_ids(texts, start), strict=True):
        if ids is not None:
            found = decisions.IN if list(ids[: len(prefix)]) == prefix else decisions.OUT
            assert found == decision, (text, data, prefix, start)


def admissible(pair: ct.Pair, text: str) -> bool:
    try:
        pair.encode(text)
    except ct.TextError:
        return False
    return True


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("name", ["smollm2", "gemma3", "llama2", "qwen3"])
def test_rounding_is_not_undecided(name: str) -> None:
    """A difference of float32 sums is no mass that nobody has looked at: a text's statuses do not hang on its batch."""
    teacher = ct.HFTeacher(str(resources.files("crosstok.demo")), dtype=torch.float32)
    own = ct.Tokenizer.from_pretrained(str(resources.files("crosstok.demo")))
    student = real.load(name).tok
    scorer = ct.Scorer(teacher, ct.Pair(own, student, None, student.eos_ids or student.special_ids[:1]))
    texts = [text for text in ODD if admissible(scorer.pair, text)]
    together = scorer.score(texts, [(5, 6)] * len(texts))
    for text, score in zip(texts, together, strict=True):
        alone = scorer.score([text], [(5, 6)])[0]
        assert alone.status.tolist() == score.status.tolist(), text
        widths = alone.upper - alone.lower
        assert not ((widths > 0) & (widths < 1e-7)).any(), text
    assert sum(int((score.status == 0).sum()) for score in together) > 5
