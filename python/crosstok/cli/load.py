"""Tokenizers, pairs and models, from what is given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import crosstok as ct
from crosstok.errors import CrosstokError, UnsupportedTokenizerError

if TYPE_CHECKING:
    from collections.abc import Sequence


def load_pair(
    teacher: str, student: str, teacher_eos: Sequence[int] | None, student_eos: Sequence[int] | None
) -> ct.Pair:
    """Return the pair of tokenizers. ``student``: merges:N, a tokenizer.json, a directory or a hub id."""
    teacher_tokenizer = load_tokenizer(teacher)
    return make_pair(teacher_tokenizer, load_student(student, teacher_tokenizer), teacher_eos, student_eos)


def make_pair(
    teacher: ct.Tokenizer,
    student: ct.Tokenizer,
    teacher_eos: Sequence[int] | None,
    student_eos: Sequence[int] | None,
) -> ct.Pair:
    """Return the pair. Raises CrosstokError for ids that do not end a text."""
    try:
        return ct.Pair(teacher, student, teacher_eos or None, student_eos or None)
    except (ValueError, OverflowError) as error:
        raise CrosstokError(f"--teacher-eos, --student-eos: {error}") from error


def load_student(student: str, teacher: ct.Tokenizer) -> ct.Tokenizer:
    """Return the student's tokenizer: the first N merges of the teacher's for merges:N, else that of a file."""
    if not student.startswith("merges:"):
        return load_tokenizer(student)
    count = student.removeprefix("merges:")
    # Longer numbers than any vocabulary has do not fit the core's.
    if not (count.isascii() and count.isdecimal() and len(count) <= 18):
        raise CrosstokError(f"--student {student}: merges: wants a number, as in merges:8000")
    return teacher.first_merges(int(count))


def load_tokenizer(name: str) -> ct.Tokenizer:
    """Return the tokenizer of a tokenizer.json, a directory or a hub id. Errors name it."""
    try:
        return ct.Tokenizer.from_file(name) if Path(name).is_file() else ct.Tokenizer.from_pretrained(name)
    except UnsupportedTokenizerError as error:
        text = str(error)
        raise UnsupportedTokenizerError(text if text.startswith(name) else f"{name}: {text}") from error
    except (OSError, ValueError) as error:
        raise CrosstokError(f"cannot load a tokenizer from {name}: {first_line(error)}") from error


def load_teacher(model: str, dtype: str, device: str | None, batch_tokens: int | None) -> ct.HFTeacher:
    """Return the model as a teacher. ``dtype`` is a name of torch's, or auto for the checkpoint's own."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = None if dtype == "auto" else getattr(torch, dtype)
    try:
        return ct.HFTeacher(model, batch_tokens=batch_tokens, dtype=kind, device=device)
    except (OSError, ValueError) as error:
        raise CrosstokError(f"cannot load a model from {model}: {first_line(error)}") from error


def choose_device(name: str | None) -> str:
    """Return the device to use: as named, else the GPU if there is one. Raises CrosstokError if it cannot be used."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:  # as each backend likes
        raise CrosstokError(f"--device {name}: {first_line(error)}") from error
    return name


def first_line(error: Exception) -> str:
    """Return the first line of a message that may be a page long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
