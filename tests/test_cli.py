"""The command line from end to end, with the teacher that the package carries."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
import torch
from commands import DEMO, run, score_file
from crosstok.cli import score as scoring
from crosstok.cli.demo import Demo, own_totals, run_demo
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.summary import Summary
from crosstok.cli.table import probability, visible
from crosstok.naive import naive_logprobs

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["Return a copy of the string.", "If the key is not found, “KeyError” is raised.\n\n  x = 1", ""]
# float32 forwards of different shapes; the totals are sums over some tens of rows.
NATS = 1e-3


def scores(folder: Path, rows: list[Any], *options: object, student: object = DEMO / "student") -> list[Any]:
    """Return what `crosstok score` wrote for ``rows``."""
    result = score_file(folder, rows, "--overwrite", *options, student=student)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def demo() -> Demo:
    """Score the demo's own text."""
    return run_demo("Return a copy of the string with all the cased characters converted to lowercase.")


@pytest.fixture(scope="module")
def own() -> list[float]:
    """Each text's total in the teacher's own tokens, one forward a prefix, without the scorer."""
    teacher = ct.HFTeacher(str(DEMO), dtype=torch.float32, device="cpu")
    tokenizer = ct.Tokenizer.from_pretrained(str(DEMO))
    return [own_totals(teacher, tokenizer, text, [0])[0] for text in TEXTS]


def test_demo_folder_is_small_and_says_where_its_text_is_from() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) <= 3 << 20
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in (DEMO / "LICENSE-TEXT").read_text(encoding="utf-8")


def test_demo_exact_total_is_the_teachers_own_and_naive_alignment_is_not(demo: Demo) -> None:
    assert b"".join(step.piece for step in demo.steps if not step.is_end).decode() == demo.text
    assert demo.steps[-1].is_end
    assert demo.regime == "subset"
    assert demo.exact_total == pytest.approx(demo.own_total, abs=NATS)
    assert demo.naive_total < demo.own_total - 5
    assert all(step.status == 0 and step.covers >= 1 for step in demo.steps)


def test_demo_of_another_text_with_markup_and_stray_bytes() -> None:
    result = run("demo", "--text", "[bold]x\n🙂[/]")
    assert result.exit_code == 0, result.output
    assert "\\xf0" in result.stdout
    assert "\\n" in result.stdout


def test_demo_as_a_process_of_its_own() -> None:
    program = Path(sys.executable).with_name("crosstok")
    command = [str(program)] if program.exists() else [sys.executable, "-m", "crosstok.cli.app"]
    done = subprocess.run(
        [*command, "demo"], capture_output=True, text=True, encoding="utf-8", timeout=300, check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("␣string", "exact total", "naive total", "(end)"):
        assert words in done.stdout


@pytest.mark.parametrize("student", [DEMO / "student", DEMO, "merges:0", "merges:100", "merges:99999"])
def test_text_totals_are_the_teachers_own_for_every_student(
    tmp_path: Path, own: list[float], student: object
) -> None:
    lines = scores(tmp_path, [{"text": text} for text in TEXTS], student=student)
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert [line["total"] for line in lines] == pytest.approx(own, abs=NATS)
    for line in lines:
        assert sum(line["logprobs"]) == pytest.approx(line["total"], abs=1e-6)
        names = ("logprobs", "noncanonical_mass", "rows", "status")
        assert {len(line[name]) for name in names} == {len(line["student_ids"])}


def test_a_student_given_as_a_file(tmp_path: Path, own: list[float]) -> None:
    file = DEMO / "student" / "tokenizer.json"
    [line] = scores(tmp_path, [{"text": TEXTS[0]}], "--student-eos", 0, student=file)
    assert line["total"] == pytest.approx(own[0], abs=NATS)


def test_the_three_shapes_agree(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A string."}]
    rendered = "user: What is it?\nassistant: "
    rows = [
        {"messages": chat},
        {"text": TEXTS[0]},
        {"prompt": rendered, "completion": "A string."},
        {"prompt": "<|endoftext|>", "completion": TEXTS[0]},
        {"text": TEXTS[0], "ended": False},
    ]
    chatted, text, prompted, after_end, cut = scores(tmp_path, rows, "--batch-tokens", 512)
    assert chatted["student_ids"] == prompted["student_ids"]
    assert chatted["total"] == pytest.approx(prompted["total"], abs=NATS)
    # A text without a prompt follows the end-of-text id, as this model has no BOS.
    assert text["total"] == pytest.approx(after_end["total"], abs=NATS)
    assert cut["student_ids"] == text["student_ids"][:-1]
    assert cut["logprobs"] == pytest.approx(text["logprobs"][:-1], abs=NATS)


def test_mask_gives_no_more_than_renormalize(tmp_path: Path) -> None:
    rows = [{"text": text} for text in TEXTS]
    renormalized, masked = (scores(tmp_path, rows, "--canonical", mode) for mode in ("renormalize", "mask"))
    for one, other in zip(renormalized, masked, strict=True):
        assert other["total"] <= one["total"] + 1e-6
    assert masked[1]["total"] < renormalized[1]["total"]


def fake_score(total: float) -> Any:
    """Return what a scorer would, for one token."""
    one = np.array([total])
    zero = np.zeros(1)
    return SimpleNamespace(
        student_ids=np.array([3]),
        logprobs=one,
        total=total,
        noncanonical_mass=zero,
        inadmissible_mass=zero,
        rows=zero,
        status=zero,
    )


def test_probability_zero_is_a_string_and_not_in_the_totals() -> None:
    line = scoring.as_json(0, fake_score(-math.inf))
    assert (line["total"], line["logprobs"]) == ("-inf", ["-inf"])
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    summary = Summary()
    assert summary.as_json()["bits_per_byte"] is None
    summary.add(3, fake_score(-math.inf), 2)
    summary.add(4, fake_score(-4 * math.log(2)), 2)
    assert (summary.texts, summary.impossible) == (2, 1)
    assert summary.bits_per_byte == pytest.approx(1.0)
    assert summary.as_json()["texts_of_probability_zero"] == 1


def test_prompts_of_the_demo_have_no_bos() -> None:
    prompts = PromptEncoder(str(DEMO))
    assert prompts.encode("") == ()
    assert 0 not in prompts.encode("Return")


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b" the", "␣the"),
        (b"\n\t", "\\n\\t"),
        (b"\xf0\x9f", "\\xf0\\x9f"),
        ("é".encode(), "é"),
        (b"[/]", "[/]"),
    ],
)
def test_tokens_are_printed_with_visible_spaces(piece: bytes, shown: str) -> None:
    assert visible(piece) == shown


def test_probabilities_fit_their_column() -> None:
    shown = [probability(x) for x in (0.0, math.log(0.25), math.log(2e-5), -200.0, -math.inf)]
    assert shown == ["1.0000", "0.2500", "2.0e-05", "1.4e-87", "0.0000"]


class Letters:
    """A tokenizer over a few strings, longest match first, for naive alignment by hand."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens = tokens
        self.vocab_size = len(tokens)

    def token_bytes(self, id: int) -> bytes:
        return self.tokens[id]

    def encode(self, text: str) -> Any:
        data, ids = text.encode(), []
        while data:
            best = max((t for t in self.tokens if t and data.startswith(t)), key=len)
            ids.append(self.tokens.index(best))
            data = data[len(best) :]
        return np.array(ids, dtype=np.int64)


def test_naive_alignment_by_hand() -> None:
    asked: list[tuple[int, ...]] = []

    class Rows:
        def rows(self, paths: list[tuple[int, ...]]) -> torch.Tensor:
            asked.extend(paths)
            return torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64).log().repeat(len(paths), 1)

    teacher = Letters(b"<end>", b"a", b"b", b"ab")
    student = Letters(b"<end>", b"a", b"b", b"ba")
    # "a" is teacher token 1; "ba" is none, so "b" and then "a" after it; the prefix "aba" is "ab", "a".
    logprobs = naive_logprobs(Rows(), teacher, student, [1, 3, 0], (0,), (0, 2), (0,))
    assert asked == [(0,), (0, 1), (0, 1, 2), (0, 3, 1)]
    assert np.exp(logprobs) == pytest.approx([0.2, 0.3 * 0.2, 0.1 + 0.3])
