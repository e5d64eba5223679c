"""The positions of one student's texts, or of several students', with what the reference knows about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .found import BoolArray, FloatArray, IntArray, Truth

# The reference has closed where it leaves no more than this undecided: errors are known to within as much.
CLOSED = 0.01


@dataclass(frozen=True, eq=False)
class Sample:
    """All positions of all texts. Arrays are [positions].

    text, position: int64. labelled: bool, a token of the text's follows. undecided: float64, spent: int64, the
    reference's. seconds: the reference's, plain: plain forwards', processor time of all texts. evaluations: labels of
    all texts.
    """

    text: IntArray
    position: IntArray
    labelled: BoolArray
    undecided: FloatArray
    spent: IntArray
    seconds: float
    plain: float
    evaluations: int

    @property
    def closed(self) -> BoolArray:
        """bool [positions]: where the reference is all but certain."""
        return np.asarray(self.undecided <= CLOSED)

    @classmethod
    def join(cls, parts: Sequence[Sample]) -> Sample:
        """Those of several students."""
        return cls(
            text=np.concatenate([part.text for part in parts]),
            position=np.concatenate([part.position for part in parts]),
            labelled=np.concatenate([part.labelled for part in parts]),
            undecided=np.concatenate([part.undecided for part in parts]),
            spent=np.concatenate([part.spent for part in parts]),
            seconds=sum(part.seconds for part in parts),
            plain=sum(part.plain for part in parts),
            evaluations=sum(part.evaluations for part in parts),
        )


def sample(truths: Sequence[Truth], plain: Sequence[float]) -> Sample:
    """Of the reference at each text, and the processor seconds of each text's plain forward."""
    sizes = [len(truth.undecided) for truth in truths]
    position = np.concatenate([np.arange(size) for size in sizes])
    text = np.repeat(np.arange(len(sizes)), sizes)
    return Sample(
        text=text,
        position=position,
        labelled=position < np.array(sizes)[text] - 1,
        undecided=np.concatenate([truth.undecided for truth in truths]),
        spent=np.concatenate([truth.spent for truth in truths]),
        seconds=sum(truth.seconds for truth in truths),
        plain=sum(plain),
        evaluations=sum(sizes) - len(sizes),
    )
