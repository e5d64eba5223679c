"""The commands ``crosstok demo``, ``score``, ``inspect``, ``show`` and ``verify``: options in, exit status out."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
except ImportError as error:
    sys.exit(f"crosstok: the command line needs {error.name}: pip install 'crosstok[cli]'")

from crosstok.cli.exits import Commands, errors_as_exit

app = typer.Typer(
    help="Probabilities of one tokenizer's tokens under a language model that speaks another.",
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Canonical(str, Enum):
    """What happens to the mass of token sequences that the teacher's tokenizer never produces."""

    renormalize = "renormalize"
    mask = "mask"


class Way(str, Enum):
    """What computes the numbers: see `crosstok.methods`."""

    auto = "auto"
    unbiased = "unbiased"
    beam = "beam"
    strict_1to1 = "strict_1to1"
    bpm = "bpm"
    recursion = "recursion"


class Dtype(str, Enum):
    """Number formats of the teacher's weights; auto: the checkpoint's own."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


Teacher = Annotated[str, typer.Option(help="A causal language model: a directory or a hub id.")]
Student = Annotated[
    str, typer.Option(help="A directory, a hub id, a tokenizer.json, or merges:N (the teacher's first N).")
]
Kind = Annotated[Dtype, typer.Option(help="The teacher's number format.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; left out: chosen.")]
Mode = Annotated[Canonical, typer.Option(help="Renormalise at every step, or only mask.")]
Input = Annotated[Path, typer.Option(help="JSON Lines: text; or prompt and completion; or messages.")]
Tolerance = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Regime general: read further rows until bounds are this close."),
]
MaxRows = Annotated[int | None, typer.Option(min=0, help="Further rows for one position, at most.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N lines.")]
TeacherEos = Annotated[list[int] | None, typer.Option(min=0, help="Teacher id that ends a text.")]
StudentEos = Annotated[list[int] | None, typer.Option(min=0, help="Student id that ends a text.")]


@app.callback()
def start(context: typer.Context) -> None:
    """Print the help where no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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
    teacher: Teacher,
    student: Student,
    input: Input,
    output: Annotated[Path, typer.Option(help="JSON Lines, one line for each line of the input.")],
    dtype: Kind = Dtype.float32,
    device: Device = None,
    canonical: Mode = Canonical.renormalize,
    tolerance: Tolerance = None,
    max_rows: MaxRows = None,
    limit: Limit = None,
    num_shards: Annotated[
        int, typer.Option(min=1, help="Cut the input into N runs of lines, to score one.")
    ] = 1,
    shard: Annotated[
        int | None, typer.Option(help="Which one, from 0; outputs are put one behind the other.")
    ] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one packed forward.")] = None,
    teacher_eos: TeacherEos = None,
    student_eos: StudentEos = None,
    summary: Annotated[Path | None, typer.Option(help="Write the summary as JSON, too.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over, whatever there is of the output.")
    ] = False,
) -> None:
    """Write the log-probability of each student token of each text of a file: exact, or between bounds.

    The same command goes on where it was stopped, by whatever.
    """
    with errors_as_exit():
        from crosstok.cli.progress import progress_bar
        from crosstok.cli.score import run
        from crosstok.cli.settings import Job
        from crosstok.cli.summary import write_summary
        from crosstok.cli.table import summary_table

        job = Job(
            teacher=teacher,
            student=student,
            input=input,
            output=output,
            dtype=dtype.value,
            device=device,
            canonical=canonical.value,
            tolerance=tolerance,
            max_rows=max_rows,
            limit=limit,
            num_shards=num_shards,
            shard=shard,
            batch_tokens=batch_tokens,
            teacher_eos=teacher_eos,
            student_eos=student_eos,
            overwrite=overwrite,
            summary=summary,
        )
        console = Console(stderr=True, highlight=False)
        with progress_bar(console) as report:
            sums = run(job, lambda message: typer.echo(f"crosstok: {message}", err=True), report)
        console.print(summary_table(sums))
        if summary is not None:
            write_summary(summary, sums)


@app.command()
def inspect(
    teacher: Annotated[str, typer.Option(help="A directory, a hub id or a tokenizer.json.")],
    student: Student,
    sample: Annotated[
        Path | None, typer.Option(help="Texts, as `score` reads them: what they will need.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of the sample only the first N lines.")] = 1000,
    teacher_eos: TeacherEos = None,
    student_eos: StudentEos = None,
) -> None:
    """Say how two tokenizers relate, what is not supported, and what scoring will cost. No model is loaded."""
    with errors_as_exit():
        from crosstok.cli.findings import print_inspection, print_sample
        from crosstok.cli.inspect import inspect as look
        from crosstok.cli.inspect import read_sample
        from crosstok.cli.progress import progress_bar

        found, console = look(teacher, student, teacher_eos, student_eos), Console(highlight=False)
        print_inspection(console, found)
        if found.pair is None:
            raise typer.Exit(2)
        if sample is not None:
            with progress_bar(Console(stderr=True)) as report:
                counts = read_sample(found, teacher, sample, limit, report)
            print_sample(console, counts)


@app.command()
def show(
    teacher: Teacher,
    student: Student,
    text: Annotated[str | None, typer.Option(help="The text, which starts a document.")] = None,
    input: Annotated[Path | None, typer.Option(help="Or a file as `score` reads it, with --line.")] = None,
    line: Annotated[int | None, typer.Option(min=1, help="Which line of it, from 1.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write an HTML page; left out: print to the terminal.")
    ] = None,
    dtype: Kind = Dtype.float32,
    device: Device = None,
    canonical: Mode = Canonical.renormalize,
    tolerance: Tolerance = None,
    max_rows: MaxRows = None,
    teacher_eos: TeacherEos = None,
    student_eos: StudentEos = None,
) -> None:
    """Show one text: its student tokens, their probabilities, and the covers behind them."""
    with errors_as_exit():
        from crosstok.cli.one import One, save, show_one

        models = (dtype.value, device, canonical.value, tolerance, max_rows, teacher_eos, student_eos)
        shown = show_one(One(teacher, student, text, input, line, output, *models))
        if output is None:
            typer.echo(str(shown))
        else:
            save(shown, output)


@app.command()
def verify(
    teacher: Teacher,
    student: Student,
    input: Input,
    sample: Annotated[int, typer.Option(min=1, help="How many lines to draw.")] = 20,
    positions: Annotated[
        int, typer.Option(min=0, help="At how many of their positions to compare whole distributions.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    dtype: Kind = Dtype.float32,
    device: Device = None,
    canonical: Mode = Canonical.renormalize,
    method: Annotated[Way, typer.Option(help="The method in use.")] = Way.auto,
    method_option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as in draws=4.")] = None,
    tolerance: Tolerance = None,
    max_rows: MaxRows = None,
    temperature: Annotated[float, typer.Option(help="Divides the teacher's logits.")] = 1.0,
    reference_tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="How close the reference's bounds are to be.")
    ] = 0.001,
    reference_max_rows: Annotated[
        int, typer.Option(min=0, help="Its further rows for one position, at most.")
    ] = 2000,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one packed forward.")] = None,
    teacher_eos: TeacherEos = None,
    student_eos: StudentEos = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON, too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the errors, as an SVG image.")] = None,
) -> None:
    """Score some texts again to a tight tolerance: how far off is the method in use, and do its bounds hold?

    The exit status is 1 where a bound does not hold. A tolerance takes as many rows as it needs, and long, unless
    --max-rows limits them.
    """
    with errors_as_exit():
        from crosstok.cli.progress import progress_bar
        from crosstok.cli.verify import BROKEN, Check, print_verification, run, write_outputs

        check = Check(
            teacher=teacher,
            student=student,
            input=input,
            sample=sample,
            positions=positions,
            seed=seed,
            dtype=dtype.value,
            device=device,
            canonical=canonical.value,
            method=method.value,
            method_option=method_option or (),
            tolerance=tolerance,
            max_rows=max_rows,
            temperature=temperature,
            reference_tolerance=reference_tolerance,
            reference_max_rows=reference_max_rows,
            batch_tokens=batch_tokens,
            teacher_eos=teacher_eos,
            student_eos=student_eos,
            json=json,
            plot=plot,
        )
        with progress_bar(Console(stderr=True)) as report:
            checked = run(check, report)
        write_outputs(checked)
        print_verification(Console(highlight=False), checked)
        if not checked.found.held:
            raise typer.Exit(BROKEN)


def main() -> None:
    """Entry point of the command ``crosstok``."""
    app()


if __name__ == "__main__":
    main()
