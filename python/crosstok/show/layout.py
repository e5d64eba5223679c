"""Which tokens stand over which: two encodings of the same bytes, cut into blocks that fit on a line."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from crosstok.show.explanation import Token
from crosstok.show.pieces import clipped, visible

# A block is cut where it gets wider than this, in characters; a token of its own costs two more for its edges.
WIDTH = 48
EDGES = 2
# Characters that a chip has room for; of a longer token it shows both ends.
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Part:
    """What of a token stands in a block: bytes of its piece, over columns ``first`` to ``last`` (exclusive)."""

    token: int
    piece: bytes
    first: int
    last: int
    cut_left: bool = False
    cut_right: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Student tokens and the teacher's beneath them, in common columns; student tokens are never cut.

    newline: the bytes hold a line break, so the next block starts a line.
    """

    columns: int
    students: tuple[Part, ...]
    teachers: tuple[Part, ...]
    newline: bool


def blocks(students: Sequence[Token], teachers: Sequence[Token]) -> list[Block]:
    """Cut where a student's and a teacher's boundary meet, and else at a student boundary where a block gets too wide.

    Both spell the same bytes. End-of-text, which spells none, has a block of its own.
    """
    below = [token for token in teachers if not token.is_end]
    ends = {token.end for token in below}
    found, first, width = [], 0, 0
    own = [token for token in students if not token.is_end]
    for at, token in enumerate(own):
        width += EDGES + sum(len(text) for _, text in clipped(visible(token.piece), LONGEST))
        if token.end in ends or width > WIDTH:
            found.append(_block(own, range(first, at + 1), below))
            first, width = at + 1, 0
    if len(own) < len(students):
        end = Part(len(own), students[-1].piece, 0, 1)
        found.append(Block(1, (end,), (Part(len(below), teachers[-1].piece, 0, 1),), False))
    return found


def _block(students: Sequence[Token], which: range, teachers: Sequence[Token]) -> Block:
    # Before the first token either side may begin earlier, with a dummy prefix that the other has not.
    start, end = students[which[0]].start if which[0] else 0, students[which[-1]].end
    low = bisect_right(teachers, start, key=lambda token: token.end)
    high = low
    while high < len(teachers) and teachers[high].start < end:
        high += 1
    over = [students[at] for at in which]
    under = teachers[low:high]
    inside = (edge for t in (*over, *under) for edge in (t.start, t.end) if start < edge < end)
    edges = sorted({start, end, *inside})
    column = {edge: at for at, edge in enumerate(edges)}
    parts = []
    for at, token in enumerate(under, low):
        left, right = max(token.start, start), min(token.end, end)
        piece = token.piece[left - token.start : right - token.start]
        cut = token.start < start, token.end > end
        parts.append(Part(at, piece, column[left], column[right], *cut))
    return Block(
        columns=len(edges) - 1,
        students=tuple(
            Part(at, token.piece, column[token.start], column[token.end])
            for at, token in zip(which, over, strict=True)
        ),
        teachers=tuple(parts),
        newline=any(b"\n" in token.piece for token in over),
    )
