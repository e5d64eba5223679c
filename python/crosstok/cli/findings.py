"""What `crosstok inspect` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from crosstok.cli.table import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    import crosstok as ct
    from crosstok.cli.inspect import Inspection, Sample, Side

BOUNDS = (
    "some teacher tokens leave open which student tokens they end in; the values are estimates there, and "
    "score --tolerance tightens the bounds with further teacher rows"
)


def print_inspection(console: Console, found: Inspection) -> None:
    """Print how two tokenizers relate, and what is known of each."""
    if found.pair is not None:
        _say(console, f"regime: {found.pair.regime}", found.pair.reason)
        if found.pair.regime == "general" and found.not_yet is None:
            _say(console, "scores come between bounds", BOUNDS)
    if found.not_yet is not None:
        _say(console, "scoring such pairs is not available yet", found.not_yet)
    if found.problem is not None:
        _say(console, "no pair", found.problem)
    sides = {"teacher": found.teacher, "student": found.student}
    for name, side in sides.items():
        if side.problem is not None:
            _say(console, f"{name} is not supported", side.problem)
    table = _table("", *(name for name, side in sides.items() if side.tokenizer))
    known = [side for side in sides.values() if side.tokenizer]
    for cells in zip(
        *(_cells(side, found.common if len(known) == 2 else None) for side in known), strict=True
    ):
        table.add_row(cells[0][0], *(Text(value) for _, value in cells))
    if known:
        console.print(table)


def print_sample(console: Console, sample: Sample) -> None:
    """Print what a sample of texts needs."""
    table = _table("sample", "")
    for name, value in _counts(sample):
        table.add_row(name, value)
    console.print(table)
    if sample.first_refused:
        _say(console, "first text that cannot be scored", sample.first_refused)


def _cells(side: Side, common: int | None) -> list[tuple[str, str]]:
    """Return (name, value) of what is known of a tokenizer."""
    tokenizer, pieces = side.tokenizer, len(side.pieces)
    assert tokenizer is not None
    begin = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    rows = [
        ("ids", f"{tokenizer.vocab_size}"),
        ("special tokens", f"{len(tokenizer.special_ids)}"),
        ("tokens, by bytes", f"{pieces}"),
    ]
    if common is not None:
        rows.append(("of them in the other", f"{common} ({_percent(common, pieces)})"))
    return [
        *rows,
        ("begin-of-text", _ids(tokenizer, begin)),
        ("end-of-text", _ids(tokenizer, side.eos)),
        ("fingerprint", tokenizer.fingerprint[:16]),
    ]


def _counts(sample: Sample) -> list[tuple[str, str]]:
    """Return (name, value) of the sums over a sample."""
    rows = [
        ("texts", f"{sample.texts}"),
        ("texts that cannot be scored", f"{sample.refused}"),
        ("bytes", f"{sample.size}"),
        ("student tokens", f"{sample.student_tokens}"),
        ("of them the teacher has, too", _percent(sample.known_tokens, sample.student_tokens)),
        ("canonical teacher tokens", f"{sample.teacher_tokens}"),
        ("bytes per student token", _ratio(sample.size, sample.student_tokens)),
        ("bytes per teacher token", _ratio(sample.size, sample.teacher_tokens)),
    ]
    if sample.nodes is not None and sample.undecided:
        share = _percent(sample.undecided, sample.student_tokens)
        rows.append(("student tokens that something is undecided of", share))
    if sample.rows_per_token is not None:
        rows.append(("teacher rows per canonical token, with end-of-text", f"{sample.rows_per_token:.3f}"))
    if sample.cost is not None:
        rows.append(("teacher columns against plain forwards", f"{sample.cost:.3f} ×"))
    return rows


def _ids(tokenizer: ct.Tokenizer, ids: Sequence[int]) -> str:
    return ", ".join(f"{id} {visible(tokenizer.token_bytes(id))}" for id in ids) or "not known"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def _say(console: Console, what: str, why: str) -> None:
    """Print a finding and its reason, as it is: files may hold what rich takes for markup."""
    console.print(Text(what, style="bold").append(f": {why}", style="not bold"), soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any((first, *others)))
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right", overflow="fold")
    return table
