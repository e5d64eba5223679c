"""Lines of a JSON Lines file, as texts to score. Three shapes: text; prompt and completion; messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from crosstok.cli.prompts import PromptEncoder

SHAPES = (("text",), ("prompt", "completion"), ("messages",))
NO_PROMPT = "the prompt has no tokens: give the completion as 'text' if it starts a document"


class InputError(CrosstokError):
    """A line of an input file that cannot be scored; the message names file, line and cause."""

    def __init__(self, path: Path, line: int, cause: str) -> None:
        super().__init__(f"{path}, line {line}: {cause}")


@dataclass(frozen=True)
class Row:
    """A line whose shape is right: ``text`` is what is scored, after ``prompt``, or ``messages``, or nothing.

    ``messages`` is the whole conversation, of which ``text`` is the last message's content.
    """

    line: int
    text: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    ended: bool = True

    @property
    def start(self) -> bool:
        """Whether the text starts a document."""
        return self.prompt is None and self.messages is None

    @property
    def size(self) -> int:
        """The text's length in bytes."""
        return len(self.text.encode())


def parse(path: Path, number: int, line: bytes) -> Row:
    """Return line ``number`` of ``path`` as a row.

    Raises InputError where it is not JSON, has none of the three shapes or more than one, or text that is not
    Unicode.
    """
    try:
        text = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
        row = json.loads(text, object_pairs_hook=_once)  # columns count from the last line break
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        return _from_json(number, row)
    except json.JSONDecodeError as error:
        raise InputError(path, number, f"not JSON: {error.msg} (column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise InputError(path, number, f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise InputError(path, number, "JSON that is nested too deeply") from error
    except ValueError as error:
        raise InputError(path, number, str(error)) from error


def prompt_ids(path: Path, row: Row, prompts: PromptEncoder) -> tuple[int, ...] | None:
    """Return the ids that the teacher sees before the row's text; None: the text starts a document.

    Raises InputError where the chat template does not leave the completion as it is, and where a prompt has
    no tokens.
    """
    try:
        if row.messages is not None:
            ids = prompts.chat(row.messages)
        elif row.prompt is not None:
            ids = prompts.encode(row.prompt)
        else:
            return None
    except CrosstokError as error:
        raise InputError(path, row.line, str(error)) from error
    if not ids:
        raise InputError(path, row.line, NO_PROMPT)
    return ids


def _from_json(number: int, row: dict[str, Any]) -> Row:
    """Turn a JSON object into a Row by the one shape it has."""
    shapes = [shape for shape in SHAPES if any(name in row for name in shape)]
    if len(shapes) != 1:
        names = " or ".join(" + ".join(shape) for shape in SHAPES)
        have = ", ".join(sorted(row)) or "nothing"
        raise ValueError(f"needs exactly one of {names}; it has {have}")
    ended = row.get("ended", True)
    if not isinstance(ended, bool):
        raise ValueError("'ended' must be true or false")
    if shapes[0] == ("text",):
        return Row(number, _string(row, "text"), ended=ended)
    if shapes[0] == ("messages",):
        messages = _messages(row["messages"])
        return Row(number, messages[-1]["content"], messages=messages, ended=ended)
    return Row(number, _string(row, "completion"), prompt=_string(row, "prompt"), ended=ended)


def _string(row: dict[str, Any], name: str) -> str:
    """Return a field that must be a string of Unicode characters."""
    if name not in row:
        raise ValueError(f"'{name}' is missing")
    value = row[name]
    if not isinstance(value, str):
        raise ValueError(f"'{name}' must be a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"'{name}' holds a lone surrogate at character {error.start}") from error
    return value


def _messages(value: Any) -> list[dict[str, Any]]:
    """Check a conversation: a list of role and content, the last message the assistant's."""
    if not isinstance(value, list) or not value:
        raise ValueError("'messages' must be a list of messages")
    for place, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {place} has no 'role'")
        try:
            _string(message, "content")
        except ValueError as error:
            raise ValueError(f"message {place}: {error}") from error
    if value[-1]["role"] != "assistant":
        raise ValueError("the last message must be the assistant's, it is what is scored")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose names are all different: of two values one would be lost without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return row
