"""All figures of `pairs.py`, student by student."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crosstok as ct
import numpy as np

from ..inputs import Inputs
from ..job import Job
from ..row import Row
from . import texts as sources
from .against import against_oracle
from .baseline import Baseline, baselines, scored
from .checks import ROUNDING, checks
from .decisions import Student
from .positions import Oracle
from .texts import Text
from .vocabulary import Vocabulary
from .widths import widths


@dataclass(frozen=True)
class Sizes:
    """How many texts of each kind, and how many positions for the oracle, of all students together."""

    answers: int
    snippets: int
    texts: int
    positions: int


@dataclass(frozen=True)
class Settings:
    """The options of `app.py`. students: name → directory."""

    inputs: Inputs
    students: dict[str, Path]
    sizes: Sizes
    tolerance: float
    max_rows: int
    oracle_rows: int
    dtype: str


@dataclass
class Run:
    """A teacher, its texts, and what their scores must agree with. left_out: texts that it cannot spell."""

    settings: Settings
    job: Job
    texts: list[Text]
    known: list[Baseline]
    left_out: int

    @classmethod
    def of(cls, settings: Settings) -> Run:
        """Load the teacher, read the texts, score them in the regimes where it is exact."""
        inputs, sizes = settings.inputs, settings.sizes
        chats = [*inputs.chats[: sizes.answers], *sources.multilingual(sizes.texts)]
        job = Job.load(inputs.teacher, chats, "cpu", settings.dtype)
        count = len(inputs.chats[: sizes.answers])
        found = sources.answers("answers", job.texts[:count], job.prompts[:count])
        found += sources.snippets(job.tokenizer, sizes.snippets)
        found += sources.alternating(sources.answers("texts", job.texts[count:], job.prompts[count:]))
        kept = list(sources.admissible(found, job.tokenizer))
        known = baselines(job, kept)
        return cls(settings, job, kept, known, len(found) - len(kept))

    def rows(self) -> Iterator[Row]:
        """Everything, in the order in which it is found."""
        kinds = {kind: sum(t.kind == kind for t in self.texts) for kind in ("answers", "snippets", "texts")}
        details: dict[str, float | str] = {**kinds, "not for the teacher": self.left_out}
        yield Row("texts", "texts", len(self.texts), "", None, details)
        rng, vocabulary = np.random.default_rng(0), Vocabulary(self.job.tokenizer)
        total, students = self.settings.sizes.positions, len(self.settings.students)
        for number, (name, folder) in enumerate(self.settings.students.items()):
            tokenizer = ct.Tokenizer.from_pretrained(folder)
            eos = tokenizer.eos_ids or tokenizer.special_ids[:1].tolist()
            pair = ct.Pair(self.job.tokenizer, tokenizer, None, eos)
            student = Student.of(tokenizer)
            oracle = Oracle(self.job.model, vocabulary, pair, student, self.settings.oracle_rows)
            count = total * (number + 1) // students - total * number // students
            yield from self._student(name, oracle, count, rng)

    def _student(self, name: str, oracle: Oracle, count: int, rng: np.random.Generator) -> Iterator[Row]:
        pair, rounding = oracle.pair, ROUNDING[self.job.model.dtype]
        kept = set(sources.admissible(self.texts, pair.student))
        texts = [text for text in self.texts if text in kept]
        known = [base for text, base in zip(self.texts, self.known, strict=True) if text in kept]
        details: dict[str, float | str] = {
            "regime": pair.regime,
            "not for the student": len(self.texts) - len(kept),
        }
        yield Row("texts", f"{name}: texts", len(texts), "", None, details)
        runs: dict[str, list[ct.Score]] = {}
        for when, options in self._options().items():
            begin = time.perf_counter()
            scorer = ct.Scorer(self.job.teacher, pair, **options)
            runs[when] = scored(scorer, texts)
            parts = dataclasses.asdict(scorer.timings)
            yield _seconds(f"{name}: scoring, {when}", time.perf_counter() - begin, runs[when], parts)
            yield from checks(f"{name}, {when}", oracle.student, texts, runs[when], known, rounding)
        yield from widths(name, texts, runs, self.settings.tolerance)
        yield from against_oracle(name, oracle, texts, runs, count, rng, rounding)

    def _options(self) -> dict[str, dict[str, Any]]:
        """How a `Scorer` is made for each run; without further rows there is but one."""
        if not self.settings.max_rows:
            return {"before": {}}
        expanding = {"tolerance": self.settings.tolerance, "max_rows": self.settings.max_rows}
        return {"before": {}, "after": expanding}


def _seconds(what: str, seconds: float, scores: list[ct.Score], parts: dict[str, float]) -> Row:
    positions = sum(len(score.student_ids) for score in scores)
    details = {"positions": positions, "positions/s": positions / seconds, **parts}
    return Row("seconds", what, seconds, "s", None, details)
