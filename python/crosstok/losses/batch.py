"""Targets of several texts in a few flat tensors, so that a loss needs no loop over texts or positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch

from crosstok.ragged import IntArray, whole_number
from crosstok.results import Distributions
from crosstok.targets import NO_LABEL, BoolArray, Kept, SparseTargets, keep_top

# What a label is where there is none, or where a position is not to be trained on: as in Hugging Face's losses.
IGNORED = -100

Batch = TypeVar("Batch", bound="TargetBatch")
Device = torch.device | str | None


@dataclass(frozen=True, eq=False)
class TargetBatch:
    """Rows of several texts, one after the other: tensors of one device, [N] over all rows.

    text, step: int64 [N], which of the texts a row belongs to and which of its logits it is for; None where no starts
    were given. labels: int64 [N], the token that follows, or `IGNORED` where none is known. undecided_mass: float32
    [N]. texts: how many there are. steps, width: how many logits a text needs at least, and with how many columns.

    A batch can be pickled, moved with `to` and pinned, by hand, by accelerate and by torch's DataLoader. Losses move it
    to the logits' device themselves.
    """

    labels: torch.Tensor
    undecided_mass: torch.Tensor
    text: torch.Tensor | None
    step: torch.Tensor | None
    texts: int
    steps: int
    width: int

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def to(self: Batch, device: Device, non_blocking: bool = False) -> Batch:
        """The same on another device; itself where it is there already."""
        if self.labels.device == torch.device(device or "cpu"):
            return self
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: Batch) -> Batch:
        """A copy in pinned memory."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self: Batch, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        changes = {name: function(value) for name, value in values if isinstance(value, torch.Tensor)}
        return replace(self, **cast("dict[str, Any]", changes))


@dataclass(frozen=True, eq=False)
class DenseBatch(TargetBatch):
    """Whole rows. logprobs: float32 [N, width], all −inf in rows of probability zero.

    moves, moved: their corrections (`Correction`), None where none of the targets has one: int64 [k, 3], row, token
    that mass is taken from and token that it is given to, −1 for none; float32 [k], how much.
    """

    logprobs: torch.Tensor
    moves: torch.Tensor | None = None
    moved: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class SparseBatch(TargetBatch):
    """Rows cut to some entries and a rest, which together sum to 1.

    row, ids: int64 [entries], the row (rising) and the token of each entry, no token twice in a row. logp: float32
    [entries]. rest_logp: float32 [N], −inf where nothing else has probability. A row without entries and without rest
    has probability zero.
    """

    row: torch.Tensor
    ids: torch.Tensor
    logp: torch.Tensor
    rest_logp: torch.Tensor


def collate(
    targets: Sequence[Distributions | SparseTargets],
    starts: Sequence[int] | None = None,
    *,
    length: int | None = None,
    eos: int | Sequence[int | None] | None = None,
    top_k: int | None = None,
    device: Device = None,
) -> DenseBatch | SparseBatch:
    """Make one batch of the targets of several texts.

    starts: for logits [texts, T, width], where row 0 of each text goes: the index of the last student token before the
    text (of its prompt, or the beginning-of-text token), whose logits predict s_1; padding on the left counts too. -1
    where nothing is before the text: row 0 is left out then. None: for logits [N, width], row by row. length: the T of
    texts that were cut; rows from there on are left out.

    eos: for `Distributions`, which do not know it: the student's end-of-text id, or one a text, None for a text that
    was cut off. It is the last row's label, which only cross-entropy needs: that row is trained on either way. top_k:
    cut `Distributions` to so many entries, the label and a rest; not for those with a correction, which would be lost.
    device: of the batch, None: the CPU.

    Raises ValueError for no targets, widths that differ, and arguments that do not fit the targets, TypeError for
    targets of other or several kinds.
    """
    if not targets:
        raise ValueError("no targets to collate")
    whole_number("top_k", top_k, 1)
    sparse = [target for target in targets if isinstance(target, SparseTargets)]
    dense = [target for target in targets if isinstance(target, Distributions)]
    if len(targets) not in (len(sparse), len(dense)):
        raise TypeError("targets must be all Distributions or all SparseTargets")
    if sparse and (eos is not None or top_k is not None):
        raise ValueError("eos and top_k are for Distributions: SparseTargets have their labels and entries")
    labels = np.concatenate([target.label_ids for target in sparse] or _labels(dense, eos))
    undecided = np.concatenate([np.asarray(target.undecided_mass) for target in targets])
    text, step, keep = _places([len(target.undecided_mass) for target in targets], starts, length)
    common: dict[str, Any] = {
        "labels": torch.from_numpy(np.where(labels == NO_LABEL, IGNORED, labels)[keep]),
        "undecided_mass": torch.from_numpy(undecided.astype(np.float32)[keep]),
        "text": None if starts is None else torch.from_numpy(text[keep]),
        "step": None if starts is None else torch.from_numpy(step[keep]),
        "texts": len(targets),
        "steps": int(step[keep].max(initial=-1)) + 1,
        "width": int(labels.max()) + 1,
    }
    batch: DenseBatch | SparseBatch
    if sparse:
        batch = _sparse_batch(_joined(sparse), keep, common)
    elif top_k is not None:
        if any(target.correction is not None for target in dense):
            raise ValueError("targets with a correction are not to be cut: leave out top_k")
        batch = _sparse_batch(keep_top(_stacked(dense), top_k, labels), keep, common)
    else:
        rows = _stacked(dense)
        rows = rows if keep.all() else rows[torch.from_numpy(keep)]
        common["width"] = max(common["width"], rows.shape[1])
        common.update(_moves(dense, keep))
        batch = DenseBatch(**common, logprobs=rows)
    return batch.to(device)


def _places(
    lengths: list[int], starts: Sequence[int] | None, length: int | None
) -> tuple[IntArray, IntArray, BoolArray]:
    """Text and step of each row, int64 [rows], and which rows have logits at all, bool [rows]."""
    if starts is None:
        if length is not None:
            raise ValueError("length needs starts")
        starts = [0] * len(lengths)
    if len(starts) != len(lengths):
        raise ValueError(f"starts: {len(starts)} for {len(lengths)} texts")
    for i, start in enumerate(starts):
        whole_number(f"the start of text {i}", start, -1)
    text = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate(
        [np.arange(start, start + rows) for start, rows in zip(starts, lengths, strict=True)]
    )
    return text, step, (step >= 0) & (step < (np.inf if length is None else length))


def _labels(dense: list[Distributions], eos: int | Sequence[int | None] | None) -> list[IntArray]:
    """The token that follows each row, `NO_LABEL` after the last where no end-of-text id is given."""
    ends = [eos] * len(dense) if eos is None or isinstance(eos, (int, np.integer)) else list(eos)
    if len(ends) != len(dense):
        raise ValueError(f"eos: {len(ends)} for {len(dense)} texts")
    for i, end in enumerate(ends):
        whole_number(f"the end-of-text id of text {i}", end, 0)
    return [
        np.append(target.student_ids, NO_LABEL if end is None else end).astype(np.int64)
        for target, end in zip(dense, ends, strict=True)
    ]


def _stacked(dense: list[Distributions]) -> torch.Tensor:
    """The rows of all texts."""
    widths = {target.logprobs.shape[1] for target in dense}
    if len(widths) > 1:
        raise ValueError(f"targets of different widths: {sorted(widths)}")
    return torch.cat([target.logprobs for target in dense])


def _moves(dense: list[Distributions], keep: BoolArray) -> dict[str, torch.Tensor]:
    """The corrections of the rows that are to be kept."""
    ends = np.cumsum([0] + [len(target.undecided_mass) for target in dense])
    found = [
        (end, target.correction)
        for end, target in zip(ends.tolist(), dense, strict=False)
        if target.correction is not None
    ]
    if not found:
        return {}
    row = np.concatenate([end + each.row for end, each in found])
    wanted = keep[row]
    taken_from = np.concatenate([each.taken_from for _, each in found])
    given_to = np.concatenate([each.given_to for _, each in found])
    moves = np.stack([np.cumsum(keep)[row] - 1, taken_from, given_to], axis=1)[wanted]
    moved = torch.cat([each.mass for _, each in found])[torch.from_numpy(wanted)]
    return {"moves": torch.from_numpy(moves), "moved": moved}


def _joined(sparse: list[SparseTargets]) -> Kept:
    """The entries of all texts."""
    ends = np.cumsum([0] + [len(target.ids) for target in sparse])
    ptr = [target.ptr[1:] + end for target, end in zip(sparse, ends, strict=False)]
    return Kept(
        np.concatenate([np.zeros(1, dtype=np.int64), *ptr]),
        np.concatenate([target.ids for target in sparse]),
        np.concatenate([target.logp for target in sparse]),
        np.concatenate([target.rest_logp for target in sparse]),
        np.concatenate([target.missing_mass for target in sparse]),
    )


def _sparse_batch(kept: Kept, keep: BoolArray, common: dict[str, Any]) -> SparseBatch:
    """The rows that are to be kept."""
    row = np.repeat(np.arange(len(keep)), np.diff(kept.ptr))
    wanted = keep[row]
    ids = kept.ids[wanted].astype(np.int64)
    common["width"] = max(common["width"], int(ids.max(initial=-1)) + 1)
    return SparseBatch(
        **common,
        row=torch.from_numpy((np.cumsum(keep) - 1)[row[wanted]]),
        ids=torch.from_numpy(ids),
        logp=torch.from_numpy(kept.logp[wanted]),
        rest_logp=torch.from_numpy(kept.rest_logp[keep]),
    )
