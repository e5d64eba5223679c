"""Bytes of tokens made visible: white space as signs, and by name whatever does not show or shows as something else."""

from __future__ import annotations

import unicodedata
from typing import Literal

Kind = Literal["text", "space", "code"]
Run = tuple[Kind, str]
"""What to write, and how: as it is, as a sign for white space, or as the name of a byte or character."""

SIGNS = {" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"}


def visible(piece: bytes) -> list[Run]:
    """The runs that show a token.

    Bytes that are no UTF-8 (of a character that other tokens begin or end, for example) are two hex digits; characters
    that do not print (controls, bidi marks, zero-width and odd spaces) are U+ and their number. A combining mark at the
    start stands on a dotted circle.
    """
    runs: list[Run] = []
    for at, char in enumerate(piece.decode("utf-8", errors="surrogateescape")):
        kind, shown = _visible(char)
        if at == 0 and unicodedata.category(char).startswith("M"):
            shown = "◌" + shown
        if runs and runs[-1][0] == kind != "code":
            runs[-1] = (kind, runs[-1][1] + shown)
        else:
            runs.append((kind, shown))
    return runs


def clipped(runs: list[Run], most: int) -> list[Run]:
    """The runs, or, where they have more than ``most`` signs, their two ends. A named byte or character is one sign."""
    signs = [(kind, sign) for kind, text in runs for sign in ([text] if kind == "code" else text)]
    if len(signs) <= most:
        return runs
    tail = most // 4
    return [*signs[: most - tail - 1], ("text", "…"), *signs[-tail:]]


def _visible(char: str) -> Run:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # how surrogateescape carries a byte
        return "code", f"{ord(char) - 0xDC00:02X}"
    if char in SIGNS:
        return "space", SIGNS[char]
    if not char.isprintable():
        return "code", f"U+{ord(char):04X}"
    return "text", char


def plain(piece: bytes) -> str:
    """The runs as one string, for where there is one style only: <E2> for a byte, <U+200D> for a character."""
    return "".join(f"<{text}>" if kind == "code" else text for kind, text in visible(piece))
