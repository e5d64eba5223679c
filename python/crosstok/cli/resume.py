"""Whether an output that is there can be gone on with, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstok.cli.journal import Entry, Header, journal_path, last_entry, read_header
from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from crosstok.cli.source import Source, Survey

START_OVER = "pass --overwrite to start over, or choose another output"
BATCH_TOKENS = "batch tokens"
State = tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]


@dataclass(frozen=True)
class Resume:
    """Where a run goes on: its last finished batch, and where that ends in the journal (None: write a new one).

    ``batch_tokens``: the teacher's, as recorded; batches must be formed alike. ``checked``: every line of the input
    was found good before. ``seen``: the files when they were looked at; another process may be done with them since.
    """

    entry: Entry
    end: int | None = None
    batch_tokens: int | None = None
    checked: bool = False
    complete: bool = False
    seen: State = (None, None)


def state_of(output: Path) -> State:
    """Return inode, size and time of change of an output and its journal; None for an output that is not begun."""
    found = []
    for path in (output, journal_path(output)):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None, None
        if path == output and not status.st_size:
            return None, None
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found[0], found[1]


def find_resume(output: Path, settings: dict[str, Any], survey: Survey, source: Source) -> Resume | None:
    """Return where to go on with ``output``; None where there is nothing that could be lost.

    ``settings`` without batch tokens fit any. The input must be what it was, except that lines which are not
    scored yet may have been mended. Raises CrosstokError where the output was made otherwise, or is not known.
    """
    if not output.exists() or output.stat().st_size == 0:
        return None
    seen, journal = state_of(output), journal_path(output)
    header = read_header(journal)
    if header is None:
        raise CrosstokError(f"{output}: exists, without a journal that says how it was made: {START_OVER}")
    _compare(output, header.settings, settings)
    try:
        with output.open("rb") as file:
            found, size = last_entry(journal, file), output.stat().st_size
    except OSError as error:
        raise CrosstokError(f"{output}: {error.strerror}") from error
    if found is None or (header.complete and found[0].size != size):
        raise CrosstokError(f"{output}: was changed since it was written: {START_OVER}")
    entry, end = found
    same = header.survey == survey
    if not same and not _only_the_rest_differs(header, entry, survey, source):
        raise CrosstokError(f"{output}: was made from another input than {source.path} is now: {START_OVER}")
    batch_tokens = header.settings.get(BATCH_TOKENS)
    return Resume(
        entry, end if same else None, batch_tokens, checked=same, complete=header.complete, seen=seen
    )


def _compare(output: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise CrosstokError, naming every setting that differs."""
    names = [name for name in {**then, **now} if name != BATCH_TOKENS or name in now]
    different = [
        f"{name} was {then.get(name)}, is {now.get(name)}"
        for name in names
        if then.get(name) != now.get(name)
    ]
    if different:
        raise CrosstokError(f"{output}: was made otherwise ({'; '.join(different)}): {START_OVER}")


def _only_the_rest_differs(header: Header, entry: Entry, survey: Survey, source: Source) -> bool:
    """Whether the input is, up to where a run goes on, what it was: a line that stopped it may be mended.

    A complete output has no rest. Of several shards each would have other lines if their number changed.
    """
    place = entry.place
    if header.complete or place.index >= header.survey.records or place.offset > survey.size:
        return False
    if header.settings.get("shard") is not None and header.survey.records != survey.records:
        return False
    return source.crc(place.offset) == place.crc
