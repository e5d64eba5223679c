"""All figures of `compare.py`, student by student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crosstok as ct
import torch

from ..inputs import Inputs
from ..job import Job
from ..pairs.texts import Text
from ..row import Row
from ..timing import cpu_seconds
from . import figures
from .found import Found, Truth
from .sample import Sample, sample
from .texts import chosen
from .ways import Choice, Way


@dataclass(frozen=True)
class Settings:
    """The options of `app.py`. students: name → directory."""

    inputs: Inputs
    students: dict[str, Path]
    positions: int
    reference_tolerance: float
    reference_rows: int
    choice: Choice


@dataclass(eq=False)
class Student:
    """What was found for one student. found: by way."""

    name: str
    texts: list[Text]
    sample: Sample
    found: dict[Way, Found]

    def as_json(self) -> dict[str, Any]:
        """Everything, position by position."""
        known = self.sample
        return {
            "student": self.name,
            "texts": [{"kind": text.kind, "prompt": text.prompt, "text": text.text} for text in self.texts],
            "text": known.text.tolist(),
            "position": known.position.tolist(),
            "reference": {"undecided": figures.rounded(known.undecided), "rows": known.spent.tolist()},
            "ways": {way.name: figures.as_json(found) for way, found in self.found.items()},
        }


@dataclass
class Run:
    """A teacher, and what was found for the students so far."""

    settings: Settings
    job: Job
    ways: list[Way]
    students: list[Student] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Settings) -> Run:
        """Load the teacher, and render questions: each answer has a position at least."""
        chats = settings.inputs.chats[: settings.positions]
        job = Job.load(settings.inputs.teacher, chats, "cpu", "float32")
        return cls(settings, job, settings.choice.ways())

    def rows(self) -> Iterator[Row]:
        """Student by student, then all of them together. Raises Unavailable where there are too few texts."""
        for name, folder in self.settings.students.items():
            tokenizer = ct.Tokenizer.from_pretrained(folder)
            eos = tokenizer.eos_ids or tokenizer.special_ids[:1].tolist()
            pair = ct.Pair(self.job.tokenizer, tokenizer, None, eos)
            texts = chosen(self.job, pair, self.settings.positions)
            self.students.append(self._student(name, pair, texts))
            yield from self._figures(self.students[-1])
        if len(self.students) > 1:
            yield from self._together()

    def _student(self, name: str, pair: ct.Pair, texts: Sequence[Text]) -> Student:
        """Text by text, since whole distributions are large."""
        settings = self.settings
        limits = settings.reference_tolerance, settings.reference_rows
        reference = ct.Scorer(self.job.teacher, pair, tolerance=limits[0], max_rows=limits[1])
        scorers = {way: way.scorers(self.job.teacher, pair) for way in self.ways}
        truths, plain = [], []
        found: dict[Way, list[Found]] = {way: [] for way in self.ways}
        for text in texts:
            truth = Truth.of(reference, text)  # goes first: planning is then warm for all
            plain.append(self._plain(text))
            for way in self.ways:
                found[way].append(Found.of(way, scorers[way], text, truth))
            truths.append(truth.without_rows())
        joined = {way: Found.join(parts) for way, parts in found.items()}
        return Student(name, list(texts), sample(truths, plain), joined)

    def _plain(self, text: Text) -> float:
        """Processor seconds of a plain forward over prompt and text in the teacher's own tokens; the better of 2.

        With a log-softmax at each row after the prompt.
        """
        own = self.job.tokenizer.encode(text.text, start=text.prompt is None).tolist()
        ids = torch.tensor([[*(text.prompt or ()), *own]])

        def forward() -> None:
            with torch.inference_mode():
                self.job.model(ids, logits_to_keep=len(own) + 1).logits.float().log_softmax(-1)

        return min(cpu_seconds(forward) for _ in range(2))

    def _figures(self, student: Student) -> Iterator[Row]:
        name, known = student.name, student.sample
        kinds = {
            kind: sum(text.kind == kind for text in student.texts) for kind in ("answers", "python", "texts")
        }
        details: dict[str, float | str] = {**kinds, "positions": len(known.position)}
        details["plain cpu ms"] = 1000 * known.plain / len(known.position)
        yield Row("texts", f"{name}: texts", len(student.texts), "", None, details)
        yield figures.reference(name, known, self.settings.reference_tolerance, self.settings.reference_rows)
        for way, found in student.found.items():
            if way.part == "tolerances":
                yield figures.tolerance(name, way, found, known)
        for way, found in student.found.items():
            if way.part != "tolerances":
                measure = figures.errors if way.whole else figures.labels
                yield measure(f"{name}: {way.name}", found, known)

    def _together(self) -> Iterator[Row]:
        """The orderings over the positions of all students, each against the first with as many rows."""
        known = Sample.join([student.sample for student in self.students])
        first: dict[int, Found] = {}
        for way in self.students[0].found:
            if way.part == "orders":
                found = Found.join([student.found[way] for student in self.students])
                baseline = first.setdefault(way.options[0]["max_rows"], found)
                yield figures.errors(
                    f"all: {way.name}", found, known, None if baseline is found else baseline
                )
