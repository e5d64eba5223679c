"""One student's texts, one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import crosstok as ct
import torch

from ..inputs import Inputs
from ..job import Job
from ..pairs.texts import Text
from ..timing import cpu_seconds
from .found import Found, Truth
from .texts import chosen
from .ways import Choice


@dataclass(frozen=True)
class Settings:
    """The options of `app.py`. students: name → directory. processes: None, or how many texts are read at a time."""

    inputs: Inputs
    students: dict[str, Path]
    positions: int
    reference_tolerance: float
    reference_rows: int
    choice: Choice
    processes: int | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """One text. truth: without its rows. plain: processor seconds of a plain forward. found: as `Choice.ways` are."""

    truth: Truth
    plain: float
    found: list[Found]


def load(settings: Settings) -> Job:
    """The teacher, and rendered questions: each answer has a position at least."""
    return Job.load(settings.inputs.teacher, settings.inputs.chats[: settings.positions], "cpu", "float32")


class Student:
    """A teacher with one of the students; the reference's scorer and those of all ways."""

    def __init__(self, settings: Settings, job: Job, name: str) -> None:
        tokenizer = ct.Tokenizer.from_pretrained(settings.students[name])
        eos = tokenizer.eos_ids or tokenizer.special_ids[:1].tolist()
        self.settings, self.job, self.name = settings, job, name
        self.pair = ct.Pair(job.tokenizer, tokenizer, None, eos)
        tolerance, rows = settings.reference_tolerance, settings.reference_rows
        self._reference = ct.Scorer(job.teacher, self.pair, tolerance=tolerance, max_rows=rows)
        self._ways = [(way, way.scorers(job.teacher, self.pair)) for way in settings.choice.ways()]

    def texts(self) -> list[Text]:
        """Its texts; raises Unavailable where there are too few."""
        return chosen(self.job, self.pair, self.settings.positions)

    def measured(self, texts: Sequence[Text]) -> Iterator[Measured]:
        """What each text has; whole distributions are large, and so is what thousands of rows leave behind.

        Where texts have processes of their own, these load everything anew.
        """
        if self.settings.processes is None:
            yield from map(self.measure, texts)
            return
        with ThreadPoolExecutor(self.settings.processes) as threads:
            yield from threads.map(measure_apart, repeat(self.settings), repeat(self.name), texts)

    def measure(self, text: Text) -> Measured:
        """Read a text in all ways."""
        truth = Truth.of(self._reference, text)  # goes first: planning is then warm for all
        plain = self._plain(text)
        found = [Found.of(way, scorers, text, truth) for way, scorers in self._ways]
        return Measured(truth.without_rows(), plain, found)

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


def measure_apart(settings: Settings, name: str, text: Text) -> Measured:
    """`Student.measure` in a process that ends with it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure_alone, settings, name, text).result()


def measure_alone(settings: Settings, name: str, text: Text) -> Measured:
    """`Student.measure` with everything loaded anew, and with a part of torch's threads."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // (settings.processes or 1)))
    return Student(settings, load(settings), name).measure(text)
