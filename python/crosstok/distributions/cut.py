"""From entries and a score to sparse targets: what `distributions` returns with ``top_k``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosstok.distributions.estimates import Estimate
from crosstok.distributions.status import StatusArray
from crosstok.masses.entries import Entries
from crosstok.pair import Pair
from crosstok.ragged import IntArray
from crosstok.results import Score, Status
from crosstok.targets import NO_LABEL, Labels, SparseTargets, keep_entries

# Entries of a row's light mass that are kept for each one that is wanted.
SPARE = 4


def cut(entries: Entries, labels: Labels, status: StatusArray, top_k: int) -> SparseTargets:
    """The ``top_k`` largest entries of each of a text's distributions, and its labels. status: of the rows."""
    kept = keep_entries(entries, top_k, np.asarray(labels.ids))
    return SparseTargets.of(kept, _joined(labels, status), np.zeros(len(entries.log_rest)))


def cut_estimate(found: Estimate, labels: Labels, tolerance: float | None, top_k: int) -> SparseTargets:
    """The same of a closing estimate, whose rows are never made. labels: as their score has them.

    Bounds of labels are the tighter of the score's and of what the rows are certain of, and values are moved between
    them. Where a label has no mass in its row, which an estimate may come to, it gets that of the score, and the row is
    no more certain than that. A row that has no mass at all stays as it is, without entries: so does a dense one.
    """
    labels = _joined(_tightened(labels, found, tolerance), found.status(tolerance))
    ids, logp = np.asarray(labels.ids), np.asarray(labels.logp)
    entries, undecided = found.entries(), found.undecided.copy()
    has = np.zeros(len(found), dtype=bool)
    has[entries.row[entries.token == ids[entries.row]]] = True
    new = np.flatnonzero(~has & ~found.empty & (ids != NO_LABEL) & (logp > -np.inf))
    more, scale = np.minimum(logp[new], np.log1p(-1e-6)), np.zeros(len(found))
    scale[new] = np.log1p(-np.exp(more))
    undecided[new] = np.minimum(undecided[new] + np.exp(more), 1.0)
    row, token = np.append(entries.row, new), np.append(entries.token, ids[new])
    log_mass = np.append(entries.log_mass + scale[entries.row], more)
    whole = Entries.of(row, token, log_mass, entries.log_rest + scale)
    return SparseTargets.of(keep_entries(whole, top_k, ids), labels, undecided)


def _tightened(labels: Labels, found: Estimate, tolerance: float | None) -> Labels:
    ids, logp = np.asarray(labels.ids), np.asarray(labels.logp)
    lower, upper, status = (np.array(x) for x in (labels.lower, labels.upper, labels.status))
    with np.errstate(divide="ignore"):
        low, high = (np.log(bound) for bound in found.label_bounds(ids))
    some = ids != NO_LABEL
    lower[some] = np.maximum(lower, low)[some]
    upper[some] = np.maximum(np.minimum(upper, high), lower)[some]  # never crossed by rounding
    logp = np.where(some, np.clip(logp, lower, upper), logp)
    if tolerance is not None:
        status[(status == Status.ESTIMATED) & (np.exp(upper) - np.exp(lower) <= tolerance)] = Status.CERTIFIED
    return replace(labels, logp=logp, lower=lower, upper=upper, status=status)


def _joined(labels: Labels, rows: StatusArray) -> Labels:
    """Labels with their status, which is the row's where there is none, and where the row is unsupported."""
    of_row = (np.asarray(labels.ids) == NO_LABEL) | (rows == Status.UNSUPPORTED)
    return replace(labels, status=np.where(of_row, rows, np.asarray(labels.status)).astype(np.uint8))


def labels_of(pair: Pair, student_ids: IntArray, score: Score, size: int, ended: bool) -> Labels:
    """What a score says of the tokens after each row. student_ids: without end-of-text. size: bytes of the text."""
    sizes = np.array([len(pair.student.token_bytes(int(id))) for id in student_ids], dtype=np.int64)
    # A dummy prefix is not part of the text.
    ends = np.maximum(np.concatenate([[0], np.cumsum(sizes)]) - (int(sizes.sum()) - size), 0)
    spans = np.stack([np.append(ends[:-1], ends[-1]), np.append(ends[1:], ends[-1])], axis=1)
    none = [] if ended else [0.0]
    return Labels(
        ids=np.append(student_ids, pair.student_eos[0] if ended else NO_LABEL),
        logp=np.append(score.logprobs, none),
        lower=np.append(score.lower, none),
        upper=np.append(score.upper, none),
        status=np.append(score.status, [] if ended else [Status.EXACT]),
        byte_span=spans,
    )
