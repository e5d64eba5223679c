"""``crosstok demo``: the embedded teacher scores a text in the tokens of a smaller tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import crosstok as ct
from crosstok.cli.load import load_teacher, load_tokenizer
from crosstok.naive import naive_logprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = "Return a copy of the string with all the cased characters converted to lowercase."


@dataclass(frozen=True)
class Step:
    """One student token of the demo's text. Log-probabilities in nats."""

    piece: bytes
    is_end: bool
    logprob: float
    naive: float
    covers: int
    rows: int
    status: int


@dataclass(frozen=True)
class Demo:
    """All that the demo prints.

    ``own_total`` and ``raw_total`` come from the teacher's own tokens, one forward a prefix and without the
    scorer: log q(text), what its tokenizer never produces removed, and log p(text), nothing removed.
    """

    text: str
    steps: list[Step]
    own_tokens: int
    own_total: float
    raw_total: float
    noncanonical: float
    regime: str

    @property
    def exact_total(self) -> float:
        """Sum of the exact log-probabilities."""
        return sum(step.logprob for step in self.steps)

    @property
    def naive_total(self) -> float:
        """Sum of naive alignment's log-probabilities."""
        return sum(step.naive for step in self.steps)


def run_demo(text: str) -> Demo:
    """Score ``text`` with the embedded teacher. Raises TextError where it is not Unicode."""
    with resources.as_file(resources.files("crosstok.demo")) as folder:
        teacher = load_teacher(str(folder), "float32", "cpu", None)
        pair = ct.Pair(load_tokenizer(str(folder)), load_tokenizer(str(Path(folder, "student"))))
    eos, student_eos = pair.teacher_eos, pair.student_eos
    score = ct.Scorer(teacher, pair).score([text])[0]
    ids = [int(i) for i in score.student_ids]
    # Without a BOS a text that starts a document follows the teacher's end-of-text id.
    naive = naive_logprobs(teacher, pair.teacher, pair.student, ids, eos[:1], eos, student_eos)
    covers = np.diff(ct.enumerate_covers(pair, [ids]).position_ptr)[1:]
    own, raw, count = own_totals(teacher, pair.teacher, text, eos)
    steps = [
        Step(
            piece=pair.student.token_bytes(token),
            is_end=token in student_eos,
            logprob=float(score.logprobs[i]),
            naive=float(naive[i]),
            covers=int(covers[i]),
            rows=int(score.rows[i]),
            status=int(score.status[i]),
        )
        for i, token in enumerate(ids)
    ]
    return Demo(text, steps, count, own, raw, float(np.mean(score.noncanonical_mass)), pair.regime)


def own_totals(
    teacher: ct.HFTeacher, tokenizer: ct.Tokenizer, text: str, eos: Sequence[int]
) -> tuple[float, float, int]:
    """Return (log q, log p, number of tokens) of an ended text in the teacher's own tokens.

    One forward for each prefix of the canonical encoding. q renormalises each row over the tokens that keep
    the prefix canonical, and over end-of-text where the text may end there (design.md, section 2).
    """
    ids = [int(i) for i in tokenizer.encode(text, start=True)]
    prefixes = [ids[:n] for n in range(len(ids) + 1)]
    rows = teacher.rows([(*eos[:1], *prefix) for prefix in prefixes]).double().cpu().numpy()
    canonical, raw = 0.0, 0.0
    for prefix, row, token in zip(prefixes, rows, [*ids, None], strict=True):
        allowed = np.zeros(len(row), dtype=bool)
        mask = tokenizer.canonical_next(prefix, start=True)
        allowed[: len(mask)] = mask
        allowed[list(eos)] = tokenizer.is_canonical(prefix, complete=True, start=True)
        step = row[token] if token is not None else np.logaddexp.reduce(row[list(eos)])
        canonical += float(step - np.logaddexp.reduce(row[allowed]))
        raw += float(step)
    return canonical, raw, len(prefixes)
