"""What can have happened to an output and its journal since a run was stopped."""

from __future__ import annotations

from pathlib import Path

from crosstok.cli.journal import Entry, journal_path
from crosstok.cli.source import Place


def half_line(output: Path) -> None:
    output.write_bytes(output.read_bytes() + b'{"index": 7, "stud')


def extra_line(output: Path) -> None:
    output.write_bytes(output.read_bytes() + output.read_bytes().splitlines(keepends=True)[-1])


def shorter_output(output: Path) -> None:
    output.write_bytes(output.read_bytes()[:-5])


def one_byte_of_output(output: Path) -> None:
    output.write_bytes(output.read_bytes()[:1])


def no_output(output: Path) -> None:
    output.unlink()


def empty_output(output: Path) -> None:
    output.write_bytes(b"")


def last_byte(output: Path) -> None:
    output.write_bytes(output.read_bytes()[:-2] + b"?\n")


def first_byte(output: Path) -> None:
    output.write_bytes(b"?" + output.read_bytes()[1:])


def zeros(output: Path) -> None:
    """As some file systems leave a file after a power failure: its size, but not its content."""
    size = output.stat().st_size
    output.write_bytes(output.read_bytes()[: size // 2] + bytes(size - size // 2))


def no_last_entry(output: Path) -> None:
    lines = journal_path(output).read_bytes().splitlines(keepends=True)
    journal_path(output).write_bytes(b"".join(lines[:-1]))


def no_entry_but_the_first(output: Path) -> None:
    lines = journal_path(output).read_bytes().splitlines(keepends=True)
    journal_path(output).write_bytes(b"".join(lines[:2]))


def half_entry(output: Path) -> None:
    journal_path(output).write_bytes(journal_path(output).read_bytes()[:-9])


def entry_without_line_end(output: Path) -> None:
    journal_path(output).write_bytes(journal_path(output).read_bytes()[:-1])


def entries_that_are_none(output: Path) -> None:
    journal_path(output).write_bytes(journal_path(output).read_bytes() + b'{}\n[1]\n{"place": 3}\n\n')


def entry_ahead_of_the_output(output: Path) -> None:
    entry = Entry(Place(99, 99, 9999, 1), size=10**6, crc=2)
    journal_path(output).write_bytes(journal_path(output).read_bytes() + entry.line())


def journal_that_was_not_renamed(output: Path) -> None:
    journal_path(output).with_name("out.jsonl.journal.tmp").write_bytes(b"half of")


DAMAGES = [
    half_line,
    extra_line,
    shorter_output,
    one_byte_of_output,
    no_output,
    empty_output,
    last_byte,
    first_byte,
    zeros,
    no_last_entry,
    no_entry_but_the_first,
    half_entry,
    entry_without_line_end,
    entries_that_are_none,
    entry_ahead_of_the_output,
    journal_that_was_not_renamed,
]
