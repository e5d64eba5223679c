"""From whole distributions and a score to sparse targets: what `distributions` returns with ``top_k``."""

from __future__ import annotations

import numpy as np
import torch

from crosstok.pair import Pair
from crosstok.ragged import IntArray
from crosstok.results import Distributions, Score, Status
from crosstok.targets import NO_LABEL, Labels, SparseTargets


def cut(pair: Pair, found: Distributions, score: Score, size: int, ended: bool, top_k: int) -> SparseTargets:
    """The ``top_k`` largest entries of each of a text's distributions, and its labels.

    size: bytes of the text. Where a label has no mass in its row, which an estimate may come to, it gets
    that of the score, and the row is no more certain than that.
    """
    n = len(found.student_ids)
    labels = _labels(pair, found.student_ids, score, size, ended)
    ids = np.asarray(labels.ids)
    which = np.flatnonzero(ids[: n + ended] != NO_LABEL)
    logprobs, undecided = found.logprobs, found.undecided_mass.clone()
    at = torch.from_numpy(which), torch.from_numpy(ids[which])
    value = torch.from_numpy(np.asarray(labels.logp)[which]).float()
    missing = (
        torch.isneginf(logprobs[at]) & (value > -torch.inf) & ~torch.isneginf(logprobs[at[0]]).all(dim=1)
    )
    if bool(missing.any()):
        rows, columns, mass = at[0][missing], at[1][missing], value[missing]
        logprobs = logprobs.clone()
        logprobs[rows] += torch.log1p(-mass.double().exp().clamp(max=1 - 1e-6)).float()[:, None]
        logprobs[rows, columns] = mass
        undecided[rows] = (undecided[rows] + mass.exp()).clamp(max=1.0)
    return SparseTargets.from_dense(logprobs, top_k, labels, undecided)


def _labels(pair: Pair, student_ids: IntArray, score: Score, size: int, ended: bool) -> Labels:
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
