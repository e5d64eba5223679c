"""The output of a run and its journal, written batch by batch so that a kill at any moment loses one batch at most."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from crosstok.cli.journal import Entry, Header, journal_path, write_journal
from crosstok.cli.resume import state_of
from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from types import TracebackType

    from crosstok.cli.resume import Resume
    from crosstok.cli.source import Place
    from crosstok.cli.summary import Summary

try:
    import fcntl
except ImportError:  # only POSIX has locks that go with their process
    fcntl = None  # type: ignore[assignment]


class Output:
    """An output file open for writing, with its lock; leaving it leaves whole lines, whatever the reason.

    What belongs to no finished batch is cut off when it is opened. Raises CrosstokError where files cannot be
    written, and where another process is writing them.
    """

    def __init__(self, path: Path, header: Header, resume: Resume, overwrite: bool = False) -> None:
        self.path, self.header, self._entry = path, header, resume.entry
        self._size = resume.entry.size
        try:
            # A raw file: what a buffer still held after a failure would be written when it is closed.
            self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # noqa: SIM115
            try:
                self._lock()
                if not overwrite and state_of(path) != resume.seen:
                    raise CrosstokError(
                        f"{path}: another process has written it meanwhile: run the command again"
                    )
                self._journal = self._open_journal(resume)
                self._file.truncate(self._size)
                self._file.seek(self._size)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise _written(path, error) from error

    def __enter__(self) -> Output:
        """Return itself; leaving cuts off a line that is not finished, and closes the files."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave whole lines, and close the files."""
        try:
            self._file.truncate(self._size)
        finally:
            self._file.close()
            self._journal.close()

    def append(self, lines: bytes, place: Place, summary: Summary) -> None:
        """Write a batch: its lines, where the input goes on, and the sums up to here."""
        try:
            crc = self.write(lines)
            self._entry = Entry(place, self._size, crc, summary)
            _write_all(self._journal, self._entry.line())
        except OSError as error:
            raise _written(self.path, error) from error

    def write(self, lines: bytes) -> int:
        """Write lines that are no whole batch, which the next run will write again; return the CRC-32."""
        try:
            _write_all(self._file, lines)
        except OSError as error:
            raise _written(self.path, error) from error
        self._size += len(lines)
        return zlib.crc32(lines, self._entry.crc)

    def complete(self, summary: Summary) -> None:
        """Say in the journal that nothing is missing."""
        entry = Entry(self._entry.place, self._entry.size, self._entry.crc, summary)
        header = Header(self.header.settings, self.header.survey, complete=True)
        try:
            os.fsync(self._file.fileno())
            write_journal(journal_path(self.path), header, entry)
        except OSError as error:
            raise _written(self.path, error) from error

    def _lock(self) -> None:
        """Keep other processes off, a job that was started twice for example; the lock ends with the process."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CrosstokError(f"{self.path}: another process is writing it") from error
        except OSError:  # a file system without locks
            return

    def _open_journal(self, resume: Resume) -> BinaryIO:
        """Open the journal behind the entry that the run goes on from. A new one is there before a first line."""
        path, end = journal_path(self.path), resume.end
        if end is None:
            end = write_journal(path, self.header, resume.entry)
        journal = path.open("r+b", buffering=0)
        journal.truncate(end)
        journal.seek(end)
        return journal


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write to a raw file, which may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _written(path: Path, error: OSError) -> CrosstokError:
    """Return an error that names the file which could not be written."""
    return CrosstokError(f"{error.filename or path}: {error.strerror}")
