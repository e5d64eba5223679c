"""The ways to distributions that `compare.py` compares: each is a `Scorer` with certain options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import crosstok as ct
from crosstok.distributions.expansion import ORDERS

# What `--only` takes, in the order in which figures come.
PARTS = ("closing", "tolerances", "orders", "unbiased", "beam", "bpm", "strict_1to1")
DRAWS = (1, 4)


@dataclass(frozen=True, eq=False)
class Way:
    """One way. part: of `PARTS`. options: a `Scorer`'s, one set for each seed of what is drawn, else one.

    whole: it has distributions, not only labels. own_labels: its label's probability is not that of its distribution,
    and comes from `Scorer.score`.
    """

    part: str
    name: str
    options: tuple[Mapping[str, Any], ...]
    whole: bool = True
    own_labels: bool = False

    @property
    def certified(self) -> bool:
        """Whether its undecided mass bounds its total variation from the truth (without a correction)."""
        return self.part in ("closing", "tolerances", "orders", "unbiased")

    def scorers(self, teacher: ct.HFTeacher, pair: ct.Pair) -> list[ct.Scorer]:
        """A scorer for each seed."""
        return [ct.Scorer(teacher, pair, **options) for options in self.options]


@dataclass(frozen=True)
class Choice:
    """Which ways. tolerances: each with at most ``max_rows`` further rows a position.

    budgets: rows of the orderings; tight: a tolerance that hardly any position meets with so few. seeds: how often what
    is random is drawn.
    """

    parts: Sequence[str]
    tolerances: Sequence[float]
    max_rows: int
    budgets: Sequence[int]
    tight: float
    seeds: int

    def ways(self) -> list[Way]:
        """All of them."""
        return [way for part in PARTS if part in self.parts for way in self._of(part)]

    def _of(self, part: str) -> Iterator[Way]:
        if part == "closing":
            yield Way(part, "closing estimate", ({},))
        elif part == "tolerances":
            for tolerance in self.tolerances:
                options = {"tolerance": tolerance, "max_rows": self.max_rows}
                yield Way(part, f"tolerance {tolerance:g}", (options,))
        elif part == "orders":
            for rows in self.budgets:
                yield from (self._ordered(order, rows) for order in ORDERS)
        elif part == "unbiased":
            yield from (self._drawn(draws) for draws in DRAWS)
        else:
            whole = part != "beam"
            yield Way(part, part, ({"method": part},), whole, own_labels=part != "bpm")

    def _drawn(self, draws: int) -> Way:
        seeds = range(self.seeds)
        options = tuple(
            {"method": "unbiased", "method_options": {"draws": draws, "seed": seed}} for seed in seeds
        )
        return Way("unbiased", f"unbiased, {draws} draw{'s' * (draws > 1)}", options)

    def _ordered(self, order: str, rows: int) -> Way:
        options = {"tolerance": self.tight, "max_rows": rows, "method_options": {"order": order}}
        return Way("orders", f"{order}, {rows} row{'s' * (rows > 1)}", (options,))
