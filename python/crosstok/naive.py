"""The usual approximation to a teacher's probabilities of student tokens, for comparison only.

*Naive alignment* (vocabulary matching) is what distillation across tokenizers often does: write the student's
prefix s_1..s_{i-1} out as text, encode that text with the teacher's tokenizer, run the teacher once, and read
off the probability of the teacher token that is spelled like s_i.

It is wrong in two ways. The teacher hardly ever sees the prefix it is given: " ret" is encoded as it stands,
where the text " return" would have been one token, so the model is asked about a prefix that its training
never showed. And the mass of every longer teacher token that starts with s_i's bytes is left out. The
probabilities of a text's tokens then do not multiply to the probability of the text.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import torch


class Rows(Protocol):
    """The part of the Teacher protocol that is used here."""

    def rows(self, paths: list[tuple[int, ...]]) -> torch.Tensor:
        """Return log-probabilities [len(paths), vocabulary] after each path, prompt ids first."""
        ...


class Encoder(Protocol):
    """The part of ``crosstok.Tokenizer`` that is used here."""

    @property
    def vocab_size(self) -> int:
        """The highest id + 1."""
        ...

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the ids of ``text``."""
        ...

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token."""
        ...


def naive_logprobs(
    teacher: Rows,
    teacher_tokenizer: Encoder,
    student_tokenizer: Encoder,
    student_ids: Sequence[int],
    prompt: Sequence[int],
    teacher_eos: Sequence[int] = (),
    student_eos: Sequence[int] = (),
) -> npt.NDArray[np.float64]:
    """Return what naive alignment takes for log P(s_i | s_<i), float64 [len(student_ids)], in nats.

    ``prompt`` holds the teacher's ids before the text (its BOS or end-of-text id where a text starts a
    document; most models need at least one). The student's end-of-text ids get the summed mass of the
    teacher's. Where no single teacher token is spelled like s_i, the product over the tokens of s_i's
    encoding is taken. A prefix that ends inside a character is written with U+FFFD, which is what decoding
    and encoding again makes of it.
    """
    match = _Vocabulary(teacher_tokenizer)
    # One row for every factor: its path, the ids whose mass is summed, the position it belongs to.
    paths: list[tuple[int, ...]] = []
    events: list[tuple[int, ...]] = []
    positions: list[int] = []
    before = b""
    for position, token in enumerate(int(i) for i in student_ids):
        piece = student_tokenizer.token_bytes(token)
        path = (*prompt, *match.encode(before))
        for event in [tuple(teacher_eos)] if token in student_eos else match.spell(piece):
            paths.append(path)
            events.append(event)
            positions.append(position)
            path = (*path, event[0])
        before += piece
    out = np.zeros(len(student_ids))
    if paths:
        rows = teacher.rows(paths).double()
        for position, row, event in zip(positions, rows, events, strict=True):
            out[position] += float(row[list(event)].logsumexp(0))
    return out


class _Vocabulary:
    """Encodes bytes that need not be whole characters, and finds tokens by their bytes."""

    def __init__(self, tokenizer: Encoder) -> None:
        self.tokenizer = tokenizer

    def encode(self, data: bytes) -> list[int]:
        """Return the encoding of ``data``, undecodable bytes as U+FFFD."""
        return [int(i) for i in self.tokenizer.encode(data.decode("utf-8", errors="replace"))]

    def spell(self, piece: bytes) -> list[tuple[int]]:
        """Return the ids, one a factor, that stand for ``piece``: one if the vocabulary has it."""
        ids = self.encode(piece)
        if len(ids) != 1 or self.tokenizer.token_bytes(ids[0]) != piece:
            ids = [self.by_bytes[piece]] if piece in self.by_bytes else ids
        return [(i,) for i in ids]

    @cached_property
    def by_bytes(self) -> dict[bytes, int]:
        """Every token's bytes; the lowest id where several tokens have the same."""
        size = self.tokenizer.vocab_size
        return {self.tokenizer.token_bytes(i): i for i in reversed(range(size))}
