"""Tokens sampled from teacher rows while they stream by, each text from a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch

from crosstok.distributions.closing import ClosingCollector
from crosstok.masses.aggregator import Aggregator, Block, expand
from crosstok.masses.nodes import Nodes
from crosstok.masses.undecided import log_masses
from crosstok.pair import Plan
from crosstok.ragged import FloatArray, IntArray
from crosstok.requests import Request

# Outcomes beside tokens: the text ends, and mass that the row does not have, or that no token has.
ENDED, LOST = -1, -2


def stream_of(seed: int, request: Request, prompt: Sequence[int]) -> np.random.Generator:
    """Random numbers that depend on the seed, a text and its prompt, and on nothing else. prompt: teacher ids."""
    text = request.text if isinstance(request.text, bytes) else request.text.encode()
    begins = request.prompt is None
    head = f"{seed} {begins} {' '.join(map(str, prompt))}\n".encode()
    key = int.from_bytes(blake2b(head + text, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key))


def uniforms(streams: Sequence[np.random.Generator], counts: Sequence[int], draws: int) -> FloatArray:
    """float64 [sum of counts, draws]: numbers in [0, 1) for so many things of each text."""
    drawn = [stream.random((count, draws)) for stream, count in zip(streams, counts, strict=True)]
    return np.concatenate([np.zeros((0, draws)), *drawn])


class LightTokens:
    """Samples light tokens of every row of a plan: those below ``row_share`` that are canonical and do not end a text.

    uniform: float64 [nodes, draws]. mass: float64 [nodes], what the light tokens have, after the node. token: int64
    [nodes, draws], −1 where nothing is light.
    """

    def __init__(self, plan: Plan, row_share: float, uniform: FloatArray) -> None:
        self.plan, self.row_share, self.uniform = plan, row_share, uniform
        self.mass: FloatArray = np.zeros(len(uniform))
        self.token: IntArray = np.full(uniform.shape, -1, dtype=np.int64)

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        if not self.row_share:
            return
        scale = block.log_scale.exp()[:, None]
        # The same comparison as `HeavyTap` makes, so that each token is either heavy or light.
        light = block.share.masked_fill(block.share >= (self.row_share / scale).to(block.share.dtype), 0)
        light[:, list(self.plan.pair.teacher_eos)] = 0
        running = light.double().cumsum(dim=1)
        total = running[:, -1:]
        wanted = torch.from_numpy(self.uniform[block.nodes]).to(total.device) * total
        found = torch.where(total > 0, _places(running, wanted), -1)
        self.token[block.nodes] = found.cpu().numpy()
        self.mass[block.nodes] = (total * scale).flatten().cpu().numpy()


class RangeTokens:
    """Samples of every range beyond a student token those that carry too little of it to be looked up.

    uniform: float64 [ranges, draws], of `ClosingCollector.ranges`. mass: float64 [ranges], what there is to sample,
    after the node. token: int64 [ranges, draws], −1 where there is nothing.
    """

    def __init__(self, plan: Plan, collector: ClosingCollector, uniform: FloatArray) -> None:
        self.plan, self.collector, self.ranges, self.uniform = plan, collector, collector.ranges, uniform
        self.mass: FloatArray = np.zeros(len(uniform))
        self.token: IntArray = np.full(uniform.shape, -1, dtype=np.int64)

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows, after the collector."""
        if self.collector.row_share:
            ptr = self.collector.range_ptr
            rows, ranges = expand(ptr[block.nodes], ptr[block.nodes + 1])
            for row, index in zip(rows.tolist(), ranges.tolist(), strict=True):
                self._sample(block, row, index)

    def _sample(self, block: Block, row: int, index: int) -> None:
        order = self.plan.order[self.ranges.places(index)]
        # The same numbers as the collector compares, so that each token is either heavy or light.
        log_mass = log_masses(block, np.full(len(order), row), order)
        heavy = self.collector.is_heavy(log_mass, np.full(len(order), self.collector.range_total[index]))
        share = block.share[row, torch.from_numpy(order).to(block.share.device)].double()
        running = share.masked_fill(torch.from_numpy(heavy).to(share.device), 0).cumsum(0)[None]
        if len(order) and running[0, -1] > 0:
            wanted = torch.from_numpy(self.uniform[index]).to(running.device)[None] * running[:, -1:]
            self.token[index] = order[_places(running, wanted)[0].cpu().numpy()]
            self.mass[index] = float(running[0, -1] * block.log_scale[row].exp())


class NextTokens:
    """Samples what follows new nodes. uniform: float64 [nodes, m], NaN for nothing to sample.

    outcome: int64 [nodes, m], tokens, `ENDED` or `LOST`.
    """

    def __init__(self, nodes: Nodes, uniform: FloatArray) -> None:
        self.nodes, self.uniform = nodes, uniform
        self.outcome: IntArray = np.full(uniform.shape, LOST, dtype=np.int64)

    def add(self, aggregator: Aggregator, block: Block) -> None:
        """Take in a block of rows."""
        at = block.nodes - self.nodes.first
        running = block.share.double().cumsum(dim=1)
        total = running[:, -1:]
        # Without renormalisation what a row lacks is lost.
        whole = total if aggregator.canonical == "renormalize" else (-block.log_scale).exp()[:, None]
        wanted = torch.from_numpy(np.nan_to_num(self.uniform[at])).to(total.device) * whole
        lost = (total == 0) | (wanted >= total) & (aggregator.canonical != "renormalize")
        found = torch.where(lost, LOST, _places(running, wanted)).cpu().numpy()
        found[np.isin(found, self.nodes.plan.pair.teacher_eos)] = ENDED
        self.outcome[at] = found


def _places(running: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """int64 [k, m]: where running sums, float64 [k, V], first exceed what is wanted, float64 [k, m]."""
    # Rounding may make the product of a number below 1 and the total the total itself.
    below = torch.nextafter(running[:, -1:], torch.zeros_like(running[:, -1:]))
    found = torch.searchsorted(running, torch.minimum(wanted, below), right=True)
    return found.clamp(max=running.shape[1] - 1)
