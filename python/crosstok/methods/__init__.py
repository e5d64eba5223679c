"""What others do in place of `method="auto"`, to be compared with: approximations, and the paper's recursion.

`open` gives the method of a name. "strict_1to1" (one_to_one.py) and "bpm" (byte_prefixes.py) read nothing but the rows
along the teacher's own encoding (trunk.py), and go by the bytes of tokens (vocabulary.py, moved_rows.py). "beam"
(beam.py) grows a plan's trees as far as its beam goes. "recursion" (merge_recursion.py) is exact or refuses. "unbiased"
(unbiased.py, drawn.py, sampling.py) is the estimate of "auto" with a sampled correction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Protocol

from crosstok.methods.beam import Beam
from crosstok.methods.byte_prefixes import BytePrefixes
from crosstok.methods.merge_recursion import MergeRecursion
from crosstok.methods.one_to_one import OneToOne
from crosstok.methods.unbiased import Unbiased
from crosstok.pair import Pair
from crosstok.reading import Reading
from crosstok.requests import Request
from crosstok.results import Distributions, Score

__all__ = ["CERTIFIED", "METHODS", "Method", "open"]


class Method(Protocol):
    """One way to the teacher's probabilities of student tokens. Errors name a text by its index in its batch."""

    def score(self, batch: Sequence[Request]) -> list[Score]:
        """As `Scorer.score`; without bounds where the method has none: lower −inf, upper 0. Scores have no source."""

    def distributions(self, batch: Sequence[Request], top_k: int | None = None) -> list[Distributions]:
        """As `Scorer.distributions`. Raises PlanError, naming the method, where it has none, or no sparse ones."""


METHODS: dict[str, Callable[..., Method]] = {
    "beam": Beam,
    "strict_1to1": OneToOne,
    "bpm": BytePrefixes,
    "recursion": MergeRecursion,
    "unbiased": Unbiased,
}
# Whose `Distributions.undecided_mass` bounds how far off they are; that of others is what they give to no token.
CERTIFIED = ("auto", "unbiased")


def check_name(name: str) -> None:
    """Raise ValueError for a name that is none of `METHODS`."""
    if name not in METHODS:
        raise ValueError(f"no method {name!r}, only {', '.join(map(repr, ('auto', *METHODS)))}")


def open(name: str, reading: Reading, pair: Pair, width: int, /, **options: Any) -> Method:
    """The method of a name. width: of the student's logits. options: "beam": beam_width, beam_length, beam_floor;
    "recursion": budget; "unbiased": draws, seed, max_steps, row_share.

    Raises ValueError for a name that is none of `METHODS`, for an option that the method does not have, and for a value
    that the option cannot have.
    """
    check_name(name)
    method: Any = METHODS[name]
    known = {field.name: field.type for field in fields(method) if field.init}
    for option, value in options.items():
        if option not in known or option in ("reading", "pair", "width"):
            raise ValueError(f"method {name!r} has no option {option!r}")
        kind = Integral if known[option] in ("int", int) else Real
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "a whole number" if kind is Integral else "a number"
            raise ValueError(f"option {option!r} of method {name!r} is {wanted}, not {value!r}")
    opened: Method = method(reading, pair, width, **options)
    return opened
