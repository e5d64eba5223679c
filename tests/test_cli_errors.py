"""Every mistake is one line that names file, line and cause; what was finished before it stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("typer")

import torch
from commands import CHAT, DEMO, assert_one_line, run, score_file, write
from crosstok.cli import output as writing
from crosstok.cli.app import app
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("one_thread")
FINE = {"text": "Return a copy."}


def files(folder: Path) -> tuple[object, ...]:
    """Return the options that name input and output."""
    return "--input", folder / "in.jsonl", "--output", folder / "out.jsonl"


def model_with(folder: Path, **changes: Any) -> Path:
    """Copy the demo's model, with other fields at the top of its tokenizer.json."""
    shutil.copytree(DEMO, folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")
    return folder


# The input


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"texts": "b"}, ["needs exactly one of text or prompt + completion or messages; it has texts"]),
        ({"prompt": "b"}, ["'completion' is missing"]),
        ('{"text": "a"', ["not JSON: Expecting ',' delimiter (column 13)"]),
        ({"text": ["a"]}, ["'text' must be a string, not list"]),
        ({"messages": CHAT[:1]}, ["the last message must be the assistant's"]),
    ],
)
def test_a_bad_line_is_named_before_anything_is_scored(tmp_path: Path, row: Any, words: list[str]) -> None:
    result = score_file(tmp_path, [FINE, "", row, FINE])
    assert_one_line(result, "in.jsonl, line 3: ", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    result = run("score", "--teacher", DEMO, "--student", "merges:0", *files(tmp_path))
    assert_one_line(result, "in.jsonl, line 2: not UTF-8 at byte 10")


@pytest.mark.parametrize("rows", [[], ["", "  "]])
def test_an_input_with_nothing_to_score(tmp_path: Path, rows: list[Any]) -> None:
    assert_one_line(score_file(tmp_path, rows), "in.jsonl: nothing to score")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_text_that_is_not_admissible_is_named_by_its_line(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", normalizer={"type": "NFC"})
    rows = [FINE, {"prompt": "a", "completion": "caf\u00e9 e\u0301"}]
    result = score_file(tmp_path, rows, "--teacher", model, student="merges:50")
    assert_one_line(result, "in.jsonl, line 2: byte 6: the normalizer changes the text here")


def test_messages_for_a_teacher_without_template(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model")
    (model / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    result = score_file(tmp_path, [FINE, {"messages": CHAT}], "--teacher", model, student="merges:0")
    assert_one_line(result, "in.jsonl, line 2: the teacher has no chat template")


def test_a_prompt_without_tokens(tmp_path: Path) -> None:
    result = score_file(tmp_path, [FINE, FINE, {"prompt": "", "completion": "a"}, FINE])
    assert_one_line(result, "in.jsonl, line 3: the prompt has no tokens")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_a_prompt_that_is_longer_than_the_model_reads(tmp_path: Path) -> None:
    rows = [FINE, "", FINE, {"prompt": "copy " * 2000, "completion": "a"}, FINE]
    result = score_file(tmp_path, rows, "--batch-tokens", 4)
    assert_one_line(result, "in.jsonl, line 4: ", "the model has 1024 positions")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1]


# Files


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    options = ("score", "--teacher", DEMO, "--student", "merges:0", "--output", tmp_path / "out.jsonl")
    assert_one_line(run(*options, "--input", tmp_path / "none.jsonl"), "none.jsonl: No such file")
    assert_one_line(run(*options, "--input", tmp_path), f"{tmp_path}: not a regular file")


@pytest.mark.parametrize("option", ["--output", "--summary"])
def test_outputs_that_cannot_be_written(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    for path, words in (
        (tmp_path / "no" / "folder.jsonl", "folder.jsonl: No such directory"),
        (tmp_path / "file" / "x", f"{tmp_path / 'file'} is no directory"),
        (tmp_path, "not a regular file"),
        (tmp_path / "in.jsonl", "in.jsonl: is the input too"),
    ):
        assert_one_line(score_file(tmp_path, [FINE], option, path), words)
    assert json.loads((tmp_path / "in.jsonl").read_text()) == FINE
    result = score_file(tmp_path, [FINE], "--summary", tmp_path / "out.jsonl")
    assert_one_line(result, "out.jsonl: is the output too")


def test_a_folder_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The user of a test may be root, who may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    assert_one_line(score_file(tmp_path, [FINE]), "out.jsonl: Permission denied")


@pytest.mark.parametrize("failing", [3, 4], ids=["output", "journal"])
def test_a_write_that_fails_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    written: list[bytes] = []

    def full(file: Any, data: bytes) -> None:
        written.append(data)
        if len(written) == failing:
            file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_all", full)
        result = score_file(tmp_path, [FINE] * 9, "--batch-tokens", 1)
    assert_one_line(result, "out.jsonl: No space left on device")
    lines = written[0] + (written[2] if failing == 4 else b"")
    assert (tmp_path / "out.jsonl").read_bytes() == lines
    assert score_file(tmp_path, [FINE] * 9, "--batch-tokens", 1).exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes().startswith(lines)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 9


# Tokenizers


@pytest.mark.parametrize("student", ["merges:x", "merges:", "merges:-1", "merges:²", "/nowhere/at/all"])
def test_a_student_that_cannot_be_had(tmp_path: Path, student: str) -> None:
    assert_one_line(score_file(tmp_path, [FINE], student=student), student)


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_a_tokenizer_that_is_not_supported(tmp_path: Path, whose: str) -> None:
    model = model_with(tmp_path / "model", model={"type": "Unigram", "vocab": []})
    options = {"--teacher": DEMO, "--student": DEMO, f"--{whose}": model}
    write(tmp_path / "in.jsonl", FINE)
    result = run("score", *(word for pair in options.items() for word in pair), *files(tmp_path))
    assert_one_line(result, str(model), "model.type", "Unigram")


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}'])
def test_a_tokenizer_file_that_is_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    assert_one_line(score_file(tmp_path, [FINE], student=path), str(path))


def test_a_tokenizer_that_does_not_say_what_ends_a_text(tmp_path: Path) -> None:
    result = score_file(tmp_path, [FINE], student=DEMO / "student" / "tokenizer.json")
    assert_one_line(result, "the student does not say which ids end a text", "student_eos")


@pytest.mark.parametrize("id", [5, 10**6])
def test_ids_that_do_not_end_a_text(tmp_path: Path, id: int) -> None:
    assert_one_line(score_file(tmp_path, [FINE], "--student-eos", id), "student", str(id))


@pytest.mark.parametrize("id", [-1, 2**40])
def test_ids_that_no_tokenizer_has(tmp_path: Path, id: int) -> None:
    assert_one_line(score_file(tmp_path, [FINE], "--student-eos", id), "--student-eos")


def test_tolerances_that_cannot_be_met(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", normalizer={"type": "NFC"})
    assert_one_line(score_file(tmp_path, [FINE], "--tolerance", 0, student=model), "needs --max-rows")
    assert_one_line(score_file(tmp_path, [FINE], "--max-rows", 3, student=model), "needs --tolerance")
    assert_one_line(score_file(tmp_path, [FINE], "--tolerance", 2, student=model), "--tolerance")


# Models


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert_one_line(score_file(tmp_path, [FINE], "--teacher", tmp_path / "nothing"), "nothing")
    file = DEMO / "tokenizer.json"
    ends = ("--teacher-eos", 0, "--student-eos", 0)
    result = score_file(tmp_path, [FINE], "--teacher", file, *ends, student="merges:0")
    assert_one_line(result, f"cannot load a model from {file}: ")
    model = model_with(tmp_path / "model")
    (model / "model.safetensors").unlink()
    result = score_file(tmp_path, [FINE], "--teacher", model, student="merges:0")
    assert_one_line(result, f"cannot load '{model}'")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_model_whose_vocabulary_is_too_small(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model")
    config = LlamaConfig(
        vocab_size=100, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=64, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(model)
    result = score_file(tmp_path, [FINE], "--teacher", model, student="merges:0")
    assert_one_line(result, "the teacher's rows have 100 entries, but its tokenizer has token")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_model_of_nan(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model")
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        weights.model.norm.weight[0] = float("nan")
    weights.save_pretrained(model)
    assert_one_line(score_file(tmp_path, [FINE], "--teacher", model, student="merges:0"), "NaN")


def test_logits_that_become_nan_name_the_lines(tmp_path: Path) -> None:
    # Only the rows of one token are NaN: found when a text has it, not when the model is loaded.
    model = model_with(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        embedding = weights.model.embed_tokens.weight
        weights.lm_head.weight = torch.nn.Parameter(embedding.clone())
        embedding[tokenizer["model"]["vocab"]["Z"]] = float("nan")
    weights.config.tie_word_embeddings = False
    weights.save_pretrained(model)
    rows = [FINE, FINE, {"text": "ZZ"}, FINE]
    result = score_file(tmp_path, rows, "--teacher", model, "--batch-tokens", 1, student="merges:0")
    assert_one_line(result, "in.jsonl, line", "3", "NaN")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dtype", "float8"], ["--dtype", "'float8' is not one of", "bfloat16"]),
        (["--device", "nowhere"], ["--device nowhere: "]),
        (["--device", "cuda:99"], ["--device cuda:99: "]),
        (["--canonical", "maybe"], ["--canonical", "maybe"]),
        (["--limit", "0"], ["--limit"]),
        (["--batch-tokens", "many"], ["--batch-tokens"]),
        (["--num-shards", "0"], ["--num-shards"]),
        (["--num-shards", "3"], ["--num-shards 3 needs --shard"]),
        (["--shard", "1"], ["--shard 1: not below --num-shards 1"]),
        (["--num-shards", "3", "--shard", "3"], ["--shard 3: not below --num-shards 3", "from 0"]),
        (["--num-shards", "3", "--shard", "-1"], ["--shard -1"]),
        (["--nothing"], ["--nothing"]),
    ],
)
def test_options_that_are_wrong(tmp_path: Path, options: list[str], words: list[str]) -> None:
    assert_one_line(score_file(tmp_path, [FINE], *options), *words)
    assert not (tmp_path / "out.jsonl").exists()


def test_options_that_are_missing() -> None:
    assert_one_line(run("score"), "--teacher")
    assert_one_line(run("scores"), "scores")


def test_help_where_no_command_is_given() -> None:
    result = run()
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("demo", "score", "inspect"))


def test_mistakes_of_ours_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import crosstok.cli.score as scoring

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(scoring, "load_teacher", broken)
    write(tmp_path / "in.jsonl", FINE)
    options = [str(word) for word in ("score", "--teacher", DEMO, "--student", "merges:0", *files(tmp_path))]
    with pytest.raises(RuntimeError, match="a bug"):
        CliRunner().invoke(app, options, catch_exceptions=False)
