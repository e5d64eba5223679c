"""`crosstok score` goes on after every kind of damage, to the same bytes, or says why it does not."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import crosstok as ct
import crosstok.cli.score as scoring
from commands import CHAT, DEMO, assert_one_line, cached_teacher, command, finish, many_rows, run, write
from crosstok.cli.journal import journal_path
from crosstok.cli.output import Output
from crosstok.cli.settings import Job
from damages import DAMAGES, first_byte, half_line, last_byte, one_byte_of_output, shorter_output
from typer.testing import Result

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once for all tests."""
    monkeypatch.setattr(scoring, "load_teacher", cached_teacher)


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give a function that lets the next run be interrupted after so many batches, 0: no more."""
    return stop_after(monkeypatch)


def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what the fixture `stop` gives."""
    append, left = Output.append, [0]

    def interrupted(self: Output, *arguments: Any) -> None:
        append(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Output, "append", interrupted)
    return lambda batches: left.__setitem__(0, batches)


def stopped(folder: Path, stop: Callable[[int], None], batches: int = 3) -> bytes:
    """Return the whole output of a folder's input, and leave it as after an interrupt."""
    finish(folder, "--overwrite")
    whole = (folder / "out.jsonl").read_bytes()
    stop(batches)
    result = run(*command(folder, "--overwrite"))
    assert (result.exit_code, result.stderr) == (130, "crosstok: interrupted\n")
    part = (folder / "out.jsonl").read_bytes()
    assert whole.startswith(part)
    assert part.endswith(b"\n")
    assert 0 < len(part) < len(whole)
    stop(0)
    return whole


@pytest.fixture(scope="module")
def interrupted(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Any]:
    """A folder as an interrupt leaves it, and what output and summary would be without."""
    folder = tmp_path_factory.mktemp("interrupted")
    write(folder / "in.jsonl", *many_rows(24, seed=3))
    summary = folder / "summary.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "load_teacher", cached_teacher)
        finish(folder, "--summary", summary)
        whole = stopped(folder, stop_after(patch))
    sums = json.loads(summary.read_text())
    summary.unlink()
    return folder, whole, sums


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_cut_off(
    tmp_path: Path,
    interrupted: tuple[Path, bytes, Any],
    stop: Callable[[int], None],
    damage: Callable[[Path], None],
) -> None:
    before, whole, sums = interrupted
    folder = tmp_path / "folder"
    shutil.copytree(before, folder)
    damage(folder / "out.jsonl")
    stop(1)
    assert run(*command(folder)).exit_code == 130  # once more, on the way
    stop(0)
    finish(folder, "--summary", tmp_path / "summary.json")
    assert (folder / "out.jsonl").read_bytes() == whole
    resumed = json.loads((tmp_path / "summary.json").read_text())
    assert resumed.pop("seconds")["total"] > 0
    assert resumed == {name: value for name, value in sums.items() if name != "seconds"}
    assert {path.name for path in folder.iterdir()} == {"in.jsonl", "out.jsonl", "out.jsonl.journal"}


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_killed_before_it_could_say_so_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", *many_rows(5, seed=4))
    complete = Output.complete
    monkeypatch.setattr(Output, "complete", lambda self, summary: None)
    finish(tmp_path)
    whole = (tmp_path / "out.jsonl").read_bytes()
    monkeypatch.setattr(Output, "complete", complete)
    monkeypatch.setattr(scoring, "load_teacher", None)  # no model is loaded for nothing
    assert "going on after 5 of 5 texts" in finish(tmp_path).stderr
    assert "already complete" in finish(tmp_path).stderr
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.usefixtures("quick")
def test_a_complete_output_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *many_rows(5, seed=4))
    first = finish(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = finish(tmp_path)
    assert "already complete" in again.stderr
    assert again.stderr.endswith(first.stderr)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    # Another way to the same files is the same.
    finish(tmp_path, "--input", tmp_path / ".." / tmp_path.name / "in.jsonl")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("edit", [half_line, shorter_output, last_byte, first_byte, one_byte_of_output])
def test_a_complete_output_that_was_changed_is_not_touched(
    tmp_path: Path, edit: Callable[[Path], None]
) -> None:
    write(tmp_path / "in.jsonl", *many_rows(5, seed=4))
    output = tmp_path / "out.jsonl"
    finish(tmp_path)
    edit(output)
    before = output.read_bytes()
    assert_one_line(run(*command(tmp_path)), "out.jsonl: was changed since it was written", "--overwrite")
    assert output.read_bytes() == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dtype", "float64"], ["dtype was float32, is float64"]),
        (["--canonical", "mask"], ["canonical was renormalize, is mask"]),
        (["--student", "merges:100"], ["student tokenizer was "]),
        (["--limit", "10"], ["limit was None, is 10"]),
        (["--num-shards", "2", "--shard", "0"], ["shard was None, is 0 of 2"]),
        (["--batch-tokens", "64"], ["batch tokens was 32, is 64"]),
        (["--batch-tokens", "64", "--dtype", "bfloat16"], ["batch tokens was", "dtype was"]),
    ],
)
def test_other_options_are_refused_by_name(
    tmp_path: Path, stop: Callable[[int], None], options: list[str], words: list[str]
) -> None:
    write(tmp_path / "in.jsonl", *many_rows(12, seed=5))
    stopped(tmp_path, stop, 1)
    before = (tmp_path / "out.jsonl").read_bytes()
    assert_one_line(run(*command(tmp_path, *options)), "out.jsonl: was made otherwise", "--overwrite", *words)
    assert (tmp_path / "out.jsonl").read_bytes() == before
    finish(tmp_path)


@pytest.mark.usefixtures("quick")
def test_another_end_of_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"text": "a"})
    shutil.copytree(DEMO / "student", tmp_path / "student")
    path = tmp_path / "student" / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    other = len(data["model"]["vocab"])
    data["added_tokens"].append({**data["added_tokens"][0], "id": other, "content": "<|stop|>"})
    path.write_text(json.dumps(data), encoding="utf-8")
    student = ("--student", tmp_path / "student")
    finish(tmp_path, *student)
    words = f"(student end-of-text was [0], is [{other}])"
    assert_one_line(run(*command(tmp_path, *student, "--student-eos", other)), words)


@pytest.mark.usefixtures("quick")
def test_the_batch_size_of_the_first_run_is_kept(tmp_path: Path, stop: Callable[[int], None]) -> None:
    write(tmp_path / "in.jsonl", *many_rows(12, seed=5))
    whole = stopped(tmp_path, stop, 1)
    arguments = command(tmp_path)
    place = arguments.index("--batch-tokens")
    assert run(*arguments[:place], *arguments[place + 2 :]).exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.usefixtures("quick")
def test_another_model_under_the_same_name_is_refused(tmp_path: Path, stop: Callable[[int], None]) -> None:
    write(tmp_path / "in.jsonl", *many_rows(12, seed=5))
    shutil.copytree(DEMO, tmp_path / "model")
    finish(tmp_path, "--teacher", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-(1 << 16) :] = bytes(1 << 16)
    weights.write_bytes(data)
    assert_one_line(run(*command(tmp_path, "--teacher", tmp_path / "model")), "teacher was")


@pytest.mark.usefixtures("quick")
def test_an_output_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"text": "a"})
    output = tmp_path / "out.jsonl"
    output.write_text("years of work\n")
    assert_one_line(run(*command(tmp_path)), "out.jsonl: exists, without a journal", "--overwrite")
    journal_path(output).write_text("not a journal\n")
    assert_one_line(run(*command(tmp_path)), "out.jsonl.journal: not a journal of this version")
    assert output.read_text() == "years of work\n"
    finish(tmp_path, "--overwrite")
    assert len(output.read_text().splitlines()) == 1


@pytest.mark.usefixtures("quick")
def test_overwrite_keeps_the_old_output_until_there_is_something_new(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"text": "a"})
    finish(tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    write(tmp_path / "in.jsonl", {"text": "a"}, "{")
    assert_one_line(run(*command(tmp_path, "--overwrite")), "line 2")
    assert (tmp_path / "out.jsonl").read_bytes() == before


# Inputs that change


@pytest.mark.usefixtures("quick")
def test_a_line_that_stopped_a_run_can_be_mended(tmp_path: Path) -> None:
    trimmed = {"messages": [CHAT[0], {**CHAT[1], "content": " a"}]}
    shutil.copytree(DEMO, tmp_path / "model")
    trim_messages(tmp_path / "model")
    teacher = ("--teacher", tmp_path / "model")
    good = [{"text": f"Return {i}."} for i in range(40)]
    write(tmp_path / "in.jsonl", *good[:30], trimmed, *good[31:])
    result = run(*command(tmp_path, *teacher))
    assert_one_line(result, "in.jsonl, line 31: the chat template does not render the completion as it is")
    # All before it is there, although its batch is not full.
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 30
    assert_one_line_at_the_end(run(*command(tmp_path, *teacher)), "line 31")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 30
    write(tmp_path / "in.jsonl", *good)
    assert "going on after" in finish(tmp_path, *teacher).stderr
    resumed = (tmp_path / "out.jsonl").read_bytes()
    finish(tmp_path, *teacher, "--overwrite")
    assert (tmp_path / "out.jsonl").read_bytes() == resumed


def trim_messages(model: Path) -> None:
    """Give a model a chat template that trims what it renders."""
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["chat_template"] = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    path.write_text(json.dumps(config), encoding="utf-8")


def assert_one_line_at_the_end(result: Result, *words: str) -> None:
    """Exit status 2, and a last line that holds ``words``, after one that says where the run went on."""
    assert result.exit_code == 2, result.output
    first, last = result.stderr.splitlines()
    assert "going on after" in first
    for word in words:
        assert word in last


@pytest.mark.usefixtures("quick")
def test_other_changes_of_the_input_are_refused(tmp_path: Path, stop: Callable[[int], None]) -> None:
    rows = [{"text": f"Return {i}."} for i in range(60)]
    path = write(tmp_path / "in.jsonl", *rows)
    stopped(tmp_path, stop, 1)
    size, words = (tmp_path / "out.jsonl").stat().st_size, "was made from another input than"
    write(path, *[{"text": "Return 0?"}, *rows[1:]])
    assert_one_line(run(*command(tmp_path)), words, "in.jsonl", "--overwrite")
    write(path, rows[0])
    assert_one_line(run(*command(tmp_path)), words)
    assert (tmp_path / "out.jsonl").stat().st_size == size
    # A bad line among those that are left is found before anything is scored.
    write(path, *rows, "{")
    assert_one_line(run(*command(tmp_path)), "line 61: not JSON")
    write(path, *rows, {"text": "more"})
    finish(tmp_path)
    # More lines behind a complete output would share a batch with its last ones.
    write(path, *rows, {"text": "more"}, {"text": "still more"})
    assert_one_line(run(*command(tmp_path)), words)


@pytest.mark.usefixtures("quick")
def test_an_input_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "in.jsonl", *many_rows(5, seed=6))
    append = Output.append

    def touched(self: Output, *arguments: Any) -> None:
        append(self, *arguments)
        os.utime(path, ns=(1, next(times)))

    times = itertools.count(1)
    monkeypatch.setattr(Output, "append", touched)
    assert_one_line(run(*command(tmp_path)), "in.jsonl: changed while it was read")
    monkeypatch.setattr(Output, "append", append)
    finish(tmp_path)


def test_a_run_that_another_one_overtook_leaves_its_output_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One looks at a half-done output and loads its model; meanwhile another finishes it."""
    write(tmp_path / "in.jsonl", *({"text": f"Return {i} copies of it."} for i in range(40)))
    job = Job(str(DEMO), "merges:200", tmp_path / "in.jsonl", tmp_path / "out.jsonl", batch_tokens=20)
    real_lines, real_load, written = scoring.as_lines, scoring.load_scorer, itertools.count()

    def stop(*arguments: Any) -> Any:
        if next(written) == 2:
            raise KeyboardInterrupt
        return real_lines(*arguments)

    def quiet(*_: Any) -> None: ...

    monkeypatch.setattr(scoring, "as_lines", stop)
    with pytest.raises(KeyboardInterrupt):
        scoring.run(job, quiet, quiet)
    monkeypatch.setattr(scoring, "as_lines", real_lines)
    whole = b""

    def overtaken(*arguments: Any) -> Any:
        nonlocal whole
        monkeypatch.setattr(scoring, "load_scorer", real_load)
        scoring.run(job, quiet, quiet)
        whole = job.output.read_bytes()
        return real_load(*arguments)

    monkeypatch.setattr(scoring, "load_scorer", overtaken)
    with pytest.raises(ct.CrosstokError, match="another process has written it meanwhile"):
        scoring.run(job, quiet, quiet)
    assert whole and job.output.read_bytes() == whole
    scoring.run(job, quiet, quiet)  # complete, and still known to be
    assert job.output.read_bytes() == whole
