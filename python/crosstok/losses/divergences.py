"""Forward KL, over whole rows or over the tokens that are kept, and its mixture with cross-entropy.

Conventions, as in Hugging Face's losses: a label of -100 is a position that is ignored; with ``num_items_in_batch`` the
sum over positions is divided by it (so that accumulated gradients are those of one large batch), else by the number of
positions that count. Labels are not shifted here: the label of a position is the token that its logits predict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch

from crosstok.losses.batch import IGNORED, DenseBatch, SparseBatch, TargetBatch
from crosstok.losses.rows import DenseRows, MovedRows, SparseRows, row_sums

Targets = torch.Tensor | DenseBatch | SparseBatch
UndecidedWeight = Literal["none", "linear"]


def forward_kl(
    logits: torch.Tensor,
    targets: Targets,
    labels: torch.Tensor | None = None,
    *,
    num_items_in_batch: int | torch.Tensor | None = None,
    temperature: float = 1.0,
    undecided_weight: UndecidedWeight = "none",
) -> torch.Tensor:
    """The mean over positions of Σ_v p(v) log(p(v) / q(v)), p the teacher and q the student: a scalar, in nats.

    logits: [N, width], or [texts, T, width] for targets that were collated with ``starts``; any floating dtype, the
    result is float32 (float64 for float64). targets: a batch of `collate`, or a tensor of log-probabilities of the
    logits' shape, but for fewer columns (tokens beyond them have no probability). labels: ids, of the shape of the
    logits without their last dimension: for each logit the token *after* it (nothing is shifted in here, unlike in
    transformers' losses); where -100, the position is ignored. None: every row of the targets counts.

    Rows of the teacher are normalised: what is inadmissible is nobody's, and the teacher's own rows as logits give 0.
    Rows that are all −inf (the text before them has probability zero) are ignored. Where p is 0 a token adds exactly 0.
    In rows that are cut to some tokens the others count as one: a lower bound of the whole divergence.

    Targets with a `Correction` (method "unbiased") add −Σ mass · (log q(given to) − log q(taken from)), so that the
    gradient is that of the corrected rows; corrected rows may be negative, and the value may be so too.

    temperature: divides the student's logits; the teacher's is chosen when targets are made (`Scorer`), and no factor
    makes up for it. undecided_weight: "linear" counts each position by 1 minus its undecided mass, of the sum, not of
    the number that it is divided by; "none", the default, leaves the objective as it is: most estimates of undecided
    mass are right. Without any position the loss is 0, and so is its gradient.

    Memory: the gradient, beside that only blocks of 64 MB. Raises ValueError where shapes, labels or options do not
    fit, for labels that are other tokens than those of the targets, and for a negative ``num_items_in_batch``;
    TypeError for targets that were not collated.
    """
    rows = _Rows.of(logits, targets, labels)
    return _mean(rows.divergence(temperature, undecided_weight), num_items_in_batch)


def partial_kl(
    logits: torch.Tensor,
    targets: Targets,
    labels: torch.Tensor | None = None,
    *,
    cross_entropy_weight: float = 1.0,
    num_items_in_batch: int | torch.Tensor | None = None,
    temperature: float = 1.0,
    undecided_weight: UndecidedWeight = "none",
) -> torch.Tensor:
    """`forward_kl` + ``cross_entropy_weight`` · cross-entropy with the labels: what arXiv 2512.14954 trains with.

    There targets are the largest entries of a row and a rest (`SparseTargets`, or `collate` with ``top_k``); whole rows
    do as well. The default weight, 1, is that of the paper's released training. Labels: those given, else the
    targets' (where both have one it is the same); where there is none (-100) a position has no cross-entropy, and only
    where -100 was *given* no divergence either. Each of the two is a mean over its own positions, or both are divided
    by ``num_items_in_batch``. Temperature and undecided mass are no concern of the labels, which are not the teacher's.

    Otherwise as `forward_kl`. Raises ValueError without labels as well, unless the weight is 0.
    """
    rows = _Rows.of(logits, targets, labels)
    loss = _mean(rows.divergence(temperature, undecided_weight), num_items_in_batch)
    if cross_entropy_weight == 0:
        return loss
    return loss + cross_entropy_weight * _mean(rows.cross_entropy(), num_items_in_batch)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Logits [M, width] and what they are compared with.

    at, int64 [N]: the row of logits for each row of the targets. labels: int64 [N], or None. ignored: bool [N].
    targets: rows [N, width'], or a batch.
    """

    logits: torch.Tensor
    targets: Targets
    at: torch.Tensor
    labels: torch.Tensor | None
    ignored: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, targets: Targets, labels: torch.Tensor | None) -> _Rows:
        """Flatten, and refuse what does not fit."""
        if not isinstance(targets, (torch.Tensor, TargetBatch)):
            raise TypeError(
                f"targets must be a tensor or a batch made by collate, not {type(targets).__name__}"
            )
        targets = targets.to(logits.device)
        at = _check_targets(logits, targets)
        if labels is None:
            known = targets.labels if isinstance(targets, TargetBatch) else None
            ignored = torch.zeros(len(at), dtype=torch.bool, device=at.device)
        else:
            known = _check_labels(logits, labels).to(at.device).reshape(-1)[at]
            ignored = known == IGNORED
            if isinstance(targets, TargetBatch):
                _check_same(known, targets.labels)
        flat = logits.reshape(-1, logits.shape[-1])
        if isinstance(targets, torch.Tensor):
            targets = targets.detach().reshape(-1, targets.shape[-1])
        return cls(flat, targets, at, known, ignored)

    def divergence(self, temperature: float, undecided_weight: str) -> torch.Tensor:
        """float [R]: that of each row that counts, weighted."""
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, not {temperature}")
        if undecided_weight not in ("none", "linear"):
            raise ValueError(f'undecided_weight must be "none" or "linear", not {undecided_weight!r}')
        if isinstance(self.targets, SparseBatch):
            rows, values = self._sparse(self.targets, temperature)
        else:
            whole = self.targets if isinstance(self.targets, torch.Tensor) else self.targets.logprobs
            rows = ((whole.amax(1) > -torch.inf) & ~self.ignored).nonzero()[:, 0]
            values = cast(torch.Tensor, DenseRows.apply(self.logits, self.at[rows], whole, rows, temperature))
            if isinstance(self.targets, DenseBatch):
                values = self._corrected(self.targets, rows, values, temperature)
        if undecided_weight == "linear":
            if isinstance(self.targets, torch.Tensor):
                raise ValueError('undecided_weight="linear" needs a batch made by collate')
            values = values * (1 - self.targets.undecided_mass[rows]).clamp(min=0)
        return values

    def _corrected(
        self, batch: DenseBatch, rows: torch.Tensor, values: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """float [R]: the divergences of ``rows``, int64 [R], with what mass that is moved adds to them."""
        if batch.moves is None or batch.moved is None:
            return values
        place = torch.full_like(self.at, -1).index_copy_(0, rows, torch.arange(len(rows), device=rows.device))
        row, taken_from, given_to = batch.moves.unbind(1)
        row, ids = place[row].repeat(2), torch.cat([given_to, taken_from])
        wanted = (row >= 0) & (ids >= 0)
        has = torch.zeros_like(rows, dtype=torch.bool).index_fill_(0, row[wanted], True)
        touched, row = has.nonzero()[:, 0], (has.cumsum(0) - 1)[row[wanted]]
        # Whole rows are normalised; what is moved is on the same scale.
        sums = row_sums(batch.logprobs, rows[touched])
        mass = torch.cat([batch.moved, -batch.moved])[wanted] / sums[row]
        added = MovedRows.apply(self.logits, self.at[rows[touched]], row, ids[wanted], mass, temperature)
        return values.index_add(0, touched, cast(torch.Tensor, added))

    def _sparse(self, batch: SparseBatch, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [R], which rows count, and float [R], their divergence."""
        counts = (batch.rest_logp > -torch.inf).index_fill(0, batch.row, True) & ~self.ignored
        wanted = counts[batch.row]
        values = SparseRows.apply(
            self.logits,
            self.at[counts],
            (counts.cumsum(0) - 1)[batch.row[wanted]],
            batch.ids[wanted],
            batch.logp[wanted],
            batch.rest_logp[counts],
            temperature,
        )
        return counts.nonzero()[:, 0], cast(torch.Tensor, values)

    def cross_entropy(self) -> torch.Tensor:
        """float [R]: −log q(label) of each row that has one: the divergence from a teacher who is certain of it."""
        if self.labels is None:
            raise ValueError("cross-entropy needs labels: pass them, or cross_entropy_weight=0")
        wanted = self.labels != IGNORED
        at, ids = self.at[wanted], self.labels[wanted]
        certain = torch.zeros(len(at), device=at.device)
        nothing = torch.full_like(certain, -torch.inf)
        row = torch.arange(len(at), device=at.device)
        return cast(torch.Tensor, SparseRows.apply(self.logits, at, row, ids, certain, nothing, 1.0))


def _check_targets(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """int64 [N]: the row of the flattened logits for each row of the targets. Raises ValueError."""
    shape, width = list(logits.shape), logits.shape[-1]
    if logits.ndim not in (2, 3) or not logits.is_floating_point():
        raise ValueError(f"logits must be [N, width] or [texts, T, width], not {shape} of {logits.dtype}")
    wanted = targets.shape[-1] if isinstance(targets, torch.Tensor) else targets.width
    if wanted > width:
        hint = "where a head has no column for special tokens, say so: Scorer(width=…)"
        raise ValueError(f"targets need {wanted} columns, logits have {width} ({hint})")
    if isinstance(targets, torch.Tensor):
        if targets.shape[:-1] != logits.shape[:-1]:
            raise ValueError(f"targets {list(targets.shape)} do not fit logits {shape}")
        return torch.arange(shape[0] if logits.ndim == 2 else shape[0] * shape[1], device=logits.device)
    if logits.ndim == 2:
        if len(targets) != shape[0]:
            raise ValueError(f"{len(targets)} rows of targets for logits {shape}")
        return torch.arange(shape[0], device=logits.device)
    if targets.text is None or targets.step is None:
        raise ValueError("logits [texts, T, width] need targets that were collated with starts")
    if targets.texts != shape[0] or targets.steps > shape[1]:
        raise ValueError(f"targets of {targets.texts} texts, {targets.steps} logits each, for logits {shape}")
    return targets.text * shape[1] + targets.step


def _check_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels {list(labels.shape)} do not fit logits {list(logits.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be token ids, not {labels.dtype}")
    labels = labels.long()  # bytes would be taken for a mask
    wrong = (labels != IGNORED) & ((labels < 0) | (labels >= logits.shape[-1]))
    if bool(wrong.any()):
        raise ValueError(f"label {int(labels[wrong][0])} is none of the {logits.shape[-1]} columns")
    return labels


def _check_same(labels: torch.Tensor, own: torch.Tensor) -> None:
    """Refuse labels, int64 [N], that are other tokens than the targets': most likely they are a position off."""
    differ = (labels != own) & (labels != IGNORED) & (own != IGNORED)
    if bool(differ.any()):
        row = int(differ.nonzero()[0, 0])
        raise ValueError(
            f"the label of row {row} of the targets is {int(own[row])}, not {int(labels[row])}: a logit's label is the "
            "token after it (nothing is shifted here, unlike in transformers)"
        )


def _mean(values: torch.Tensor, num_items: int | torch.Tensor | None) -> torch.Tensor:
    """The sum over ``num_items``, or over how many there are; 0, with a gradient, where there is none."""
    if isinstance(num_items, torch.Tensor):
        if num_items.numel() != 1:
            raise ValueError(f"num_items_in_batch must be one number, not {list(num_items.shape)}")
        count = num_items.item()
    else:
        count = len(values) if num_items is None else num_items
    if not 0 <= count < math.inf:
        raise ValueError(f"num_items_in_batch must be finite and not negative, not {count}")
    return values.sum() / max(1, count)
