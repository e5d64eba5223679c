"""Worlds made up for tests of bounds: decisions by a hash, plans made from them, and sums over all teacher prefixes.

A `World` decides by a hash what teacher prefixes say about student prefixes, so that everything a plan of the general
regime can hold comes up, however tokenizers would have it: whole rows below one another, entries that a plan lists as
undecided although they are not, non-canonical tokens anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

Path = tuple[int, ...]
IN, UNDECIDED, OUT, GIVEN_UP = 1, 0, -1, 2


class World:
    """One text: teacher tokens 1 to ``size`` (0 ends it), its path, where student tokens end, and all decisions.

    ends[i - 1]: how many tokens of the path s_1..s_i takes. Off the path everything is decided after `reach` tokens.
    give_up: the share of decisions that whoever asks does not get. tells: such a one is called given up, not undecided.
    """

    def __init__(
        self, seed: int, size: int = 5, reach: int = 3, give_up: float = 0.0, tells: bool = True
    ) -> None:
        rng = np.random.default_rng([seed, 1])
        self.seed, self.size, self.reach, self.give_up, self.tells = seed, size, reach, give_up, tells
        self.path: Path = tuple(rng.integers(1, size + 1, 5).tolist())
        self.ends = [*sorted(rng.choice(np.arange(1, 5), 2, replace=False).tolist()), 5]
        self._known: dict[tuple[Path, int], int | None] = {}

    def draw(self, *what: int) -> float:
        """A random number in [0, 1) that belongs to integers ≥ −1."""
        return float(np.random.default_rng([self.seed, len(what), *(w + 1 for w in what)]).random())

    def on_path(self, e: Path) -> bool:
        """Whether the text goes on from e."""
        return e == self.path[: len(e)]

    def canonical(self, e: Path, token: int) -> bool:
        """Whether e and a token are a canonical prefix."""
        return self.on_path((*e, token)) or self.draw(10, *e, token) < 0.85

    def complete(self, e: Path) -> bool:
        """Whether a text may end at e."""
        return e == self.path or self.draw(11, *e) < 0.7

    def covers(self, j: int, token: int, i: int) -> bool:
        """Whether a token after the path's first j reaches s_1..s_i: all do at its last token, some before it."""
        end, left = self.ends[i - 1], sum(j < end for end in self.ends[:i])
        return j + 1 == end or (j + 1 < end and token != self.path[j] and self.draw(12, j, token) < 0.6**left)

    def decide(self, e: Path, i: int) -> int | None:
        """What e says about s_1..s_i; None where it has not reached it."""
        if i == 0 or not e:
            return IN if i == 0 else None
        if (e, i) not in self._known:
            above = self.decide(e[:-1], i)
            if above is None and not (self.on_path(e[:-1]) and self.covers(len(e) - 1, e[-1], i)):
                self._known[e, i] = None
            else:
                self._known[e, i] = self._draw_decision(e, i) if above in (None, UNDECIDED) else above
        return self._known[e, i]

    def _draw_decision(self, e: Path, i: int) -> int:
        """Whoever has s_1..s_i has s_1..s_i-1."""
        shorter, x = self.decide(e, i - 1), self.draw(13, i, *e)
        off = next((k for k in range(len(e)) if e[k] != self.path[k]), len(e))
        if self.on_path(e):
            found = UNDECIDED if x < 0.6 and len(e) < len(self.path) else IN
        elif len(e) - off >= self.reach:
            found = IN if x < 0.5 else OUT
        else:
            found = UNDECIDED if x < 0.4 else IN if x < 0.7 else OUT
        return OUT if shorter == OUT else UNDECIDED if (shorter, found) == (UNDECIDED, IN) else found

    def verdict(self, e: Path, i: int) -> int | None:
        """What can be found out of what e says."""
        decision = self.decide(e, i)
        if decision is None or self.draw(17, i, *e) >= self.give_up:
            return decision
        return GIVEN_UP if self.tells else UNDECIDED

    def is_whole(self, e: Path, i: int) -> bool:
        """Whether the row of e, on the path, takes its place: e is undecided, and all above it that has reached s_i."""
        if self.verdict(e, i) != UNDECIDED:
            return False
        return self.decide(e[:-1], i) is None or self.is_whole(e[:-1], i)

    def ends_in(self, e: Path, i: int) -> bool:
        """Whether the text that ends at e has s_1..s_i."""
        if (decision := self.decide(e, i)) != UNDECIDED:
            return decision == IN
        return self.on_path(e) or self.draw(14, *e) < 0.7**i

    def kind(self, e: Path, i: int) -> int:
        """How a plan lists e: 0 in, 1 or 2 undecided, 3 out. It may not know that e is decided."""
        decision, x = self.verdict(e, i) if self.on_path(e) else self.decide(e, i), self.draw(15, i, *e)
        if decision in (UNDECIDED, GIVEN_UP) or (x < 0.2 and not self.on_path(e)):
            return 1 + (self.draw(16, i, *e) < 0.5)
        return 0 if decision == IN else 3


class FakePlan:
    """A plan of worlds, made of what `Plan` says of its arrays."""

    def __init__(self, worlds: list[World]) -> None:
        self.worlds, size = worlds, worlds[0].size
        self.order = np.random.default_rng(size).permutation(np.arange(1, size + 1))
        self.pair = SimpleNamespace(teacher_eos=(0,), student_eos=(0,))
        self.paths: list[tuple[int, Path]] = []
        for text, world in enumerate(worlds):
            self.paths += [(text, world.path[:j]) for j in range(len(world.path) + 1)]
        self.node_text = np.array([text for text, _ in self.paths])
        self.node_token = np.array([(-1, *e)[-1] for _, e in self.paths])
        self.node_parent = np.array([k - 1 if e else -1 for k, (_, e) in enumerate(self.paths)])
        self.node_ptr = np.searchsorted(self.node_text, np.arange(len(worlds) + 1))
        self.node_complete = self._complete(self.paths)
        self.node_depth = np.array([sum(end <= len(e) for end in worlds[t].ends) for t, e in self.paths])
        lengths = [len(world.ends) for world in worlds]
        self.student_ptr = np.concatenate([[0], np.cumsum(lengths)])
        self.student_ids = np.arange(1, sum(lengths) + 1)
        vars(self).update(self._arrays(0, self.paths))

    def __len__(self) -> int:
        return len(self.worlds)

    def masks(self, nodes: Any, width: int, num_threads: int, out: Any) -> Any:
        """As `Plan.masks`."""
        for row, node in zip(out, nodes.tolist(), strict=True):
            text, e = self.paths[node]
            row[:] = [t > 0 and self.worlds[text].canonical(e, t) for t in range(width)]
        return out

    def decide(self, node: Any, token: Any, depth: Any, quick: bool = False, num_threads: int = 0) -> Any:
        """As `Plan.decide`; the quick way finds out what it does not know slowly."""
        at = [(*self.paths[n], t) for n, t in zip(node.tolist(), token.tolist(), strict=True)]
        found = zip(at, depth.tolist(), strict=True)
        return np.array([self.worlds[text].verdict((*e, t), i) for (text, e, t), i in found], dtype=np.int8)

    def extend(self, node: Any, token: Any, num_threads: int) -> Any:
        """As `Plan.extend`."""
        first = len(self.paths)
        parents = [self.paths[n] for n in node.tolist()]
        new = [(text, (*e, t)) for (text, e), t in zip(parents, token.tolist(), strict=True)]
        self.paths += new
        texts = np.array([text for text, _ in new])
        extension = SimpleNamespace(first=first, node_parent=node, node_token=token, node_text=texts)
        extension.node_complete = self._complete(new)
        vars(extension).update(self._arrays(first, new))
        return extension

    def _complete(self, paths: list[tuple[int, Path]]) -> Any:
        return np.array([self.worlds[text].complete(e) for text, e in paths])

    def _arrays(self, first: int, paths: list[tuple[int, Path]]) -> dict[str, Any]:
        """Ranges and whole rows."""
        ranges, wholes = [], []
        for node, (text, e) in enumerate(paths, first):
            world = self.worlds[text]
            for i, end in enumerate(world.ends, 1):
                if world.on_path(e) and len(e) < end:
                    kinds = [self._direct(world, e, t, i) for t in self.order.tolist()]
                elif world.is_whole(e, i) if world.on_path(e) else world.verdict(e, i) == UNDECIDED:
                    kinds = [self.below(world, (*e, t), i) for t in self.order.tolist()]
                    wholes.append((node, i, world.ends_in(e, i)))
                else:
                    continue
                ranges += [(node, lo, hi, i, kind) for lo, hi, kind in _runs(kinds)]
        names = ("range_node", "range_first", "range_last", "range_depth", "range_kind")
        columns = np.array(ranges, dtype=np.int64).reshape(-1, 5).T.copy()
        arrays: dict[str, Any] = dict(zip(names, columns, strict=True))
        arrays["range_kind"] = arrays["range_kind"].astype(np.int8)
        whole = np.array(wholes, dtype=np.int64).reshape(-1, 3).T.copy()
        return arrays | {"whole_node": whole[0], "whole_depth": whole[1], "whole_end": whole[2].astype(bool)}

    @staticmethod
    def _direct(world: World, e: Path, token: int, i: int) -> int:
        """The kind of a token that crosses the position; −1 where none is listed."""
        if not world.covers(len(e), token, i):
            return -1
        kind = FakePlan.below(world, (*e, token), i)
        return -1 if kind == 3 else 0 if kind == -1 else kind

    @staticmethod
    def below(world: World, e: Path, i: int) -> int:
        """The kind of an entry of a whole row: what is in is not listed (−1), what has a row of its own is out."""
        if world.on_path(e) and world.is_whole(e, i):
            return 3
        kind = world.kind(e, i)
        return -1 if kind == 0 else kind


def _runs(kinds: list[int]) -> Iterator[tuple[int, int, int]]:
    lo = 0
    for hi in range(1, len(kinds) + 1):
        if hi == len(kinds) or kinds[hi] != kinds[lo]:
            if kinds[lo] >= 0:
                yield lo, hi, kinds[lo]
            lo = hi


class Truth:
    """P and what was removed, by following every teacher prefix until it is decided."""

    def __init__(self, world: World, fn: Callable[[Path], Any], mode: str) -> None:
        self.world, self.fn, self.mode = world, fn, mode
        self.row = cache(self._row)

    def _row(self, e: Path) -> tuple[dict[int, float], float, float]:
        """q of each token, q of end-of-text, and the mass that was removed."""
        world, p = self.world, np.exp(self.fn((9, *e)))
        kept = {t: float(p[t]) for t in range(1, world.size + 1) if world.canonical(e, t)}
        eos = float(p[0]) if world.complete(e) else 0.0
        mass = math.fsum([*kept.values(), eos])
        scale = 1.0 if self.mode == "mask" else 1.0 / mass if mass > 0 else 0.0
        return {t: x * scale for t, x in kept.items()}, eos * scale, 1.0 - mass

    def covers(self, i: int) -> Iterator[tuple[float, float]]:
        """The weight of each cover of s_1..s_i, and what was removed at the node from which it crosses."""
        q = 1.0
        for j in range(self.world.ends[i - 1]):
            row, _, removed = self.row(self.world.path[:j])
            for t, x in row.items():
                if self.world.covers(j, t, i):
                    yield from self._below((*self.world.path[:j], t), i, q * x, removed)
            q *= row[self.world.path[j]]

    def _below(self, e: Path, i: int, q: float, removed: float) -> Iterator[tuple[float, float]]:
        decision = self.world.decide(e, i)
        if decision == IN:
            yield q, removed
        elif decision == UNDECIDED:
            row, eos, lost = self.row(e)
            if self.world.ends_in(e, i):
                yield q * eos, lost
            for t, x in row.items():
                yield from self._below((*e, t), i, q * x, lost)

    def prefixes(self) -> tuple[Any, Any]:
        """log P(s_1..s_i), i = 1..n, and the mean of what was removed."""
        found = [list(self.covers(i)) for i in range(1, len(self.world.ends) + 1)]
        p = np.array([math.fsum(q for q, _ in covers) for covers in found])
        removed = np.array([math.fsum(q * lost for q, lost in covers) for covers in found])
        return np.log(p), removed / p
