"""Rows of a JSON Lines file, as texts to score. Three shapes: text; prompt and completion; messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosstok.cli.prompts import PromptEncoder

SHAPES = (("text",), ("prompt", "completion"), ("messages",))


class InputError(CrosstokError):
    """A line of an input file that cannot be scored; the message names file, line and cause."""

    def __init__(self, path: Path, line: int, cause: str) -> None:
        super().__init__(f"{path}, line {line}: {cause}")


@dataclass(frozen=True)
class Record:
    """One text to score. ``prompt`` holds teacher ids; None: the text starts a document."""

    line: int
    text: str
    prompt: tuple[int, ...] | None = None
    ended: bool = True

    @property
    def size(self) -> int:
        """The text's length in bytes."""
        return len(self.text.encode())


def read_records(path: Path, prompts: PromptEncoder, limit: int | None = None) -> Iterator[Record]:
    """Yield the records of ``path``, at most ``limit``; blank lines are skipped.

    Raises InputError with the line where a row has none of the three shapes, or more than one, or text that
    is not Unicode, or where the chat template does not leave the completion as it is.
    """
    try:
        with path.open("rb") as lines:
            found = 0
            for number, line in enumerate(lines, 1):
                if found == limit:
                    return
                if line.strip():
                    yield _record(path, number, line, prompts)
                    found += 1
    except OSError as error:
        raise CrosstokError(f"{path}: {error.strerror}") from error


def _record(path: Path, number: int, line: bytes, prompts: PromptEncoder) -> Record:
    """Parse one line; every cause of failure becomes an InputError."""
    try:
        row = json.loads(line.decode("utf-8"))
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        return _from_row(number, row, prompts)
    except json.JSONDecodeError as error:
        raise InputError(path, number, f"not JSON: {error.msg} (column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise InputError(path, number, f"not UTF-8 at byte {error.start}") from error
    except (ValueError, CrosstokError) as error:
        raise InputError(path, number, str(error)) from error


def _from_row(number: int, row: dict[str, Any], prompts: PromptEncoder) -> Record:
    """Turn a row into a Record by the one shape it has."""
    shapes = [shape for shape in SHAPES if any(name in row for name in shape)]
    if len(shapes) != 1:
        names = " or ".join(" + ".join(shape) for shape in SHAPES)
        have = ", ".join(sorted(row)) or "nothing"
        raise ValueError(f"needs exactly one of {names}; it has {have}")
    ended = row.get("ended", True)
    if not isinstance(ended, bool):
        raise ValueError("'ended' must be true or false")
    if shapes[0] == ("text",):
        return Record(number, _string(row, "text"), None, ended)
    if shapes[0] == ("messages",):
        ids, completion = prompts.chat(_messages(row["messages"]))
    else:
        completion = _string(row, "completion")
        ids = prompts.encode(_string(row, "prompt"))
    if not ids:
        raise ValueError("the prompt has no tokens: give the completion as 'text' if it starts a document")
    return Record(number, completion, ids, ended)


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
