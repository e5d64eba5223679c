"""Score a file of texts: records in, one JSON line a record out, and the sums of the summary."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import crosstok as ct
from crosstok.cli.records import InputError, Record
from crosstok.errors import CrosstokError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Records that go to the scorer together: enough to fill a packed forward, few enough that the bar moves.
CHUNK = 64


@dataclass
class Summary:
    """Sums over the records scored. ``nats`` and ``size`` leave out texts of probability zero."""

    texts: int = 0
    impossible: int = 0
    student_tokens: int = 0
    teacher_tokens: int = 0
    rows: int = 0
    nats: float = 0.0
    size: int = 0
    noncanonical: float = 0.0
    seconds: float = 0.0

    def add(self, record: Record, score: ct.Score, teacher_tokens: int) -> None:
        """Add one record; ``teacher_tokens`` counts its canonical teacher tokens, end-of-text included."""
        self.texts += 1
        self.student_tokens += len(score.student_ids)
        self.teacher_tokens += teacher_tokens
        self.rows += int(np.sum(score.rows))
        self.noncanonical += float(np.sum(score.noncanonical_mass))
        if math.isfinite(score.total):
            self.nats += score.total
            self.size += record.size
        else:
            self.impossible += 1

    @property
    def bits_per_byte(self) -> float:
        """-log2 of the texts' probability over their length in bytes; NaN where there are none."""
        return -self.nats / math.log(2) / self.size if self.size else math.nan

    @property
    def rows_per_token(self) -> float:
        """Teacher rows for every canonical teacher token; plain scoring needs 1."""
        return self.rows / self.teacher_tokens if self.teacher_tokens else math.nan

    @property
    def mean_noncanonical(self) -> float:
        """Mean mass that the teacher gives to what its tokenizer never produces, over the positions."""
        return self.noncanonical / self.student_tokens if self.student_tokens else 0.0


def load_pair(
    teacher: str, student: str, teacher_eos: Sequence[int] | None, student_eos: Sequence[int] | None
) -> ct.Pair:
    """Return the pair of tokenizers. ``student``: merges:N, a tokenizer.json, a directory or a hub id."""
    teacher_tokenizer = load_tokenizer(teacher)
    if student.startswith("merges:"):
        count = student.removeprefix("merges:")
        if not count.isdecimal():
            raise CrosstokError(f"--student {student}: merges: wants a number, as in merges:8000")
        student_tokenizer = teacher_tokenizer.first_merges(int(count))
    else:
        student_tokenizer = load_tokenizer(student)
    try:
        return ct.Pair(teacher_tokenizer, student_tokenizer, teacher_eos or None, student_eos or None)
    except ValueError as error:
        raise CrosstokError(str(error)) from error


def check_texts(pair: ct.Pair, records: Sequence[Record], source: Path) -> None:
    """Raise InputError for the first text that is not admissible for both tokenizers."""
    number = 0
    try:
        for number, record in enumerate(records):  # noqa: B007 (the handler reads it)
            pair.encode(record.text, start=record.prompt is None)
    except TextError as error:
        raise _input_error(source, records[number], error) from error


def load_tokenizer(name: str) -> ct.Tokenizer:
    """Return the tokenizer of a tokenizer.json, a directory or a hub id."""
    if Path(name).is_file():
        return ct.Tokenizer.from_file(name)
    try:
        return ct.Tokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CrosstokError(f"cannot load a tokenizer from {name}: {_first_line(error)}") from error


def load_teacher(model: str, dtype: str, device: str | None, batch_tokens: int | None) -> ct.HFTeacher:
    """Return the model as a teacher. ``dtype`` is a name of torch's, or auto for the checkpoint's own."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = None if dtype == "auto" else getattr(torch, dtype)
    try:
        return ct.HFTeacher(model, batch_tokens=batch_tokens, dtype=kind, device=device)
    except (OSError, ValueError) as error:
        raise CrosstokError(f"cannot load a model from {model}: {_first_line(error)}") from error


def score_records(
    scorer: ct.Scorer, tokenizer: ct.Tokenizer, records: Sequence[Record], source: Path, output: Path
) -> Iterator[Summary]:
    """Score ``records``, write ``output`` line by line, and yield the summary so far after each record.

    ``source`` names the file in errors; ``tokenizer`` is the teacher's. What was written before an error
    stays.
    """
    summary, start = Summary(), time.perf_counter()
    try:
        with output.open("w", encoding="utf-8") as lines:
            for record, score in _scores(scorer, records, source):
                own = len(tokenizer.encode(record.text, start=record.prompt is None)) + record.ended
                lines.write(json.dumps(as_json(summary.texts, score), allow_nan=False) + "\n")
                summary.add(record, score, own)
                summary.seconds = time.perf_counter() - start
                yield summary
    except OSError as error:
        raise CrosstokError(f"{output}: {error.strerror}") from error


def as_json(index: int, score: ct.Score) -> dict[str, Any]:
    """Return the output line of one record. ``total`` is log P of the whole text, in nats."""
    return {
        "index": index,
        "student_ids": [int(i) for i in score.student_ids],
        "logprobs": [_number(x) for x in score.logprobs],
        "total": _number(score.total),
        "noncanonical_mass": [_number(x) for x in score.noncanonical_mass],
        "rows": [int(x) for x in score.rows],
        "status": [int(x) for x in score.status],
    }


def _scores(scorer: ct.Scorer, records: Sequence[Record], source: Path) -> Iterator[tuple[Record, ct.Score]]:
    """Yield each record with its score, in order. Texts with and without a prompt go separately."""
    for _, group in groupby(records, key=lambda record: record.prompt is None):
        same = list(group)
        for first in range(0, len(same), CHUNK):
            yield from _score_chunk(scorer, same[first : first + CHUNK], source)


def _score_chunk(scorer: ct.Scorer, chunk: list[Record], source: Path) -> Iterator[tuple[Record, ct.Score]]:
    """Score records together."""
    prompts = None if chunk[0].prompt is None else [list(record.prompt or ()) for record in chunk]
    texts, ended = [record.text for record in chunk], [record.ended for record in chunk]
    try:
        yield from zip(chunk, scorer.score(texts, prompts=prompts, ended=ended), strict=True)
    except TextError as error:
        raise _input_error(source, chunk[error.index or 0], error) from error


def _input_error(source: Path, record: Record, error: TextError) -> InputError:
    """Return ``error`` with file and line in place of the text's index."""
    return InputError(source, record.line, str(TextError(error.reason, None, error.offset)))


def _number(value: float) -> float | str:
    """JSON has no infinities: a probability of zero is the string "-inf"."""
    return "-inf" if value == -math.inf else float(value)


def _first_line(error: Exception) -> str:
    """Return the first line of a message that may be a page long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
