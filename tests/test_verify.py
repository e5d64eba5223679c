"""`crosstok.verify.verify` and the command: true errors against brute force, and a wrong method is found out."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
import torch
from commands import CHAT, DEMO, assert_one_line, cached_teacher, run, write
from crosstok.results import Distributions, NextToken
from crosstok.verify import Spread, Verification, draw, verify
from crosstok.verify.comparison import compare, total_variation
from general_checks import failures, truths
from general_pairs import MODES, Sample, draw_sample
from oracle import toys
from oracle.pairs import student_kind

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT: dict[str, Any] = {"reference_tolerance": 0.0, "reference_max_rows": None}
ROWS = [
    {"text": "Return a copy of the string."},
    {"text": "if None", "ended": False},
    {"prompt": "Return ", "completion": "a key."},
    {"messages": CHAT},
]


@pytest.fixture(scope="module", params=toys.KINDS)
def drawn(request: pytest.FixtureRequest) -> list[Sample]:
    """Samples that no other test file has."""
    return [draw_sample(request.param, student_kind(request.param, seed), seed) for seed in range(60, 63)]


def verified(sample: Sample, **options: Any) -> Verification:
    """What is found of a sample's text."""
    return verify(ct.TableTeacher(sample.fn), sample.pair, [sample.text], sample.prompts, **options)


def demo() -> tuple[Any, ct.Pair]:
    """A model, and a pair that is exact."""
    tokenizer = ct.Tokenizer.from_pretrained(DEMO)
    pair = ct.Pair(tokenizer, tokenizer.first_merges(200))
    return cached_teacher(str(DEMO), "float32", "cpu", None), pair


@pytest.mark.parametrize("mode", MODES)
def test_errors_are_true_errors(drawn: list[Sample], mode: str) -> None:
    """Against brute force, which the lossless reference meets."""

    def check(sample: Sample) -> None:
        found = verified(sample, canonical=mode, positions=0, **EXACT)
        score = sample.scorer(mode).score([sample.text], sample.prompts)[0]
        assert np.array_equal(found.student_ids, score.student_ids)
        assert found.held and found.closed.all() and found.texts == 1 and not len(found.rows.at)
        for i, (low, high) in enumerate(truths(sample, mode)[1]):
            error = abs(math.exp(score.logprobs[i]) - low)
            assert abs(found.label_error[i] - error) <= 1e-9 + high - low, (mode, i)
        for values in (*vars(found).values(), found.label_error, found.log_error):
            assert not (isinstance(values, np.ndarray) and np.isnan(values).any())

    assert not (report := failures(drawn, check)), report


def test_distributions_of_general_pairs(drawn: list[Sample]) -> None:
    """Total variation is what numpy makes of the two distributions, and the exact one is no further than said."""
    for sample in drawn:
        found, loose = verified(sample, **EXACT), verified(sample, reference_tolerance=0.3)
        assert found.rows.problem is None and found.held and loose.held, str(sample)
        [rows] = sample.scorer("renormalize").distributions([sample.text], sample.prompts)
        exact = sample.scorer("renormalize", tolerance=0.0)
        for at, tv in zip(found.rows.at.tolist(), found.rows.tv, strict=True):
            p = rows.logprobs[at].double().exp().numpy()
            q = exact.next_token(sample.ids[:at], prompt=sample.prompt).logprobs.exp().numpy()
            expected = 0.5 * (np.abs(p - q).sum() + abs(p.sum() - q.sum()))
            assert tv == pytest.approx(expected, abs=1e-6), str(sample)
        assert np.array_equal(loose.rows.at, found.rows.at)
        gap = np.abs(loose.rows.tv - found.rows.tv)
        assert (gap <= loose.rows.tv_within + found.rows.tv_within + 1e-6).all(), str(sample)
        assert found.rows_closed.all() and loose.rows_closed.all() and (found.rows.tv_within < 1e-9).all()


def test_total_variation_is_as_certain_as_said(drawn: list[Sample]) -> None:
    """Whatever the method says: against loose bounds and against none."""
    random = np.random.default_rng(5)
    for sample in drawn:
        exact = sample.scorer("renormalize", tolerance=0.0).next_token((), prompt=sample.prompt)
        p = random.dirichlet(np.full(len(exact.logprobs), 0.1)) * random.uniform(0.5, 1)
        row = torch.from_numpy(np.log(np.maximum(p, 1e-300)))[None]
        given = Distributions(np.zeros(0, dtype=np.int64), row, torch.zeros(1))
        label = int(exact.logprobs.argmax())
        truth = compare(given, 0, exact, label)
        assert truth[0] == pytest.approx(total_variation(p, exact.logprobs.exp().numpy()), abs=1e-12)
        for options in ({}, {"tolerance": 0.3}, {"tolerance": 0.0, "max_rows": 2}):
            following = sample.scorer("renormalize", **options).next_token((), prompt=sample.prompt)
            tv, within, _, width, low, high, _ = compare(given, 0, following, label)
            assert abs(tv - truth[0]) <= within + 1e-9, str(sample)
            assert 0 <= within <= 1 and low <= high
            assert width == pytest.approx(float((following.upper.exp() - following.lower.exp()).max()))


@pytest.mark.parametrize("kind", toys.KINDS[:3])
def test_exact_pairs_have_no_errors(kind: str) -> None:
    sample = draw_sample(kind, student_kind(kind, 1), 1)
    teacher = sample.pair.teacher
    for merges in (1, 10**6):
        eos = sample.teacher_eos
        student = teacher.first_merges(merges)
        end = next(i for i in student.special_ids if student.token_bytes(i) == teacher.token_bytes(eos[0]))
        pair = ct.Pair(teacher, student, teacher_eos=eos, student_eos=end)
        try:
            pair.encode(sample.text, start=sample.prompt is None)
        except ct.TextError:
            continue
        found = verify(ct.TableTeacher(sample.fn), pair, [sample.text], sample.prompts)
        assert pair.regime in ("same", "subset")
        assert found.held and not found.label_error.any() and not found.log_error.any()
        assert len(found.rows.at) == found.rows.drawn > 0 and found.rows.problem is None
        assert (found.rows.tv < 1e-6).all() and not found.rows.undecided.any()


@pytest.mark.parametrize(
    ("low", "high", "shift", "held"), [(0, 0, 0.4, False), (0, 0, 1e-11, True), (-1, 1, 0.4, True)]
)
def test_wrong_bounds_are_found(
    monkeypatch: pytest.MonkeyPatch, low: float, high: float, shift: float, held: bool
) -> None:
    """One label's numbers, moved by some nats: beside the truth, by rounding, and with bounds that still hold it."""
    sample = draw_sample(toys.KINDS[0], student_kind(toys.KINDS[0], 3), 3)
    true = sample.truths["renormalize"].probability(sample.ids[:1])[0]
    value = math.log(true)
    moved = {"logprobs": -shift, "lower": low - shift, "upper": high - shift}
    patch_scores(monkeypatch, {name: value + by for name, by in moved.items()})
    found = verified(sample, positions=1, **EXACT)
    assert found.bounds_held.tolist() == [held, *[True] * len(sample.ids)] and found.held is held
    assert found.label_error[0] == pytest.approx(abs(math.exp(value - shift) - true))
    assert found.log_error[0] == pytest.approx(shift, abs=1e-9)


def patch_scores(monkeypatch: pytest.MonkeyPatch, values: dict[str, float]) -> None:
    """Make scores without a tolerance, which the reference always has, wrong at their first label."""
    honest = ct.Scorer.iter_scores

    def wrong(self: ct.Scorer, *arguments: Any) -> Iterator[ct.Score]:
        for score in honest(self, *arguments):
            columns: Any = {name: np.array([x, *getattr(score, name)[1:]]) for name, x in values.items()}
            yield score if self._goal is not None else dataclasses.replace(score, **columns)

    monkeypatch.setattr(ct.Scorer, "iter_scores", wrong)


def test_wrong_distributions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (teacher, pair), text = demo(), "Return a copy."
    honest, before = ct.Scorer.distributions, verify(*demo(), [text])

    def wrong(self: ct.Scorer, *arguments: Any) -> list[Distributions]:
        [found] = honest(self, *arguments)
        return [dataclasses.replace(found, logprobs=found.logprobs.roll(1, dims=1))]

    monkeypatch.setattr(ct.Scorer, "distributions", wrong)
    after = verify(teacher, pair, [text])
    [rows] = honest(ct.Scorer(teacher, pair), [text])
    p = rows.logprobs.exp().numpy().astype(np.float64)
    expected = np.abs(p - np.roll(p, 1, axis=1)).sum(axis=1) / 2
    assert before.held and before.rows_held.all() and (before.rows.tv < 1e-3).all()
    assert after.rows.tv == pytest.approx(expected[after.rows.at], abs=1e-3) and after.rows.tv.max() > 0.1
    assert after.bounds_held.all() and not after.rows_held.any() and not after.held
    row = torch.full((pair.student.vocab_size,), -50.0, dtype=torch.float64)
    monkeypatch.setattr(ct.Scorer, "next_token", lambda *arguments: NextToken(row, row, row))
    assert not verify(teacher, pair, [text]).bounds_held.any()  # labels are compared with whole rows, too


def test_spreads_are_those_of_numpy() -> None:
    errors = np.random.default_rng(0).exponential(size=101)
    spread = Spread.of(errors)
    assert spread is not None and Spread.of(np.zeros(0)) is None
    ordered = np.sort(errors)
    assert spread.mean == pytest.approx(np.mean(errors)) and spread.worst == ordered[-1]
    assert spread.median == np.median(errors) == ordered[50]
    assert spread.p90 == ordered[math.ceil(0.9 * 101) - 1]
    assert Spread.of(np.array([0.0, math.inf, 1.0])) == Spread(math.inf, 1.0, math.inf, math.inf)
    assert total_variation(np.array([0.5, 0.2]), np.array([0.1, 0.4])) == pytest.approx(0.4)


def test_probability_zero_gives_infinite_logarithms_and_no_nan() -> None:
    found = verified(draw_sample(toys.KINDS[0], student_kind(toys.KINDS[0], 3), 3), positions=0)
    none, some = np.full(len(found.logprobs), -math.inf), np.full(len(found.logprobs), -1.0)
    assert not dataclasses.replace(found, logprobs=none, reference_logprobs=none).log_error.any()
    found = dataclasses.replace(found, logprobs=some, reference_logprobs=none)
    assert np.isposinf(found.log_error).all() and found.label_error == pytest.approx(np.exp(some))


def test_texts_and_positions_are_drawn_without_replacement() -> None:
    assert draw(5, None, 0).tolist() == draw(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    chosen = draw(1000, 20, 3)
    assert len(set(chosen.tolist())) == 20 and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, draw(1000, 20, 3)) and not np.array_equal(chosen, draw(1000, 20, 4))


def test_results_stand_where_their_texts_do() -> None:
    teacher, pair = demo()
    texts = ["Return", "", "a copy of it", "key", " of the string.", "None"]
    ended = [True, False, True, False, True, True]
    found = verify(teacher, pair, texts, ended=ended, sample=4, positions=7, seed=2)
    chosen = draw(6, 4, 2).tolist()
    assert found.texts == 4 and found.rows.drawn == len(found.rows.at) == 7
    wanted = [texts[i] for i in chosen]
    scores = ct.Scorer(teacher, pair).score(wanted, ended=[ended[i] for i in chosen])
    for i, score in zip(chosen, scores, strict=True):
        mine = found.text == i
        assert found.student_ids[mine].tolist() == score.student_ids.tolist()
        assert found.position[mine].tolist() == list(range(len(score.student_ids)))
        assert found.logprobs[mine] == pytest.approx(score.logprobs, abs=1e-3)
        assert found.rows_used[mine].tolist() == score.rows.tolist()
    assert found.held and min(dataclasses.astuple(found.seconds)) > 0


def test_mistakes_name_the_text_given() -> None:
    teacher, pair = demo()
    texts: list[str | bytes] = ["a"] * 30
    bad = int(draw(30, 5, 0)[3])
    texts[bad] = b"a\xff"
    with pytest.raises(ct.TextError) as caught:
        verify(teacher, pair, texts, sample=5)
    assert caught.value.index == bad and caught.value.offset == 1
    with pytest.raises(ct.TeacherError) as refused:
        verify(teacher, pair, ["a"] * 3, [None, None, ()])
    assert refused.value.index == 2
    for name, value in (("sample", 0), ("positions", -1), ("rounding", -1.0)):
        with pytest.raises(ValueError, match=r"nothing to draw|negative"):
            verify(teacher, pair, ["a"], **{name: value})  # type: ignore[arg-type]
    for nothing in ([], [""]):
        with pytest.raises(ValueError, match="no student tokens"):
            verify(teacher, pair, nothing, ended=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once for all tests."""
    monkeypatch.setattr("crosstok.cli.verify.load_teacher", cached_teacher)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bytes, and a few merges that are not its first."""
    folder = tmp_path_factory.mktemp("student")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder)
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    special = [token["content"] for token in data["added_tokens"]]
    merges = [["t", "u"], ["tu", "r"], ["r", "n"], ["o", "f"], ["i", "n"], ["in", "g"], ["c", "o"]]
    names = [name for name in data["model"]["vocab"] if len(name) == 1 or name in special]
    names += ["".join(merge) for merge in merges]
    data["model"] |= {"merges": merges, "vocab": {name: id for id, name in enumerate(names)}}
    for token in data["added_tokens"]:
        token["id"] = names.index(token["content"])
    file.write_text(json.dumps(data), encoding="utf-8")
    return folder


def command(folder: Path, rows: list[Any], *options: object, student: object) -> Any:
    """Run `crosstok verify` on rows; outputs go to out.json and out.svg."""
    files = ("--input", write(folder / "in.jsonl", *rows))
    outputs = ("--json", folder / "out.json", "--plot", folder / "out.svg")
    pair = ("--teacher", DEMO, "--student", student, "--device", "cpu")
    return run("verify", *pair, *files, *outputs, *options)


def read(folder: Path) -> Any:
    """The JSON output."""
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


def test_a_general_pair_on_the_command_line(tmp_path: Path, student: Path) -> None:
    result = command(tmp_path, ROWS, "--positions", 12, "--reference-tolerance", 0.01, student=student)
    assert result.exit_code == 0, result.output
    out, found = " ".join(result.stdout.split()), read(tmp_path)
    labels, compared = found["labels"], found["compared"]
    assert found["regime"] == "general" and found["texts"] == 4
    assert set(labels["line"]) == {1, 2, 3, 4} and len(labels["line"]) == found["positions"]
    assert all(len(values) == found["positions"] for values in labels.values())
    assert f"bounds held {found['positions']} of {found['positions']}" in out
    check_table(out, found)
    closed = sum(width <= 0.01 for width in widths(labels))
    assert found["reference_closed"] == sum(labels["closed"]) == closed
    assert f"reference closed {closed} of {found['positions']}" in out
    assert sum(labels["rows_used"]) == found["rows"] <= found["reference_rows"]
    assert len(compared["tv"]) == found["distributions"] == found["distributions_held"] == 12
    assert "their bounds held 12 of 12" in out
    check_image(tmp_path / "out.svg", found)


def widths(labels: dict[str, Any]) -> list[float]:
    """How far apart the reference's bounds are."""
    pairs = zip(labels["reference_lower"], labels["reference_upper"], strict=True)
    return [math.exp(float(high)) - math.exp(float(low)) for low, high in pairs]


def check_table(out: str, found: Any) -> None:
    """The printed numbers, made from the listed ones by numpy."""
    labels, compared = found["labels"], found["compared"]
    columns = (
        ("total variation", compared["tv"]),
        ("undecided mass", compared["undecided"]),
        ("label error, probability", labels["label_error"]),
        ("label error, nats", labels["log_error"]),
    )
    for name, values in columns:
        x = np.sort(np.array(values, dtype=float))
        median, ninety = (x[math.ceil(share * len(x)) - 1] for share in (0.5, 0.9))
        line = " ".join(f"{value:.2e}" for value in (x.mean(), median, ninety, x[-1]))
        assert f"{name} {line}" in out
    error = np.array(labels["label_error"])
    assert f"label error, root mean square {np.sqrt((error**2).mean()):.2e}" in out
    logs = [[float(x) for x in labels[name]] for name in ("logprobs", "reference_logprobs")]
    assert error == pytest.approx(np.abs(np.exp(logs[0]) - np.exp(logs[1])))


def check_image(path: Path, found: Any) -> None:
    """Well-formed XML without anything from elsewhere; curves that rise from left to right, to the top."""
    source = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(source)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and source.count("http") == 1
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("error" in text for text in words) and any("share of positions" in text for text in words)
    assert f"label error ({found['positions']})" in words
    curves = [d for path in root.iter("{http://www.w3.org/2000/svg}path") if "V" in (d := path.get("d", ""))]
    assert len(curves) == 1 + bool(found["distributions"])
    for d in curves:
        for name, rising in (("H", 1), ("V", -1)):
            at = [float(step.split("V")[name == "V"]) for step in d.split("H")[1:-1]]
            assert (np.diff(at) * rising > 0).all()
        assert d.split("V")[-1].startswith("62.0H")


def test_an_exact_pair_with_chosen_lines(tmp_path: Path) -> None:
    options = ("--sample", 2, "--seed", 5, "--positions", 4)
    rows = [ROWS[0], "", *ROWS[1:]]
    result = command(tmp_path, rows, *options, student="merges:200")
    assert result.exit_code == 0, result.output
    found = read(tmp_path)
    lines = [[1, 3, 4, 5][i] for i in draw(4, 2, 5)]
    assert sorted(set(found["labels"]["line"])) == lines and found["texts"] == 2
    assert found["distributions"] == 4 and max(found["compared"]["tv"]) < 1e-3
    check_image(tmp_path / "out.svg", found)
    command(tmp_path, rows, *options, student="merges:200")
    assert {**read(tmp_path), "seconds": found["seconds"]} == found


def test_a_bound_that_fails_is_named_and_ends_with_one(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_scores(monkeypatch, {"logprobs": -20.0, "lower": -20.0, "upper": -20.0})
    result = command(tmp_path, ROWS, "--positions", 0, student=student)
    assert result.exit_code == 1, result.output
    out, found = " ".join(result.stdout.split()), read(tmp_path)
    assert f"bounds held {found['positions'] - 4} of {found['positions']}" in out
    assert "line 1 token 0, line 2 token 0, line 3 token 0, line 4 token 0" in out


def test_references_that_stay_open_are_named(tmp_path: Path, student: Path) -> None:
    result = command(tmp_path, ROWS, "--positions", 0, "--reference-max-rows", 0, student=student)
    assert result.exit_code == 0, result.output
    out, labels = " ".join(result.stdout.split()), read(tmp_path)["labels"]
    open_ones = [i for i, closed in enumerate(labels["closed"]) if not closed]
    assert open_ones == [i for i, width in enumerate(widths(labels)) if width > 0.001] and open_ones
    assert f"line {labels['line'][open_ones[0]]} token {labels['position'][open_ones[0]]}" in out


def test_mistakes_are_one_line(tmp_path: Path, student: Path) -> None:
    def fails(rows: list[Any], *options: object) -> Any:
        return partial(assert_one_line, command(tmp_path, rows, *options, student=student))

    fails([])("nothing to verify")
    fails([{"text": "", "ended": False}])("no student tokens")
    fails(ROWS, "--max-rows", 3)("--max-rows", "--tolerance")
    fails(ROWS, "--tolerance", 0)("--tolerance 0", "--max-rows")
    fails(ROWS, "--temperature", "nan")("--temperature")
    fails(ROWS, "--reference-tolerance", "nan")("reference-tolerance")
    fails(["{"])("line 1", "not JSON")
    fails([{"prompt": "", "completion": "a"}])("line 1", "no tokens")
    fails(ROWS, "--plot", tmp_path / "in.jsonl")("in.jsonl", "input")
    fails(ROWS, "--plot", tmp_path / "out.json")("out.json", "another output")
    fails(ROWS, "--json", tmp_path / "not" / "there.json")("there.json")
    fails([{"text": "a" * 100_000}])("line 1")
    assert not (tmp_path / "out.json").exists()
