"""What is shown of one scored text: plain values, no models and no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["in", "likely", "unlikely", "partly"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token where it stands: bytes ``start`` to ``end`` of what the tokens spell (a dummy prefix is spelled too).

    An end-of-text token (``is_end``) spells nothing there; its ``piece`` is its content.
    """

    id: int
    piece: bytes
    start: int
    end: int
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class Cover:
    """A relative cover of s_1..s_i: the teacher's tokens after the position's ``trunk``, and q of the whole path.

    log_mass: log q in nats. share: of all covers (`Position.log_covers`), 0 where that is 0. kind: "in": what starts
    with its tokens has s_1..s_i. In the regime "general" a cover may also leave that open: "likely" or "unlikely", as
    it would be if the text ended there; or it is "partly" in: the mass, and the share, are of all that may follow its
    tokens but what is listed as a cover of its own or is out. (It has no tokens where s_1 is a dummy prefix.)
    """

    tokens: tuple[Token, ...]
    log_mass: float
    share: float
    kind: Kind = "in"


@dataclass(frozen=True, slots=True)
class Position:
    """Student token s_i and the covers of s_1..s_i. Logarithms in nats; fields named as in `crosstok.Score`.

    trunk: how many of the text's canonical teacher tokens all listed covers begin with; a cover's tokens follow
    them, from where the student token starts or where a listed cover leaves the canonical encoding. covers: the
    largest ones, falling. rest: how many others there are, with log_rest of mass together (−inf: none). log_covers:
    all of them together: P(s_1..s_i) where none is likely or unlikely, else what rows of the plan bound it by.
    """

    token: Token
    logprob: float
    lower: float
    upper: float
    prefix_lower: float
    prefix_upper: float
    noncanonical_mass: float
    inadmissible_mass: float
    rows: int
    status: str
    trunk: int
    covers: tuple[Cover, ...]
    rest: int
    log_rest: float
    log_covers: float

    @property
    def bounded(self) -> bool:
        """Whether the probability is only known between bounds."""
        return self.lower != self.upper


@dataclass(frozen=True, slots=True)
class Explanation:
    """One text, token by token.

    text: its bytes. prompt: how many teacher ids it follows, None where it starts a document. regime, reason: of the
    pair. teacher: the canonical encoding, with end-of-text where the text is ended.
    """

    text: bytes
    prompt: int | None
    ended: bool
    regime: str
    reason: str
    positions: tuple[Position, ...]
    teacher: tuple[Token, ...]

    @property
    def total(self) -> float:
        """Log P of the text in nats; its estimate where bounds differ (only without end-of-text)."""
        low, high = self.total_bounds
        return low if low == high else sum(position.logprob for position in self.positions)

    @property
    def total_bounds(self) -> tuple[float, float]:
        """Bounds of log P of the text."""
        if not self.positions:
            return 0.0, 0.0
        return self.positions[-1].prefix_lower, self.positions[-1].prefix_upper

    @property
    def bounded(self) -> bool:
        """Whether any position is only known between bounds."""
        return any(position.bounded for position in self.positions)

    @property
    def bits_per_byte(self) -> float | None:
        """Code length in bits over the text's bytes; None without text."""
        return -self.total / math.log(2) / len(self.text) if self.text else None

    @property
    def rows(self) -> int:
        """Teacher rows spent."""
        return sum(position.rows for position in self.positions)

    @property
    def mean_noncanonical(self) -> float:
        """Mean over the positions of the non-canonical mass."""
        masses = [position.noncanonical_mass for position in self.positions]
        return sum(masses) / len(masses) if masses else 0.0

    def path(self, index: int, cover: Cover) -> tuple[int, ...]:
        """All teacher ids of a cover that position ``index`` (0 for s_1) lists."""
        trunk = self.teacher[: self.positions[index].trunk]
        return tuple(token.id for token in (*trunk, *cover.tokens))

    def least_likely(self) -> list[int]:
        """Indices of the positions, the least likely student token first."""
        return sorted(range(len(self.positions)), key=lambda i: self.positions[i].logprob)
