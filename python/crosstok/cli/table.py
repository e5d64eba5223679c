"""What the commands print: tables and lines for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from crosstok.cli.demo import Demo, Step
    from crosstok.cli.summary import Summary

STATUS = ("exact", "certified", "estimated", "special", "unsupported")
# Naive alignment further than this from the exact value, in nats, is marked.
MARKED = 1.0


def visible(piece: bytes) -> str:
    """Return a token's bytes for people: spaces as ␣, other white space and stray bytes escaped."""
    text = piece.decode("utf-8", errors="backslashreplace")
    return "".join(
        "␣" if c == " " else c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def probability(logprob: float) -> str:
    """Return a probability in at most seven characters."""
    value = math.exp(logprob)
    return f"{value:.4f}" if value >= 0.001 or value == 0 else f"{value:.1e}"


def print_demo(console: Console, demo: Demo) -> None:
    """Print the demo's table and its totals."""
    console.print(
        "[bold]What does a teacher think of each token of another tokenizer?[/bold]\n"
        f"The student's tokenizer has the teacher's first merges only (regime: {demo.regime}).\n"
        "Log-probabilities in nats; ␣ is a space."
    )
    console.print(demo_table(demo))
    console.print(totals_table(demo))
    gap = demo.naive_total - demo.own_total
    if math.isfinite(gap) and abs(gap) > MARKED:
        less = "less" if gap < 0 else "more"
        power = round(abs(gap) / math.log(10))
        console.print(f"\nNaive alignment finds the text about 10^{power} times {less} likely.")


def demo_table(demo: Demo) -> Table:
    """Return one line a student token: exact, then what naive alignment would have said."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("student\ntoken", overflow="fold")
    for name in ("exact\nlog p", "exact\np", "\ncovers", "\nrows"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("\nstatus", no_wrap=True)
    for name in ("naive\nlog p", "naive\np", "naive\noff by"):
        table.add_column(name, justify="right", style="dim", no_wrap=True)
    for step in demo.steps:
        table.add_row(*_cells(step))
    return table


def _cells(step: Step) -> list[Text]:
    """Return the cells of one step, as plain text: tokens may hold brackets that rich would read."""
    off = step.naive - step.logprob
    off_text = "-" if math.isnan(off) else f"{off:+.2f}"
    return [
        Text("(end)" if step.is_end else visible(step.piece), style="italic" if step.is_end else "cyan"),
        Text(f"{step.logprob:.4f}", style="bold"),
        Text(probability(step.logprob)),
        Text(str(step.covers)),
        Text(str(step.rows)),
        Text(STATUS[step.status]),
        Text(f"{step.naive:.4f}"),
        Text(probability(step.naive)),
        Text(off_text, style="red" if abs(off) > MARKED else ""),
    ]


def totals_table(demo: Demo) -> Table:
    """Return the totals: the exact one is the teacher's own, naive alignment's is not."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    tokens = len(demo.steps)
    same = demo.exact_total - demo.own_total
    off = demo.naive_total - demo.own_total
    table.add_row(f"exact total, {tokens} student tokens", f"{demo.exact_total:.4f}", f"off by {same:+.1e}")
    table.add_row(
        f"teacher's total, its own {demo.own_tokens} tokens", f"{demo.own_total:.4f}", "the reference"
    )
    table.add_row(f"naive total, {tokens} student tokens", f"{demo.naive_total:.4f}", f"off by {off:+.2f}")
    table.add_row(
        "teacher's total, nothing removed",
        f"{demo.raw_total:.4f}",
        f"{demo.noncanonical:.1e} non-canonical mass",
    )
    return table


def _number(value: float, form: str) -> str:
    """A figure; a dash for one that there is none of."""
    return "-" if math.isnan(value) else format(value, form)


def summary_table(summary: Summary) -> Table:
    """Return the summary of `crosstok score`."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("texts", f"{summary.texts}")
    if summary.impossible:
        table.add_row("of probability zero (not in the totals)", f"{summary.impossible}")
    table.add_row("student tokens", f"{summary.student_tokens}")
    table.add_row("teacher rows", f"{summary.rows}")
    table.add_row("teacher rows per canonical teacher token", _number(summary.rows_per_token, ".3f"))
    table.add_row("total log-probability, nats", f"{summary.nats:.4f}")
    table.add_row("bits per byte", _number(summary.bits_per_byte, ".4f"))
    table.add_row("mean non-canonical mass", f"{summary.mean_noncanonical:.2e}")
    table.add_row("mean inadmissible mass", f"{summary.mean_inadmissible:.2e}")
    if summary.certified or summary.estimated:
        table.add_row("exact positions", f"{summary.exact}")
        table.add_row("certified positions", f"{summary.certified}")
        table.add_row("estimated positions", f"{summary.estimated}")
        table.add_row("widest bounds, as probabilities", f"{summary.widest:.2e}")
    table.add_row("unsupported positions", f"{summary.unsupported}")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    for name, seconds in (
        ("plans", summary.plan),
        ("teacher", summary.teacher),
        ("aggregation", summary.aggregation),
    ):
        table.add_row(f"  {name}", f"{seconds:.1f}")
    return table
