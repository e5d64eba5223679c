"""An `Explanation` as one HTML document that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from importlib import resources
from typing import Any, get_args

from crosstok.show.explanation import Cover, Explanation, Kind, Token
from crosstok.show.layout import LONGEST, Part, blocks
from crosstok.show.palette import BINS, bin_of
from crosstok.show.pieces import clipped, visible

THEMES = ("auto", "light", "dark")
# Covers in a page, all positions together: a text of thousands of tokens keeps to a few MB.
MAX_COVERS = 40_000
# What a cover may be, by number in a page.
KINDS = get_args(Kind)


def page(explanation: Explanation, theme: str = "auto") -> str:
    """Return the document. theme: "light", "dark", or "auto", the reader's own; the page has a button for it."""
    if theme not in THEMES:
        raise ValueError(f"theme must be one of {', '.join(THEMES)}, not {theme!r}")
    parts = {
        "theme": theme,
        "palette": palette_css(),
        "style": _asset("page.css"),
        "script": _asset("page.js"),
        "data": embedded(data_of(explanation)),
    }
    # In one pass: what is put in is not looked through again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def embedded(data: Any) -> str:
    """JSON that may stand in a script element: ASCII, and without the characters that markup is made of."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def palette_css() -> str:
    """Custom properties --g0.. (grounds) and --t0.. (texts on them), each for light and for dark pages."""
    lines = []
    for at, bin in enumerate(BINS):
        lines.append(f"--g{at}: light-dark({bin.light.ground}, {bin.dark.ground});")
        lines.append(f"--t{at}: light-dark({bin.light.text}, {bin.dark.text});")
    return ":root { " + " ".join(lines) + " }"


def data_of(explanation: Explanation) -> dict[str, Any]:
    """What the script reads: columns over positions and tokens; pieces and covers' tokens by number in their tables."""
    tables = _Tables()
    positions = explanation.positions
    students = [position.token for position in positions]
    names = ("logprob", "lower", "upper", "prefix_lower", "prefix_upper", "log_covers", "noncanonical_mass")
    columns: dict[str, list[Any]] = {
        name: [_number(getattr(position, name)) for position in positions]
        for name in (*names, "inadmissible_mass")
    }
    columns |= {
        name: [getattr(position, name) for position in positions] for name in ("rows", "status", "trunk")
    }
    columns["bin"] = [bin_of(position.logprob) for position in positions]
    listed = max(1, MAX_COVERS // max(1, len(positions)))
    columns["covers"] = [[tables.cover(c, p.token) for c in p.covers[:listed]] for p in positions]
    columns["kinds"] = [[KINDS.index(c.kind) for c in p.covers[:listed]] for p in positions]
    columns["rest"] = [position.rest + len(position.covers[listed:]) for position in positions]
    columns["log_rest"] = [
        _number(log_sum([position.log_rest, *(cover.log_mass for cover in position.covers[listed:])]))
        for position in positions
    ]
    return {
        "facts": _facts(explanation),
        "bins": [bin.label for bin in BINS],
        "kinds": KINDS,
        "positions": columns,
        "students": tables.tokens(students),
        "teachers": tables.tokens(explanation.teacher),
        "blocks": [
            [block.columns, tables.parts(block.students), tables.parts(block.teachers), int(block.newline)]
            for block in blocks(students, explanation.teacher)
        ],
        "ranks": _ranks(explanation),
        "pieces": tables.pieces,
        "entries": tables.entries,
    }


class _Tables:
    """Pieces and covers' tokens, each written once and named by its number."""

    def __init__(self) -> None:
        self.pieces: list[list[tuple[str, str]]] = []
        self.entries: list[list[int]] = []
        self._piece: dict[tuple[bytes, bool], int] = {}
        self._entry: dict[tuple[int, bytes, bytes, bytes], int] = {}

    def piece(self, piece: bytes, chip: bool = False) -> int:
        """Number of a piece, or of what a chip has room for of it."""
        if (piece, chip) not in self._piece:
            runs = clipped(visible(piece), LONGEST) if chip else visible(piece)
            self._piece[piece, chip] = len(self.pieces)
            self.pieces.append([(kind[0], text) for kind, text in runs])
        return self._piece[piece, chip]

    def tokens(self, tokens: Iterable[Token]) -> list[list[int]]:
        """[id, piece, start, end, is end-of-text] of each."""
        return [[t.id, self.piece(t.piece), t.start, t.end, int(t.is_end)] for t in tokens]

    def parts(self, parts: Iterable[Part]) -> list[list[int]]:
        """[token, piece, first column, last column, cut left + 2 · cut right] of each."""
        return [
            [p.token, self.piece(p.piece, chip=True), p.first, p.last, p.cut_left + 2 * p.cut_right]
            for p in parts
        ]

    def cover(self, cover: Cover, student: Token) -> list[Any]:
        """[log mass, entry of each token]."""
        return [_number(cover.log_mass), *(self.entry(token, student) for token in cover.tokens)]

    def entry(self, token: Token, student: Token) -> int:
        """Number of a cover's token: [id, pieces of it before, inside and beyond the student token, is end-of-text]."""
        if token.is_end:
            cuts = b"", token.piece, b""
        else:
            low, high = max(0, student.start - token.start), max(0, student.end - token.start)
            cuts = token.piece[:low], token.piece[low:high], token.piece[high:]
        key = (token.id, *cuts)
        if key not in self._entry:
            self._entry[key] = len(self.entries)
            self.entries.append([token.id, *map(self.piece, cuts), int(token.is_end)])
        return self._entry[key]


def _facts(explanation: Explanation) -> dict[str, Any]:
    bits = explanation.bits_per_byte
    return {
        "total": _number(explanation.total),
        "bounds": [_number(bound) for bound in explanation.total_bounds],
        "bounded": explanation.bounded,
        "bits_per_byte": None if bits is None else _number(bits),
        "bytes": len(explanation.text),
        "rows": explanation.rows,
        "noncanonical": _number(explanation.mean_noncanonical),
        "regime": explanation.regime,
        "reason": explanation.reason,
        "prompt": explanation.prompt,
        "ended": explanation.ended,
    }


def _ranks(explanation: Explanation) -> list[int]:
    """Of each position: 1 for the least likely student token of the text."""
    ranks = [0] * len(explanation.positions)
    for rank, at in enumerate(explanation.least_likely(), 1):
        ranks[at] = rank
    return ranks


def log_sum(logs: list[float]) -> float:
    """Log of the sum of exponentials; −inf for none."""
    top = max(logs)
    return top if top == -math.inf else top + math.log(sum(math.exp(log - top) for log in logs))


def _number(value: float) -> float | None:
    """Nine digits; null for an infinity, which JSON lacks: minus infinity, but for bits per byte."""
    return None if math.isinf(value) else float(f"{value:.9g}")


def _asset(name: str) -> str:
    return resources.files("crosstok.show").joinpath(name).read_text(encoding="utf-8")
