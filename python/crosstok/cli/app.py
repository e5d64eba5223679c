"""The commands ``crosstok demo`` and ``crosstok score``: options in, exit status out."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError as error:
    sys.exit(f"crosstok: the command line needs {error.name}: pip install 'crosstok[cli]'")

from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import crosstok as ct
    from crosstok.cli.records import Record
    from crosstok.cli.score import Summary

app = typer.Typer(
    help="Exact probabilities of one tokenizer's tokens under a language model that speaks another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Canonical(str, Enum):
    """What happens to the mass of token sequences that the teacher's tokenizer never produces."""

    renormalize = "renormalize"
    mask = "mask"


class Dtype(str, Enum):
    """Number formats of the teacher's weights; auto: the checkpoint's own."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


@contextmanager
def errors_as_exit() -> Iterator[None]:
    """Turn errors that a user can act on into one line on stderr and exit status 2."""
    try:
        yield
    except CrosstokError as error:
        typer.echo("crosstok: " + " ".join(str(error).split()), err=True)
        raise typer.Exit(2) from error
    except ImportError as error:
        if error.name not in (None, "torch", "transformers"):
            raise
        cause = error if error.name is None else f"{error.name} is missing: pip install 'crosstok[cli]'"
        typer.echo(f"crosstok: {cause}", err=True)
        raise typer.Exit(2) from error


@app.command()
def demo(
    text: Annotated[str | None, typer.Option(help="A text to score instead of the built-in one.")] = None,
) -> None:
    """Show exact probabilities beside naive alignment's; the teacher is part of the package."""
    with errors_as_exit():
        from crosstok.cli.demo import TEXT, run_demo
        from crosstok.cli.table import print_demo

        print_demo(Console(highlight=False), run_demo(TEXT if text is None else text))


@app.command()
def score(
    teacher: Annotated[str, typer.Option(help="A causal language model: a directory or a hub id.")],
    student: Annotated[
        str,
        typer.Option(help="A directory, a hub id, a tokenizer.json, or merges:N (the teacher's first N)."),
    ],
    input: Annotated[Path, typer.Option(help="JSON Lines: text; or prompt and completion; or messages.")],
    output: Annotated[Path, typer.Option(help="JSON Lines, one line for each line of the input.")],
    dtype: Annotated[Dtype, typer.Option(help="The teacher's number format.")] = Dtype.float32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; left out: chosen.")] = None,
    canonical: Annotated[
        Canonical, typer.Option(help="Renormalise at every step, or only mask.")
    ] = Canonical.renormalize,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only the first N lines.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one packed forward.")] = None,
    teacher_eos: Annotated[list[int] | None, typer.Option(help="Teacher id that ends a text.")] = None,
    student_eos: Annotated[list[int] | None, typer.Option(help="Student id that ends a text.")] = None,
) -> None:
    """Write the exact log-probability of each student token of each text of a file."""
    with errors_as_exit():
        import crosstok as ct
        from crosstok.cli.prompts import PromptEncoder
        from crosstok.cli.records import read_records
        from crosstok.cli.score import check_texts, load_pair, load_teacher
        from crosstok.cli.table import summary_table

        # The whole input is read before the model is: a bad last line is better found now than in an hour.
        records = list(read_records(input, PromptEncoder(teacher), limit))
        _check_output(input, output)
        pair = load_pair(teacher, student, teacher_eos, student_eos)
        check_texts(pair, records, input)
        model = load_teacher(teacher, dtype.value, device, batch_tokens)
        scorer = ct.Scorer(model, pair, canonical=canonical.value)
        summary = _run(scorer, pair.teacher, records, input, output)
        Console(stderr=True, highlight=False).print(summary_table(summary))


def _check_output(input: Path, output: Path) -> None:
    """Refuse an output that cannot be written, before a model is loaded for it."""
    if not output.absolute().parent.is_dir():
        raise CrosstokError(f"{output}: No such file or directory")
    if output.resolve() == input.resolve():
        raise CrosstokError(f"{output}: is the input too")


def _run(
    scorer: ct.Scorer, tokenizer: ct.Tokenizer, records: Sequence[Record], input: Path, output: Path
) -> Summary:
    """Score with a progress bar on stderr."""
    from crosstok.cli.score import Summary, score_records

    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console, summary = Console(stderr=True), Summary()
    # In a log file a bar is noise.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("scoring", total=len(records))
        for summary in score_records(scorer, tokenizer, records, input, output):
            progress.update(bar, completed=summary.texts)
    return summary


def main() -> None:
    """Entry point of the command ``crosstok``."""
    app()


if __name__ == "__main__":
    main()
