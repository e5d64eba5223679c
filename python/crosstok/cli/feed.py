"""Batches for the scorer, made from lines, and the lines that each batch came from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crosstok.cli.records import InputError, Row, prompt_ids
from crosstok.cli.source import Place, input_error
from crosstok.errors import CrosstokError, TeacherError, TextError
from crosstok.requests import Request, form_batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosstok.cli.prompts import PromptEncoder


@dataclass(frozen=True)
class Work:
    """A batch that is with the scorer: its rows, the place after them, and whether the batch is a whole one."""

    rows: list[Row]
    after: Place
    whole: bool


class Feed:
    """Batches for the scorer, made line by line; `pending` has those that are not scored yet, in order.

    The scorer asks for batches in a thread of its own. A line whose prompt is wrong ends the input: what is before
    it is handed out, then the error is raised. That last batch may be smaller than it would be without the error.
    """

    def __init__(
        self, path: Path, rows: Iterator[tuple[Row, Place]], prompts: PromptEncoder, budget: int
    ) -> None:
        self.path, self._rows, self._prompts, self._budget = path, rows, prompts, budget
        self.pending: deque[Work] = deque()
        self._read: deque[tuple[Row, Place]] = deque()
        self._error: CrosstokError | None = None

    def __iter__(self) -> Iterator[list[Request]]:
        """Yield batches of requests."""
        for batch in form_batches(self._requests(), self._budget):
            read = [self._read.popleft() for _ in batch]
            self.pending.append(Work([row for row, _ in read], read[-1][1], whole=self._error is None))
            yield batch
        if self._error is not None:
            raise self._error

    def _requests(self) -> Iterator[Request]:
        try:
            for row, after in self._rows:
                request = Request(row.text, prompt_ids(self.path, row, self._prompts), row.ended)
                self._read.append((row, after))
                yield request
        except CrosstokError as error:
            self._error = error

    def blame(self, error: TextError | TeacherError) -> CrosstokError:
        """Return the error of the first pending batch with the file and the line it is about."""
        rows = self.pending[0].rows if self.pending else []
        if error.index is not None and error.index < len(rows):
            line = rows[error.index].line
            if isinstance(error, TextError):
                return input_error(self.path, line, error)
            return InputError(self.path, line, error.reason)
        if not rows:
            return error
        return CrosstokError(f"{self.path}, lines {rows[0].line} to {rows[-1].line}: {error}")
