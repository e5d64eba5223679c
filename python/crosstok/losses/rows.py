"""The divergence of each row, as autograd functions that keep nothing of the size of the logits.

All read the logits in blocks of rows, forward and once more backward: beside logits and targets, and the gradient of
the logits in their dtype, there are only some blocks of `BLOCK_ENTRIES` numbers. What is computed is float32, whatever
the logits are (float64 if they are).

With z the logits divided by the temperature, q = softmax(z) and p the teacher, the gradient of Σ p log(p / q) in z is
q - p, since p sums to 1. With a rest, where only the sum P of p and the sum Q of q over the tokens R that are not kept
enter, it is q - p for kept tokens and q - P·q / Q for those in R. Of −Σ m log q, m any numbers, it is q·Σ m - m.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Numbers in a block: 64 MB of float32.
BLOCK_ENTRIES = 1 << 24


class DenseRows(Function):
    """Σ_v p_v log(p_v / q_v) of whole rows, float [R].

    Inputs: logits [M, W]; at, int64 [R], the rows of logits that count, none twice; logprobs [N, W'] with W' <= W, not
    normalised, tokens beyond W' have no probability; of, int64 [R], the row of logprobs for each, none of them all
    −inf; temperature. Entries where p is 0 count 0, whatever q is.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        at: torch.Tensor,
        logprobs: torch.Tensor,
        of: torch.Tensor,
        temperature: float,
    ) -> torch.Tensor:
        """float [R]."""
        dtype = working_dtype(logits)
        out = torch.empty(len(at), dtype=dtype, device=logits.device)
        norms = torch.empty_like(out)
        for block in _blocks(len(at), logits.shape[1]):
            z = _scaled(logits, at[block], temperature)
            log_p = _teacher(logprobs, of[block], dtype)
            norms[block] = z.logsumexp(1)
            p = log_p.exp()
            terms = log_p.sub_(z[:, : p.shape[1]]).add_(norms[block, None]).mul_(p)
            out[block] = terms.masked_fill_(p == 0, 0).sum(1)
        ctx.save_for_backward(logits, at, logprobs, of, norms)
        ctx.temperature = temperature
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """(q - p) · slope / temperature."""
        logits, at, logprobs, of, norms = ctx.saved_tensors
        grad = torch.zeros_like(logits)
        for block in _blocks(len(at), logits.shape[1]):
            z = _scaled(logits, at[block], ctx.temperature)
            q = z.sub_(norms[block, None]).exp_()
            p = _teacher(logprobs, of[block], q.dtype).exp_()
            q[:, : p.shape[1]] -= p
            q *= slope[block, None] / ctx.temperature
            grad.index_copy_(0, at[block], q.to(grad.dtype))
        return grad, None, None, None, None


class SparseRows(Function):
    """Σ_v p_v log(p_v / q_v) over the kept tokens of each row, and P log(P / Q) for the rest: float [R].

    Inputs: logits [M, W]; at, int64 [R], the rows of logits that count, none twice; row, ids, int64 [entries], in which
    of the R rows, rising, which token; logp, float [entries]; rest_logp, float [R], log P; temperature. Q is summed
    over the tokens that are not kept, not taken from 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        at: torch.Tensor,
        row: torch.Tensor,
        ids: torch.Tensor,
        logp: torch.Tensor,
        rest_logp: torch.Tensor,
        temperature: float,
    ) -> torch.Tensor:
        """float [R]."""
        dtype = working_dtype(logits)
        logp, rest_logp = logp.to(dtype), rest_logp.to(dtype)
        norms, rests = torch.empty_like(rest_logp), torch.empty_like(rest_logp)
        kept = torch.empty_like(logp)
        for block, entries in _entry_blocks(row, len(at), logits.shape[1]):
            z = _scaled(logits, at[block], temperature)
            where = (row[entries] - block.start, ids[entries])
            norms[block] = z.logsumexp(1)
            kept[entries] = z[where]
            z[where] = -torch.inf
            rests[block] = z.logsumexp(1)
        out = _term(rest_logp, rests, norms)
        out.index_add_(0, row, _term(logp, kept, norms[row]))
        ctx.save_for_backward(logits, at, row, ids, logp, rest_logp, norms, rests)
        ctx.temperature = temperature
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """(q - p) · slope / temperature at kept tokens, (q - P·q / Q) · slope / temperature at the others."""
        logits, at, row, ids, logp, rest_logp, norms, rests = ctx.saved_tensors
        grad = torch.zeros_like(logits)
        # log(P / Q) + log(sum of exp(z)); no other token has probability: nothing to push up or down.
        shift = torch.where((rest_logp > -torch.inf) & (rests > -torch.inf), rest_logp - rests, -torch.inf)
        for block, entries in _entry_blocks(row, len(at), logits.shape[1]):
            z = _scaled(logits, at[block], ctx.temperature)
            where = (row[entries] - block.start, ids[entries])
            q = (z - norms[block, None]).exp_()
            at_kept = q[where] - logp[entries].exp()
            q -= z.add_(shift[block, None]).exp_()
            q[where] = at_kept
            q *= slope[block, None] / ctx.temperature
            grad.index_copy_(0, at[block], q.to(grad.dtype))
        return grad, None, None, None, None, None, None


class MovedRows(Function):
    """−Σ m log q(v) over some tokens v of each row, where m may have any sign and any sum: float [R].

    Inputs: logits [M, W]; at, int64 [R], the rows of logits that count, none twice; row, ids, int64 [entries], in any
    order, the same ones any number of times; mass, float [entries], m; temperature. A token that the student gives no
    probability costs what p·log(p / q) does: +inf where m > 0, nothing where m < 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        at: torch.Tensor,
        row: torch.Tensor,
        ids: torch.Tensor,
        mass: torch.Tensor,
        temperature: float,
    ) -> torch.Tensor:
        """float [R]."""
        dtype = working_dtype(logits)
        norms = torch.empty(len(at), dtype=dtype, device=logits.device)
        for block in _blocks(len(at), logits.shape[1]):
            norms[block] = _scaled(logits, at[block], temperature).logsumexp(1)
        mass = mass.to(dtype)
        log_q = logits[at[row], ids].to(dtype) / temperature - norms[row]
        terms = (-mass * log_q).masked_fill_(log_q.isneginf() & (mass <= 0), 0)
        out = torch.zeros_like(norms).index_add_(0, row, terms)
        ctx.save_for_backward(logits, at, row, ids, mass, norms)
        ctx.temperature = temperature
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """(q·Σ m - m) · slope / temperature."""
        logits, at, row, ids, mass, norms = ctx.saved_tensors
        grad = torch.zeros_like(logits)
        total = torch.zeros_like(norms).index_add_(0, row, mass)
        for block in _blocks(len(at), logits.shape[1]):
            q = _scaled(logits, at[block], ctx.temperature).sub_(norms[block, None]).exp_()
            q *= total[block, None]
            mine = (row >= block.start) & (row < block.stop)
            where = (row[mine] - block.start, ids[mine])
            q.index_put_(where, -mass[mine], accumulate=True)
            q *= slope[block, None] / ctx.temperature
            grad.index_copy_(0, at[block], q.to(grad.dtype))
        return grad, None, None, None, None, None


def working_dtype(logits: torch.Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def row_sums(logprobs: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """float [k]: what some rows, int64 [k], of log-probabilities sum to; float64 for float64."""
    sums = torch.empty(len(of), dtype=working_dtype(logprobs), device=logprobs.device)
    for block in _blocks(len(of), logprobs.shape[1]):
        sums[block] = logprobs[of[block]].to(sums.dtype).logsumexp(1).exp()
    return sums


def _scaled(logits: torch.Tensor, at: torch.Tensor, temperature: float) -> torch.Tensor:
    """A copy of some rows, divided by the temperature."""
    rows = logits[at].to(working_dtype(logits))
    return rows if temperature == 1 else rows.div_(temperature)


def _teacher(logprobs: torch.Tensor, of: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy of some rows, normalised."""
    rows = logprobs[of].to(dtype)
    return rows.sub_(rows.logsumexp(1, keepdim=True))


def _term(log_p: torch.Tensor, z: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """p log(p / q), exactly 0 where p is 0; log q = z - norm."""
    p = log_p.exp()
    return (p * (log_p - z + norm)).masked_fill_(p == 0, 0)


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of so many rows that a block has no more than `BLOCK_ENTRIES` numbers, or is one row."""
    step = max(1, BLOCK_ENTRIES // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _entry_blocks(row: torch.Tensor, rows: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The same, each with its entries."""
    blocks = list(_blocks(rows, width))
    ends = torch.tensor([block.stop for block in blocks], device=row.device)
    first = 0
    for block, last in zip(blocks, torch.searchsorted(row, ends).tolist(), strict=True):
        yield block, slice(first, last)
        first = last
