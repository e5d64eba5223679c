"""A teacher's distributions over student tokens, cut to their largest entries: what is stored and trained on.

A row keeps its k largest entries, its label and one number for everything else, the *rest*. Rows are normalised when
they are cut: where the teacher's mass is partly inadmissible, a row sums to less than 1, and what is missing goes to no
token. To count it as rest would teach the student to spread it over tokens that the teacher does not mean, and with
k = width would leave a rest that no token can take. `missing_mass` keeps what the raw row lacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from crosstok.errors import TargetsError
from crosstok.masses.aggregator import log_sum
from crosstok.masses.entries import Entries
from crosstok.ragged import IntArray
from crosstok.results import Status

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

NO_LABEL = -1
# How far a sum of stored probabilities may be from 1, and a probability above it: float32 keeps the logarithms of a
# row well enough for 1e-6; a float32 log-softmax over 262,144 tokens is off by up to 4e-5.
STORED_ERROR = 1e-5
RAW_ERROR = 1e-4
# Entries of the float64 copy that is made of some rows at a time: 32 MB.
BLOCK_ENTRIES = 1 << 22


class Kept(NamedTuple):
    """The entries that a cut keeps: row i's are at ``ptr[i]:ptr[i + 1]``, by falling probability.

    ptr: int64 [N + 1]. ids: int32 [entries]. logp: float32 [entries]. rest_logp, missing_mass: float32 [N].
    """

    ptr: IntArray
    ids: Int32Array
    logp: Float32Array
    rest_logp: Float32Array
    missing_mass: Float32Array


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of the token that follows each row, arrays [N].

    ids: int64, the token, or -1 where there is none. logp, lower, upper: its log-probability in nats and the bounds, as
    in a `Score`, not normalised; anything where there is none. status: `Status`. byte_span: int [N, 2], the bytes of
    the text that the token spells, from and up to; both the text's length for end-of-text and where there is no label.
    """

    ids: npt.ArrayLike
    logp: npt.ArrayLike
    lower: npt.ArrayLike
    upper: npt.ArrayLike
    status: npt.ArrayLike
    byte_span: npt.ArrayLike


@dataclass(frozen=True, eq=False)
class SparseTargets:
    """A text's distributions over the next student token, N = n + 1 rows; row i follows s_1..s_i.

    ptr: int64 [N + 1]; row i's entries are ``ptr[i]:ptr[i + 1]`` of ids: int32 and logp: float32, natural logarithms of
    normalised probabilities, none of them −inf; as `from_dense` makes them k a row by falling probability, and one more
    where the label is not among them. rest_logp: float32 [N], log of all other tokens' probability, −inf where it is 0.
    So each row's probabilities and its rest sum to 1, but for a row that says nothing (what comes before it has
    probability zero, or no student token has any mass): it has no entries and the rest −inf, and losses skip it.
    missing_mass: float32 [N], 1 minus the row's sum before it was normalised (the inadmissible mass).

    label_ids: int64 [N], the next token s_{i+1}; the last row's is end-of-text, or -1 where the text does not end
    there. label_logp, label_lower, label_upper: float32 [N], as in a `Score` without a tolerance, moved to where rows
    are certain of more; not normalised; 0 where there is no label. A label is among its row's entries unless its
    label_logp is −inf, or the row has none and is UNSUPPORTED; that entry is the row's estimate like the others, within
    undecided_mass of the truth, and may lie outside the label's bounds, which rest on more rows. undecided_mass:
    float32 [N], bounds the total variation of the normalised rows: that of rows that lack something, divided by their
    sum (docs/mathematics.md, 12). status: uint8 [N], the `Status` of the *label*, as in a `Score` (EXACT, CERTIFIED or
    ESTIMATED by label_lower and label_upper, not by undecided_mass); UNSUPPORTED where the row is that as well, and the
    row's where there is no label: see `Distributions.status`, which is the row's everywhere. byte_span: int32 [N, 2],
    the label's bytes in the text.
    """

    ptr: IntArray
    ids: Int32Array
    logp: Float32Array
    rest_logp: Float32Array
    missing_mass: Float32Array
    label_ids: IntArray
    label_logp: Float32Array
    label_lower: Float32Array
    label_upper: Float32Array
    undecided_mass: Float32Array
    status: npt.NDArray[np.uint8]
    byte_span: Int32Array

    @classmethod
    def from_dense(
        cls,
        logprobs: torch.Tensor,
        k: int,
        labels: Labels,
        undecided_mass: npt.ArrayLike | torch.Tensor | None = None,
    ) -> SparseTargets:
        """Cut whole rows to their k largest entries and the label.

        logprobs: float32 or float64 [N, width], natural logarithms, as in `Distributions`; left as they are.
        undecided_mass: [N], of the rows as they are, None: 0. Raises ValueError for shapes that do not fit,
        TargetsError for rows that are no distributions (NaN, a sum above 1) and whatever `validate` finds.
        """
        undecided = np.zeros(len(logprobs)) if undecided_mass is None else np.asarray(undecided_mass)
        return cls.of(keep_top(logprobs, k, np.array(labels.ids, dtype=np.int64)), labels, undecided)

    @classmethod
    def of(cls, kept: Kept, labels: Labels, undecided: npt.NDArray[np.floating[Any]]) -> SparseTargets:
        """From entries that are cut already. undecided: [N], of the rows before they were normalised.

        Raises TargetsError for whatever `validate` finds.
        """
        label_ids = np.array(labels.ids, dtype=np.int64)
        labelled = label_ids != NO_LABEL

        def of_label(values: npt.ArrayLike) -> Float32Array:
            return np.where(labelled, np.asarray(values, dtype=np.float32), np.float32(0))

        targets = cls(
            *kept,
            label_ids=label_ids,
            label_logp=of_label(labels.logp),
            label_lower=of_label(labels.lower),
            label_upper=of_label(labels.upper),
            undecided_mass=_of_normalised(undecided, kept.missing_mass),
            status=np.array(labels.status, dtype=np.uint8),
            byte_span=np.array(labels.byte_span, dtype=np.int32),
        )
        targets.validate()
        return targets

    def __len__(self) -> int:
        """N, the number of rows: one more than tokens."""
        return len(self.rest_logp)

    @property
    def student_ids(self) -> IntArray:
        """int64 [n]: the text's tokens, without end-of-text."""
        return self.label_ids[:-1]

    @property
    def entry_rows(self) -> IntArray:
        """int64 [entries]: the row that each entry belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.ptr))

    def validate(self) -> None:
        """Raise TargetsError, naming the row and what is wrong with it, unless all that the class promises holds.

        The order of a row's entries is not looked at. Time and memory are linear in the number of entries.
        """
        _check_arrays(self)
        for wrong, what in _faults(self):
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise TargetsError(f"row {row}: {what(row) if callable(what) else what}")


def _of_normalised(undecided: npt.NDArray[np.floating[Any]], missing: Float32Array) -> Float32Array:
    """What rows that sum to 1 − ``missing`` leave undecided once they are normalised, float32 [N].

    Where next to all of a row is missing float32 does not say how much is left: what is left is then taken for less.
    """
    total = np.where(missing > 0, 1 - missing.astype(np.float64) - np.finfo(np.float32).eps, 1.0)
    scaled = np.divide(undecided, total, out=np.ceil(undecided.astype(np.float64)), where=total > 0)
    bounded: Float32Array = np.minimum(scaled, np.maximum(undecided, 1)).astype(np.float32)
    return bounded


def keep_top(logprobs: torch.Tensor, k: int, label_ids: IntArray) -> Kept:
    """The k largest entries of each row, its label where that has probability, and what the others sum to.

    logprobs: float32 or float64 [N, width], on any device. label_ids: int64 [N], -1 for none. The rest is the sum of
    the entries that are not kept, in float64, never 1 minus the others. Of tokens that are equally likely at the k-th
    place any may be kept. Memory: one float64 copy of a block of rows. Raises as `SparseTargets.from_dense` does.
    """
    if logprobs.ndim != 2 or logprobs.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logprobs must be float32 or float64 [rows, width], not {_kind(logprobs)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    rows, width = logprobs.shape
    if label_ids.shape != (rows,):
        raise ValueError(f"labels: {list(label_ids.shape)} for {rows} rows")
    outside = (label_ids < NO_LABEL) | (label_ids >= width)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise TargetsError(f"row {row}: label {label_ids[row]} is not below the width, {width}")
    labels, step = torch.from_numpy(label_ids).to(logprobs.device), max(1, BLOCK_ENTRIES // width)
    parts = [
        _keep_block(logprobs[at : at + step], k, labels[at : at + step], at) for at in range(0, rows, step)
    ]
    counts, ids, logp, rest, missing = (np.concatenate(part) for part in zip(*parts, strict=True))
    ptr = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(counts, out=ptr[1:])
    return Kept(ptr, ids, logp, rest, missing)


def keep_entries(entries: Entries, k: int, label_ids: IntArray) -> Kept:
    """The same of rows whose entries are given one by one; a label that is none of them counts as rest."""
    rows, total = len(entries.log_rest), entries.log_totals()
    if (wrong := np.flatnonzero(~(total <= np.log1p(RAW_ERROR)))).size:
        raise TargetsError(f"row {wrong[0]}: its probabilities sum to {np.exp(total[wrong[0]]):.6g}")
    order = np.lexsort((entries.token, -entries.log_mass, entries.row))
    row, token, log_mass = entries.row[order], entries.token[order], entries.log_mass[order]
    keep = np.arange(len(row)) - np.searchsorted(row, row) < k
    keep |= token == label_ids[row]
    rest = np.logaddexp(log_sum(log_mass[~keep], row[~keep], rows), entries.log_rest)
    scale = np.where(total > -np.inf, total, 0.0)
    ptr = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row[keep], minlength=rows), out=ptr[1:])
    return Kept(
        ptr,
        token[keep].astype(np.int32),
        (log_mass[keep] - scale[row[keep]]).astype(np.float32),
        (rest - scale).astype(np.float32),
        -np.expm1(np.minimum(total, 0.0)).astype(np.float32),
    )


def _keep_block(
    logprobs: torch.Tensor, k: int, labels: torch.Tensor, first: int
) -> tuple[npt.NDArray[Any], ...]:
    """Entries a row, ids, log-probabilities, rest and missing mass of some rows, the first of which is ``first``."""
    work = logprobs.to(torch.float64, copy=True)
    total = work.logsumexp(1)
    wrong = ~(total <= RAW_ERROR)  # NaN as well
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise TargetsError(f"row {first + row}: its probabilities sum to {float(total[row].exp()):.6g}")
    values, ids = work.topk(min(k, work.shape[1]), dim=1)
    there = (labels == NO_LABEL) | (ids == labels[:, None]).any(1)
    # One more column, for the label; where that is not needed a kept entry a second time, without probability.
    extra = torch.where(there, ids[:, 0], labels)[:, None]
    more = work.gather(1, extra).masked_fill(there[:, None], -torch.inf)
    ids, values = torch.cat([ids, extra], 1), torch.cat([values, more], 1)
    rest = work.scatter_(1, ids, -torch.inf).logsumexp(1)
    missing = -torch.expm1(total.clamp(max=0))
    total = total.masked_fill(total == -torch.inf, 0)  # rows of probability zero stay what they are
    keep = (values > -torch.inf).cpu().numpy()
    return (
        keep.sum(1),
        ids.cpu().numpy()[keep].astype(np.int32),
        (values - total[:, None]).cpu().numpy()[keep].astype(np.float32),
        (rest - total).cpu().numpy().astype(np.float32),
        missing.cpu().numpy().astype(np.float32),
    )


# dtype and shape of every field; names stand for lengths that must agree.
_SHAPES: dict[str, tuple[type, tuple[str | int, ...]]] = {
    "rest_logp": (np.float32, ("rows",)),
    "ptr": (np.int64, ("rows + 1",)),
    "ids": (np.int32, ("entries",)),
    "logp": (np.float32, ("entries",)),
    "missing_mass": (np.float32, ("rows",)),
    "label_ids": (np.int64, ("rows",)),
    "label_logp": (np.float32, ("rows",)),
    "label_lower": (np.float32, ("rows",)),
    "label_upper": (np.float32, ("rows",)),
    "undecided_mass": (np.float32, ("rows",)),
    "status": (np.uint8, ("rows",)),
    "byte_span": (np.int32, ("rows", 2)),
}


def _check_arrays(targets: SparseTargets) -> None:
    """Raise TargetsError for a field of another dtype or shape, and for a ptr that does not rise from 0 to entries."""
    sizes = {"rows": len(targets.rest_logp), "entries": len(targets.ids)}
    sizes["rows + 1"] = sizes["rows"] + 1
    for field in fields(targets):
        array, (dtype, names) = getattr(targets, field.name), _SHAPES[field.name]
        shape = tuple(sizes[name] if isinstance(name, str) else name for name in names)
        if array.dtype != dtype or array.shape != shape:
            wanted = f"{np.dtype(dtype)} {list(shape)}"
            raise TargetsError(f"{field.name}: expected {wanted}, found {array.dtype} {list(array.shape)}")
    if not sizes["rows"]:
        raise TargetsError("no rows: even an empty text has one")
    ptr = targets.ptr
    if ptr[0] != 0 or ptr[-1] != sizes["entries"] or (np.diff(ptr) < 0).any():
        raise TargetsError(f"ptr must rise from 0 to the number of entries, {sizes['entries']}")


def _faults(targets: SparseTargets) -> Iterator[tuple[BoolArray, Any]]:
    """For each thing that must hold in every row: bool [N], where it does not, and what to say, or how to say it."""
    row, count = targets.entry_rows, len(targets)
    yield _rows_with(row, count, targets.ids < 0), "a negative token id"
    order = np.lexsort((targets.ids, row))
    ids, of = targets.ids[order], row[order]
    twice = np.zeros(len(ids), dtype=bool)
    twice[1:] = (ids[1:] == ids[:-1]) & (of[1:] == of[:-1])
    yield _rows_with(of, count, twice), lambda i: f"token {ids[twice & (of == i)][0]} is there twice"
    logp, rest = targets.logp.astype(np.float64), targets.rest_logp.astype(np.float64)
    yield _rows_with(row, count, ~np.isfinite(logp)), "an entry is not a finite logarithm"
    total = np.bincount(row, weights=np.exp(logp), minlength=count) + np.exp(rest)
    dead = (np.diff(targets.ptr) == 0) & (rest == -np.inf)
    yield ~(np.abs(total - 1) <= STORED_ERROR) & ~dead, lambda i: f"its probabilities sum to {total[i]:.8g}"
    for name in ("missing_mass", "undecided_mass"):
        mass = getattr(targets, name)
        yield ~((mass >= 0) & (mass <= 1 + RAW_ERROR)), f"{name} is no probability"
    yield targets.status > max(Status), lambda i: f"{targets.status[i]} is no status"
    span = targets.byte_span
    before = np.append(0, span[:-1, 1])
    yield (span[:, 0] < before) | (span[:, 1] < span[:, 0]), "its byte_span does not follow the one before it"
    yield from _label_faults(targets, row)


def _label_faults(targets: SparseTargets, row: IntArray) -> Iterator[tuple[BoolArray, Any]]:
    """The same of labels and their bounds."""
    ids, count = targets.label_ids, len(targets)
    last = np.arange(count) == count - 1
    yield (ids < NO_LABEL) | ((ids == NO_LABEL) & ~last), "it has no label, and is not the last row"
    logp, lower, upper = targets.label_logp, targets.label_lower, targets.label_upper
    ordered = (lower <= logp) & (logp <= upper) & (upper <= RAW_ERROR)  # False for NaN
    yield ~ordered, lambda i: f"bounds are not in order: {lower[i]} <= {logp[i]} <= {upper[i]} <= 0"
    present = _rows_with(row, count, targets.ids == ids[row])
    silent = (np.diff(targets.ptr) == 0) & np.isneginf(targets.rest_logp)
    missing = ~present & (ids != NO_LABEL) & (logp > -np.inf)
    missing &= ~(silent & (targets.status == Status.UNSUPPORTED))
    yield missing, lambda i: f"label {ids[i]}, log-probability {logp[i]:.6g}, is not among its entries"


def _rows_with(row: IntArray, count: int, flags: BoolArray) -> BoolArray:
    """bool [count]: the rows of which an entry is flagged."""
    found = np.zeros(count, dtype=bool)
    found[row[flags]] = True
    return found


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
