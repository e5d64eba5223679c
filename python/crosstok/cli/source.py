"""The input file, read twice: once to check every line, once to score; never held in memory."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Row, parse
from crosstok.errors import CrosstokError, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from crosstok.pair import Pair

CHUNK = 1 << 20
# Checked records between two reports.
REPORT = 1000


@dataclass(frozen=True)
class Place:
    """A point between two lines: what lies before it. ``index`` counts records, which are lines that are not blank.

    ``offset`` is in bytes, ``crc`` the CRC-32 of these bytes.
    """

    index: int = 0
    line: int = 0
    offset: int = 0
    crc: int = 0


@dataclass(frozen=True)
class Survey:
    """What was found in the part of the input that is to be scored: bytes, their SHA-256, records."""

    size: int
    sha256: str
    records: int


class Source:
    """A JSON Lines file, opened once. Raises CrosstokError for what is no regular file or cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():
            raise CrosstokError(f"{path}: not a regular file, and it is read twice")
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise CrosstokError(f"{path}: {error.strerror}") from error
        self._state = self._stat()

    def __enter__(self) -> Source:
        """Return itself; leaving closes the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def survey(self, limit: int | None = None) -> Survey:
        """Read the first ``limit`` records (None: all) without a look at what they hold."""
        sha, place = hashlib.sha256(), Place()
        for line, place in self._lines(Place()):
            sha.update(line)
            if place.index == limit:
                break
        return Survey(place.offset, sha.hexdigest(), place.index)

    def find(self, index: int) -> Place:
        """Return the place before record ``index``, or the end of the file."""
        place = Place()
        if index:
            for _, place in self._lines(Place()):
                if place.index == index:
                    break
        return place

    def rows(self, place: Place, stop: int) -> Iterator[tuple[Row, Place]]:
        """Yield the records from ``place`` on, below index ``stop``, each with the place after it.

        Raises InputError for a line that is no record (see `records.parse`).
        """
        if place.index >= stop:
            return
        for line, after in self._lines(place):
            if line.strip():
                yield parse(self.path, after.line, line), after
                if after.index >= stop:
                    return

    def row(self, number: int) -> Row:
        """Return the record in line ``number``, from 1. Raises InputError where there is none."""
        for line, place in self._lines(Place()):
            if place.line == number:
                if not line.strip():
                    raise InputError(self.path, number, "blank")
                return parse(self.path, number, line)
        raise InputError(self.path, number, "not there")

    def crc(self, size: int) -> int:
        """CRC-32 of the first ``size`` bytes, or of the whole file where it is shorter."""
        self._file.seek(0)
        crc = 0
        while size > 0 and (data := self._file.read(min(CHUNK, size))):
            crc, size = zlib.crc32(data, crc), size - len(data)
        return crc

    def unchanged(self) -> bool:
        """Whether the file has kept its size and time of change since it was opened."""
        return self._stat() == self._state

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _lines(self, place: Place) -> Iterator[tuple[bytes, Place]]:
        """Yield every line from ``place`` on, blank ones too, with the place after it."""
        index, number, offset, crc = place.index, place.line, place.offset, place.crc
        try:
            self._file.seek(offset)
            for line in self._file:
                index += bool(line.strip())
                number, offset, crc = number + 1, offset + len(line), zlib.crc32(line, crc)
                yield line, Place(index, number, offset, crc)
        except OSError as error:
            raise CrosstokError(f"{self.path}: {error.strerror}") from error


def check(
    source: Source,
    place: Place,
    stop: int,
    pair: Pair,
    prompts: PromptEncoder,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Raise InputError for the first record from ``place`` on, below index ``stop``, that is wrong by itself.

    report: takes how many are checked, now and then.
    """
    for row, after in source.rows(place, stop):
        check_row(source.path, row, pair, prompts)
        done = after.index - place.index
        if done % REPORT == 0:
            report(done)


def check_row(path: Path, row: Row, pair: Pair, prompts: PromptEncoder) -> None:
    """Raise InputError for a record that is wrong by itself.

    That is everything but what the teacher's prompts need: rendering chat templates takes longer than all else here,
    so their mistakes are found when a line's turn comes. A teacher that has no template is found here.
    """
    try:
        pair.encode(row.text, start=row.start)
        if row.messages is not None:
            prompts.need_template()
    except TextError as error:
        raise input_error(path, row.line, error) from error
    if not row.start:
        prompts.load()


def input_error(path: Path, line: int, error: TextError) -> InputError:
    """Return ``error`` with file and line in place of the text's index."""
    return InputError(path, line, str(TextError(error.reason, None, error.offset)))
