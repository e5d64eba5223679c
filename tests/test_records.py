"""Rows of JSON Lines become texts to score; everything that is wrong with a line is said with its number."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

pytest.importorskip("typer")

from commands import CHAT, DEMO, write
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Row, parse, prompt_ids
from crosstok.cli.source import Place, Source
from crosstok.errors import CrosstokError, TextError


def read(path: Path, prompts: PromptEncoder, limit: int | None = None) -> list[tuple[Row, Any]]:
    """Return what `score` reads: each row, with the ids of its prompt."""
    with Source(path) as source:
        survey = source.survey(limit)
        return [(row, prompt_ids(path, row, prompts)) for row, _ in source.rows(Place(), survey.records)]


def with_template(folder: Path, template: str | None) -> PromptEncoder:
    """Return the demo teacher's prompts with another chat template."""
    folder.mkdir()
    shutil.copy(DEMO / "tokenizer.json", folder)
    config = json.loads((DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return PromptEncoder(str(folder))


@pytest.fixture(scope="module")
def prompts() -> PromptEncoder:
    """Return the demo teacher's own tokenizer and template."""
    return PromptEncoder(str(DEMO))


def test_text_starts_a_document_and_needs_no_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "Ü b"}, "", {"text": "", "ended": False, "id": 7})
    rows = read(path, PromptEncoder("/nowhere"))
    assert rows == [(Row(1, "Ü b"), None), (Row(3, "", ended=False), None)]
    assert rows[0][0].size == 4
    assert rows[0][0].start


def test_prompt_is_encoded_by_the_teacher(tmp_path: Path, prompts: PromptEncoder) -> None:
    path = write(tmp_path / "in.jsonl", {"prompt": "Return a", "completion": " copy."})
    [(row, ids)] = read(path, prompts)
    assert (row.text, row.start) == (" copy.", False)
    assert prompts.tokenizer.decode(list(ids)) == "Return a"


def test_messages_are_rendered_up_to_the_completion(tmp_path: Path, prompts: PromptEncoder) -> None:
    [(row, ids)] = read(write(tmp_path / "in.jsonl", {"messages": CHAT}), prompts)
    assert (row.text, row.start) == ("A string.\n", False)
    assert prompts.tokenizer.decode(list(ids)) == "user: What does it return?\nassistant: "


def test_earlier_turns_belong_to_the_prompt(prompts: PromptEncoder) -> None:
    ids = prompts.chat([*CHAT, {"role": "user", "content": "Sure?"}, CHAT[1]])
    assert prompts.tokenizer.eos_token_id in ids


def test_special_tokens_before_a_prompt_stay_and_after_it_go(tmp_path: Path) -> None:
    prompts = with_template(tmp_path / "model", None)
    path = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    end = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [end, {"Sequence": {"id": "A", "type_id": 0}}, end],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    plain = prompts.tokenizer("Return a", add_special_tokens=False)["input_ids"]
    assert prompts.encode("Return a") == (0, *plain)


TURN = "{% for m in messages %}{{ m['role'] }}: CONTENT\n{% endfor %}"
ASK = "{% if add_generation_prompt %}assistant: {% endif %}"


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        (TURN.replace("CONTENT", "{{ m['content'] | trim }}") + ASK, "trims white space"),
        (TURN.replace("CONTENT", "<think></think>{{ m['content'] }}") + ASK, "right after the prompt"),
        (TURN.replace("CONTENT", "{{ m['content'] | upper }}") + ASK, "right after the prompt"),
        (
            "{{ messages | length }}" + TURN.replace("CONTENT", "{{ m['content'] }}") + ASK,
            "start of the conversation",
        ),
        ("{{ raise_exception('no users, please') }}", "no users, please"),
        (None, "no chat template"),
    ],
)
def test_templates_that_change_the_completion_are_refused(
    tmp_path: Path, template: str | None, cause: str
) -> None:
    prompts = with_template(tmp_path / "model", template)
    with pytest.raises(TextError, match=cause):
        prompts.chat(CHAT)
    path = write(tmp_path / "in.jsonl", {"text": "fine"}, {"messages": CHAT})
    with pytest.raises(InputError, match=f"in.jsonl, line 2: .*{cause}"):
        read(path, prompts)


def test_a_template_that_trims_is_fine_where_there_is_nothing_to_trim(tmp_path: Path) -> None:
    prompts = with_template(tmp_path / "model", TURN.replace("CONTENT", "{{ m['content'] | trim }}") + ASK)
    ids = prompts.chat([CHAT[0], {"role": "assistant", "content": "A string."}])
    assert prompts.tokenizer.decode(list(ids)) == "user: What does it return?\nassistant: "


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "needs exactly one of text or prompt \\+ completion or messages; it has nothing"),
        ({"text": "a", "prompt": "b"}, "needs exactly one of .* it has prompt, text"),
        ({"question": "a"}, "it has question"),
        ({"text": 3}, "'text' must be a string, not int"),
        ({"text": None}, "'text' must be a string, not NoneType"),
        ({"prompt": "a"}, "'completion' is missing"),
        ({"completion": "a"}, "'prompt' is missing"),
        ({"prompt": "", "completion": "a"}, "the prompt has no tokens"),
        ({"text": "a", "ended": 1}, "'ended' must be true or false"),
        ('{"text": "a\\ud800"}', "'text' holds a lone surrogate at character 1"),
        ({"messages": []}, "'messages' must be a list"),
        ({"messages": "hello"}, "'messages' must be a list"),
        ({"messages": ["hello"]}, "message 0 has no 'role'"),
        ({"messages": [{"role": "user"}]}, "message 0: 'content' is missing"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "text"}]}]},
            "message 0: 'content' must be",
        ),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "integer string conversion|not a JSON object"),
        ({"messages": CHAT[:1]}, "the last message must be the assistant's"),
    ],
)
def test_bad_rows_name_file_line_and_cause(
    tmp_path: Path, prompts: PromptEncoder, row: Any, cause: str
) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "fine"}, "", row)
    with pytest.raises(InputError, match=f"in.jsonl, line 3: .*{cause}"):
        read(path, prompts)


def test_bytes_that_are_not_utf8(tmp_path: Path, prompts: PromptEncoder) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(InputError, match="line 1: not UTF-8 at byte 10"):
        read(path, prompts)


def test_limit_stops_before_later_lines_are_read(tmp_path: Path, prompts: PromptEncoder) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "a"}, "", {"text": "b"}, "{")
    assert [row.text for row, _ in read(path, prompts, limit=2)] == ["a", "b"]
    with pytest.raises(InputError, match="line 4"):
        read(path, prompts)


def test_a_file_that_is_not_there(tmp_path: Path, prompts: PromptEncoder) -> None:
    with pytest.raises(CrosstokError, match=r"none\.jsonl: No such file"):
        read(tmp_path / "none.jsonl", prompts)


def test_a_place_is_where_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n\n  \n{"text": "b"}\n{"text": "c"}')
    with Source(path) as source:
        survey = source.survey()
        assert (survey.records, survey.size) == (3, path.stat().st_size)
        places = [place for _, place in source.rows(Place(), 3)]
        assert [(place.index, place.line) for place in places] == [(1, 1), (2, 4), (3, 5)]
        for place in places:
            head = path.read_bytes()[: place.offset]
            assert place.crc == zlib.crc32(head) == source.crc(place.offset)
            assert [row.line for row, _ in source.rows(place, 3)] == [1, 4, 5][place.index :]
            assert source.find(place.index) == place
        assert [row.text for row, _ in source.rows(source.find(1), 2)] == ["b"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CrosstokError, match=f"{path}: not a regular file"):
            Source(path)


def test_a_name_given_twice_is_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n{"text": "a", "text": "b"}\n')
    first, second = path.read_bytes().splitlines(keepends=True)
    assert parse(path, 1, first).text == "a"
    with pytest.raises(InputError, match="line 2: 'text' is given twice"):
        parse(path, 2, second)
