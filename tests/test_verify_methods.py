"""`verify` of what is not method "auto": corrections count, what has no distributions says so, bounds of none hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
from commands import CHAT, DEMO, assert_one_line, cached_teacher, run, write
from crosstok.methods import METHODS
from crosstok.verify import verify
from crosstok.verify.comparison import total_variation
from general_pairs import Sample, draw_sample
from handmade import byte_level
from made_pairs import sample_of
from oracle import toys
from oracle.pairs import student_kind

pytestmark = pytest.mark.usefixtures("one_thread")
REFERENCE: dict[str, Any] = {"reference_tolerance": 0.0, "reference_max_rows": None}


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """One of each kind."""
    return [draw_sample(kind, student_kind(kind, 70), 70) for kind in toys.KINDS]


def _plain() -> Sample:
    """What the recursion takes."""
    return sample_of(byte_level("ab", "a b"), byte_level("ab", "b a"), "abba", "ab")


def test_corrected_distributions_are_what_counts(samples: list[Sample]) -> None:
    """Total variation is the corrected rows'; the undecided mass bounds that of the rows without their correction."""
    options: dict[str, Any] = {"method": "unbiased", "method_options": {"draws": 3, "seed": 5}}
    moved = 0
    for sample in samples:
        teacher = ct.TableTeacher(sample.fn)
        found = verify(teacher, sample.pair, [sample.text], sample.prompts, **options, **REFERENCE)
        assert found.held, str(sample)
        [rows] = ct.Scorer(teacher, sample.pair, **options).distributions([sample.text], sample.prompts)
        assert rows.correction is not None
        corrected = rows.correction.apply(rows.logprobs).double().numpy()
        bare = rows.logprobs.double().exp().numpy()
        exact = ct.Scorer(teacher, sample.pair, tolerance=0.0)
        for k, at in enumerate(found.rows.at.tolist()):
            truth = exact.next_token(sample.ids[:at], prompt=sample.prompt).logprobs.exp().numpy()
            assert found.rows.tv[k] == pytest.approx(total_variation(corrected[at], truth), abs=1e-6)
            assert found.rows.certified_tv[k] == pytest.approx(total_variation(bare[at], truth), abs=1e-6)
        moved += int((found.rows.tv != found.rows.certified_tv).sum())
    assert moved > 10


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_compared(samples: list[Sample], method: str) -> None:
    """Labels always; distributions where there are any, and else the reason. What bounds nothing is never wrong."""
    for sample in [_plain()] if method == "recursion" else samples[:4]:
        teacher = ct.TableTeacher(sample.fn)
        found = verify(teacher, sample.pair, [sample.text], sample.prompts, method=method, **REFERENCE)
        assert found.held and len(found.logprobs) == len(sample.ids) + 1, str(sample)
        if method in ("beam", "recursion"):
            assert found.rows.problem is not None and method in found.rows.problem
            assert not len(found.rows.at) and found.rows.drawn
        else:
            assert found.rows.problem is None and len(found.rows.at) == found.rows.drawn


@pytest.mark.parametrize("method", METHODS)
def test_what_other_methods_do_not_have_is_refused(samples: list[Sample], method: str) -> None:
    """A tolerance, one next token, a page: "auto"'s would pass for theirs."""
    sample = _plain() if method == "recursion" else samples[0]
    teacher, pair = ct.TableTeacher(sample.fn), sample.pair
    with pytest.raises(ValueError, match=f"'{method}' reads no further rows"):
        ct.Scorer(teacher, pair, method=method, tolerance=0.1)
    scorer = ct.Scorer(teacher, pair, method=method)
    with pytest.raises(ct.PlanError, match=f"'{method}' has no next_token"):
        scorer.next_token(())
    with pytest.raises(ct.PlanError, match=f"'{method}' has no show"):
        scorer.show(sample.text)


def test_where_all_is_exact_a_tolerance_is_of_no_account() -> None:
    tokenizer = ct.Tokenizer.from_pretrained(DEMO)
    pair = ct.Pair(tokenizer, tokenizer.first_merges(200))
    teacher = cached_teacher(str(DEMO), "float32", "cpu", None)
    plain, limited = (ct.Scorer(teacher, pair, method="bpm", tolerance=t) for t in (None, 0.1))
    (one,), (other,) = (scorer.score(["Return a copy."]) for scorer in (plain, limited))
    assert one.logprobs.tobytes() == other.logprobs.tobytes()


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosstok.cli.verify.load_teacher", cached_teacher)
    path = write(tmp_path / "in.jsonl", {"text": "Return a copy."}, {"messages": CHAT})
    files = ("--input", path, "--json", tmp_path / "out.json", "--positions", 5)
    pair = ("--teacher", DEMO, "--student", DEMO / "student", "--device", "cpu")
    result = run("verify", *pair, *files, "--method", "bpm")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["options"]["method"] == "bpm" and found["distributions"] == 5
    assert found["bounded"] == 0 and not found["distributions_certified"]
    out = " ".join(result.stdout.split())
    assert "bounds held there are none" in out and "their bounds held there are none" in out
    assert np.mean(found["compared"]["tv"]) > 0.01  # it is biased, the pair being exact
    assert_one_line(run("verify", *pair, *files, "--method", "bpm", "--tolerance", 0.1), "--method auto")
    result = run("verify", *pair, *files, "--method", "unbiased", "--method-option", "draws=3")
    assert result.exit_code == 0, result.output
    for option, cause in (
        ("draws", "NAME=VALUE"),
        ("draws=0", "draws"),
        ("draws=abc", "whole number"),
        ("width=3", "no option 'width'"),
    ):
        wrong = run("verify", *pair, *files, "--method", "unbiased", "--method-option", option)
        assert_one_line(wrong, "--method-option", cause)
