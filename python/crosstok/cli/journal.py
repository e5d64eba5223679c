"""What lies beside an output and lets a killed run go on: how it is made, and how far it came.

``OUTPUT.journal`` holds JSON lines. The first, the header, has everything that determines the output. Each other one
is an entry: after a batch, where the input is to be read on, how long the output is, its CRC-32, and the sums for the
summary. The file is made whole, by a rename; entries are appended after the output's lines are written. No order of
what reaches the disk is relied on: an entry counts if it can be read and the output bears it out.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from crosstok.cli.source import CHUNK, Place, Survey
from crosstok.cli.summary import Summary
from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND, VERSION = "crosstok score", 2


@dataclass(frozen=True)
class Header:
    """What determines an output, the input it is made from, and whether it is complete."""

    settings: dict[str, Any]
    survey: Survey
    complete: bool = False

    def line(self) -> bytes:
        """Return the first line of a journal."""
        return _line({"journal": KIND, "version": VERSION, **asdict(self)})

    @classmethod
    def of(cls, line: bytes) -> Header | None:
        """Read a header; None where it is none."""
        try:
            data = json.loads(line)
            if (data.pop("journal"), data.pop("version")) != (KIND, VERSION):
                return None
            return cls(survey=Survey(**data.pop("survey")), **data)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True)
class Entry:
    """A point between two batches: where the input goes on, bytes of output and their CRC-32, and the sums."""

    place: Place
    size: int = 0
    crc: int = 0
    summary: Summary = field(default_factory=Summary)

    def line(self) -> bytes:
        """Return the entry as a line of a journal."""
        return _line(asdict(self))

    @classmethod
    def of(cls, line: bytes) -> Entry | None:
        """Read an entry; None where the line is cut off or is none."""
        try:
            data = json.loads(line)
            place, summary = Place(**data.pop("place")), Summary(**data.pop("summary"))
            return cls(place, summary=summary, **data) if line.endswith(b"\n") else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def journal_path(output: Path) -> Path:
    """Where the journal of an output lies."""
    return output.with_name(output.name + ".journal")


def read_header(path: Path) -> Header | None:
    """Return the header of a journal, None where there is no file. Raises CrosstokError where it is damaged."""
    try:
        with path.open("rb") as lines:
            header = Header.of(lines.readline())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CrosstokError(f"{path}: {error.strerror}") from error
    if header is None:
        raise CrosstokError(f"{path}: not a journal of this version: pass --overwrite to start over")
    return header


def last_entry(path: Path, output: BinaryIO) -> tuple[Entry, int] | None:
    """Return the last entry that the output bears out from its start, and where it ends in the journal.

    None where there is not even a first. Reads the journal and the output once. The output may be longer, and may
    end anywhere.
    """
    found: tuple[Entry, int] | None = None
    size = crc = 0
    output.seek(0)
    for entry, end in _entries(path):
        while size < entry.size and (data := output.read(min(CHUNK, entry.size - size))):
            size, crc = size + len(data), zlib.crc32(data, crc)
        if (size, crc) != (entry.size, entry.crc):
            break
        found = entry, end
    return found


def write_journal(path: Path, header: Header, entry: Entry) -> int:
    """Replace a journal, in one step, by one that starts at ``entry``; return its length. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    content = header.line() + entry.line()
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return len(content)


def _entries(path: Path) -> Iterator[tuple[Entry, int]]:
    """Yield the entries, each with the byte at which it ends, up to the first that cannot be read."""
    with path.open("rb") as lines:
        end = len(lines.readline())
        for line in lines:
            entry = Entry.of(line)
            if entry is None:
                return
            end += len(line)
            yield entry, end


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode() + b"\n"
