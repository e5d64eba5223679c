"""Teacher rows along trunks, moved to student tokens as they come, and the distributions that this gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from crosstok.masses.aggregator import Aggregator, Block
from crosstok.masses.prefixes import Prefixes
from crosstok.methods.trunk import Trunk
from crosstok.methods.vocabulary import Moves
from crosstok.ragged import IntArray
from crosstok.results import Distributions, Status


class Moved(NamedTuple):
    """A row at a place. target: int64 [k], the student token that each teacher token is taken for, −1 for none.

    mass: float64 [k] on the row's device, what these have, as probabilities. end: that of end-of-text, 0 where teacher
    and student tokens do not end together.
    """

    target: IntArray
    mass: torch.Tensor
    end: float

    def of(self, target: int) -> float:
        """What a student token gets."""
        which = torch.from_numpy(np.flatnonzero(self.target == target)).to(self.mass.device)
        return float(self.mass[which].sum())

    def dense(self, width: int, eos: int) -> tuple[torch.Tensor, float]:
        """What all student tokens get, float64 [width] on the CPU, end-of-text at ``eos``, and what none gets."""
        row = torch.zeros(width + 1, dtype=torch.float64)
        row.index_add_(0, torch.from_numpy(np.where(self.target < 0, width, self.target)), self.mass.cpu())
        row[eos] += self.end
        return row[:width], float(row[width])


# Takes a text, a place of its `Line`, and its row.
See = Callable[[int, int, Moved], None]


class MovedRows:
    """A tap that moves the rows of some places, (text, place), and shows what comes of them."""

    def __init__(self, trunk: Trunk, places: Iterable[tuple[int, int]], moves: Moves, see: See) -> None:
        self._trunk, self._moves, self._see = trunk, moves, see
        self._wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for text, place in places:
            node = int(trunk.plan.node_ptr[text] + trunk.lines[text].node[place])
            self._wanted[node].append((text, place))

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        for row, node in enumerate(block.nodes.tolist()):
            for text, place in self._wanted.get(node, ()):
                line = self._trunk.lines[text]
                move = self._moves.of(line.lead[place], line.begun[place])
                token = torch.from_numpy(move.token).to(block.share.device)
                mass = block.share[row, token].double() * block.log_scale[row].exp()
                end = float(np.exp(aggregator.masses.eos[node])) if line.meets[place] else 0.0
                self._see(text, place, Moved(move.target, mass, end))


class Filler:
    """Fills the dense distributions of a trunk's texts from moved rows; see `Distributions`.

    only_shared: rows are renormalised over what went to student tokens. Otherwise a row is taken as it is where teacher
    and student tokens end together, and elsewhere renormalised over all that has a part in the move. Places without a
    row are all −inf. The undecided mass is what was given to no student token, before any renormalisation over others.
    """

    def __init__(self, trunk: Trunk, width: int, eos: int, only_shared: bool) -> None:
        self._trunk, self._width, self._eos, self._only_shared = trunk, width, eos, only_shared
        self._logs = [torch.full((len(line.node), width), -torch.inf) for line in trunk.lines]
        self._lost = [torch.ones(len(line.node)) for line in trunk.lines]

    def see(self, text: int, place: int, moved: Moved) -> None:
        """What `MovedRows` shows."""
        given, lost = moved.dense(self._width, self._eos)
        total = float(given.sum())
        if not self._trunk.lines[text].meets[place]:
            whole = total + lost
            given, total = (given / whole, total / whole) if whole > 0 else (given, total)
        self._lost[text][place] = min(max(1.0 - total, 0.0), 1.0)
        if self._only_shared and total > 0:
            given = given / total
        self._logs[text][place] = given.log().float()

    def finish(self, prefixes: Prefixes) -> list[Distributions]:
        """All distributions; those after teacher tokens of probability zero are all −inf. prefixes: the trunk's.

        Their status: unsupported where they are all −inf, or come from a node with next to no canonical mass.
        """
        found = []
        for text, line in enumerate(self._trunk.lines):
            node, logs = self._trunk.plan.node_ptr[text] + line.node, self._logs[text]
            logs[torch.from_numpy(np.isneginf(prefixes.log_q[node]))] = -torch.inf
            nothing = np.isneginf(logs.amax(1).numpy()) | prefixes.weak[node]
            status = np.where(nothing, Status.UNSUPPORTED, Status.ESTIMATED).astype(np.uint8)
            found.append(Distributions(line.student_ids, logs, self._lost[text], status=status))
        return found
