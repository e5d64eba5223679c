"""All figures of `compare.py`, student by student."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..job import Job
from ..pairs.texts import Text
from ..row import Row
from . import figures, measure
from .found import Found
from .measure import Settings
from .sample import Sample, sample
from .ways import Way


@dataclass(eq=False)
class Results:
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
    students: list[Results] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Settings) -> Run:
        """Load the teacher."""
        return cls(settings, measure.load(settings), settings.choice.ways())

    def rows(self) -> Iterator[Row]:
        """Student by student, then all of them together. Raises Unavailable where there are too few texts."""
        for name in self.settings.students:
            self.students.append(self._results(measure.Student(self.settings, self.job, name)))
            yield from self._figures(self.students[-1])
        if len(self.students) > 1:
            yield from self._together()

    def _results(self, student: measure.Student) -> Results:
        texts = student.texts()
        measured = list(student.measured(texts))
        columns = zip(*(one.found for one in measured), strict=True)
        joined = {way: Found.join(parts) for way, parts in zip(self.ways, columns, strict=True)}
        known = sample([one.truth for one in measured], [one.plain for one in measured])
        return Results(student.name, texts, known, joined)

    def _figures(self, student: Results) -> Iterator[Row]:
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
