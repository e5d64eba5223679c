"""Pairs of unrelated tokenizers, by the names of their directories: those that bars speak of, and one of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import crosstok as ct

from .inputs import Inputs

# Students of the teacher, most interesting first.
STUDENTS = ("gemma3", "qwen3", "llama3", "llama2", "deepseek")
# Others whose plans are measured, without a model.
PLANNED = (("qwen3", "gemma3"), ("llama3", "qwen3"))


@dataclass(frozen=True)
class Files:
    """A teacher's and a student's tokenizer.json, with the names that rows call them by."""

    names: tuple[str, str]
    teacher: Path
    student: Path

    @property
    def label(self) -> str:
        """What rows call the pair."""
        return " -> ".join(self.names)

    def pair(self) -> ct.Pair:
        """Load it. What ends a text makes no difference to times: any special token does where none is known."""
        teacher, student = (
            ct.Tokenizer.from_pretrained(path.parent) for path in (self.teacher, self.student)
        )
        eos = (tok.eos_ids or tok.special_ids[:1].tolist() for tok in (teacher, student))
        return ct.Pair(teacher, student, *eos)


def of_teacher(inputs: Inputs) -> Iterator[Files]:
    """The teacher with each of `STUDENTS` that there is."""
    name = inputs.teacher_file[0]
    yield from _existing(inputs, [(name, student) for student in STUDENTS])


def planned(inputs: Inputs) -> Iterator[Files]:
    """All pairs whose plans are measured."""
    yield from _existing(inputs, PLANNED)
    yield from of_teacher(inputs)


def _existing(inputs: Inputs, names: Sequence[tuple[str, str]]) -> Iterator[Files]:
    files = dict([inputs.teacher_file]) | inputs.files
    for teacher, student in names:
        if teacher in files and student in files and teacher != student:
            yield Files((teacher, student), files[teacher], files[student])
