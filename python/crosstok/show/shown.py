"""`Shown`: an explanation that displays itself, in a notebook, in a terminal, or as a file."""

from __future__ import annotations

import html
import io
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crosstok.show.explanation import Explanation
from crosstok.show.page import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

# Height of the frame in a notebook, in pixels: so much for the head and the panel, more for a text of many lines.
FRAME, LINE, TALLEST = 560, 58, 860
TOKENS_PER_LINE = 24


@dataclass(frozen=True, eq=False)
class Shown:
    """What `show` returns: it shows itself where it is the last line of a notebook's cell, and where it is printed."""

    explanation: Explanation

    @cached_property
    def html(self) -> str:
        """One HTML document that needs no network and no other file."""
        return page(self.explanation)

    def save(self, path: str | Path) -> None:
        """Write the document, as UTF-8."""
        Path(path).write_bytes(self.html.encode())

    def _repr_html_(self) -> str:
        """A frame of its own, so that neither its style nor its script meets the notebook's."""
        lines = len(self.explanation.positions) // TOKENS_PER_LINE + self.explanation.text.count(b"\n")
        height = min(TALLEST, FRAME + LINE * lines)
        return (
            f'<iframe srcdoc="{html.escape(self.html, quote=True)}" sandbox="allow-scripts" '
            f'title="crosstok" style="width:100%;height:{height}px;border:0"></iframe>'
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """For rich's own print."""
        from crosstok.show.terminal import rendered

        yield from rendered(self.explanation, options.max_width, console.color_system is not None)

    def __str__(self) -> str:
        """Lines for a terminal, in colours where standard output is one (and NO_COLOR is not set)."""
        try:
            from rich.console import Console
        except ModuleNotFoundError as error:
            if error.name != "rich":
                raise
            return f"{self!r}\n(tokens and covers: pip install 'crosstok[cli]', or .save('page.html'))"
        outside = Console(file=sys.stdout)
        # Drawn apart: printing it here would send it to the terminal instead of returning it.
        console = Console(
            file=io.StringIO(),
            force_terminal=outside.is_terminal,
            color_system=outside.color_system if outside.is_terminal else None,  # type: ignore[arg-type]
            width=outside.width,
        )
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip("\n")

    def __repr__(self) -> str:
        """Short description."""
        e = self.explanation
        return f"Shown({len(e.positions)} student tokens, log P {e.total:.4f} nats)"
