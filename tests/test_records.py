"""Rows of JSON Lines become texts to score; everything that is wrong with a line is said with its number."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Record, read_records
from crosstok.errors import CrosstokError, TextError

DEMO = Path(str(resources.files("crosstok.demo")))
CHAT = [
    {"role": "user", "content": "What does it return?"},
    {"role": "assistant", "content": "A string.\n"},
]


def write(path: Path, *rows: Any) -> Path:
    """Write rows as JSON Lines; a string goes in as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


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
    records = list(read_records(path, PromptEncoder("/nowhere")))
    assert records == [Record(1, "Ü b"), Record(3, "", None, False)]
    assert records[0].size == 4


def test_prompt_is_encoded_by_the_teacher(tmp_path: Path, prompts: PromptEncoder) -> None:
    path = write(tmp_path / "in.jsonl", {"prompt": "Return a", "completion": " copy."})
    [record] = read_records(path, prompts)
    assert record.text == " copy."
    assert record.prompt is not None
    assert prompts.tokenizer.decode(list(record.prompt)) == "Return a"


def test_messages_are_rendered_up_to_the_completion(tmp_path: Path, prompts: PromptEncoder) -> None:
    [record] = read_records(write(tmp_path / "in.jsonl", {"messages": CHAT}), prompts)
    assert record.text == "A string.\n"
    assert record.prompt is not None
    assert prompts.tokenizer.decode(list(record.prompt)) == "user: What does it return?\nassistant: "


def test_earlier_turns_belong_to_the_prompt(prompts: PromptEncoder) -> None:
    ids, completion = prompts.chat([*CHAT, {"role": "user", "content": "Sure?"}, CHAT[1]])
    assert completion == "A string.\n"
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
        list(read_records(path, prompts))


def test_a_template_that_trims_is_fine_where_there_is_nothing_to_trim(tmp_path: Path) -> None:
    prompts = with_template(tmp_path / "model", TURN.replace("CONTENT", "{{ m['content'] | trim }}") + ASK)
    _, completion = prompts.chat([CHAT[0], {"role": "assistant", "content": "A string."}])
    assert completion == "A string."


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
        ({"messages": CHAT[:1]}, "the last message must be the assistant's"),
    ],
)
def test_bad_rows_name_file_line_and_cause(
    tmp_path: Path, prompts: PromptEncoder, row: Any, cause: str
) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "fine"}, "", row)
    with pytest.raises(InputError, match=f"in.jsonl, line 3: .*{cause}"):
        list(read_records(path, prompts))


def test_bytes_that_are_not_utf8(tmp_path: Path, prompts: PromptEncoder) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(InputError, match="line 1: not UTF-8 at byte 10"):
        list(read_records(path, prompts))


def test_limit_stops_before_later_lines_are_read(tmp_path: Path, prompts: PromptEncoder) -> None:
    path = write(tmp_path / "in.jsonl", {"text": "a"}, "", {"text": "b"}, "{")
    assert [record.text for record in read_records(path, prompts, limit=2)] == ["a", "b"]
    with pytest.raises(InputError, match="line 4"):
        list(read_records(path, prompts))


def test_a_file_that_is_not_there(tmp_path: Path, prompts: PromptEncoder) -> None:
    with pytest.raises(CrosstokError, match=r"none\.jsonl: No such file"):
        list(read_records(tmp_path / "none.jsonl", prompts))
