"""How a command ends: mistakes are one line on stderr and exit status 2, an interrupt one line and 130."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from crosstok.errors import CrosstokError

MISTAKE, INTERRUPTED = 2, 130


@contextmanager
def errors_as_exit() -> Iterator[None]:
    """Turn errors that a user can act on into one line; all others pass, they are ours."""
    try:
        yield
    except CrosstokError as error:
        raise _exit(str(error), MISTAKE) from error
    except ImportError as error:
        if error.name not in (None, "torch", "transformers"):
            raise
        cause = str(error) if error.name is None else f"{error.name} is missing: pip install 'crosstok[cli]'"
        raise _exit(cause, MISTAKE) from error
    except KeyboardInterrupt as error:
        raise _exit("interrupted", INTERRUPTED) from error


def _exit(message: str, status: int) -> typer.Exit:
    """Print one line, whatever line breaks a message has, and return what ends the command."""
    typer.echo("crosstok: " + " ".join(message.split()), err=True)
    return typer.Exit(status)


class Commands(TyperGroup):
    """Commands whose wrong options are one line too, not a panel."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its status (or return it, where not ``standalone_mode``)."""
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:
            status = INTERRUPTED
        except Exception as error:
            # Click's UsageError, which typer has under a private name.
            describe = getattr(error, "format_message", None)
            if not standalone_mode or describe is None:
                raise
            status = _exit(f"{describe().rstrip('.')} (see crosstok --help)", MISTAKE).exit_code
        if standalone_mode:
            sys.exit(status)
        return status
