"""The progress bar of long commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Rate(ProgressColumn):
    """Texts a second, as of late."""

    def render(self, task: Task) -> Text:
        """Return the rate; nothing before two batches are done."""
        return Text("" if task.speed is None else f"{task.speed:.1f} texts/s")


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show texts done, the rate and the time left; in a log file, where a bar is noise, nothing.

    Gives a function that takes what is being done, how many texts are, and of how many; another name shows another bar.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in bars:
                for bar in bars.values():
                    progress.update(bar, visible=False)
                bars[name] = progress.add_task(name, total=total, completed=done)
            progress.update(bars[name], completed=done)

        yield report
