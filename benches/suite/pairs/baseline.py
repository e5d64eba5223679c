"""What a text's student tokens must agree with: its total by plain forwards, and the probability of its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import crosstok as ct

from ..job import Job
from .forwards import Forwards
from .texts import Text


@dataclass(frozen=True)
class Baseline:
    """total: log q of the canonical tokens and the end. at_byte: byte → log P of the text's bytes up to there."""

    total: float
    at_byte: dict[int, float]


def baselines(job: Job, texts: Sequence[Text]) -> list[Baseline]:
    """Totals without `Scorer`; bytes by the student that has no merges, for which it is exact (regime "subset")."""
    single = job.tokenizer.first_merges(0)
    pair = ct.Pair(job.tokenizer, single)
    by_bytes = scored(ct.Scorer(job.teacher, pair), texts)
    return [
        Baseline(_total(job, pair, text), _at_bytes(single, score))
        for text, score in zip(texts, by_bytes, strict=True)
    ]


def scored(scorer: ct.Scorer, texts: Sequence[Text]) -> list[ct.Score]:
    """The scores of texts, each after its prompt."""
    return scorer.score([text.text for text in texts], [text.prompt for text in texts])


def _total(job: Job, pair: ct.Pair, text: Text) -> float:
    start = text.prompt is None
    ids = tuple(job.tokenizer.encode(text.text, start=start).tolist())
    forwards = Forwards(job.model, pair, pair.prompt_ids(text.prompt), ids, start)
    return sum(float(forwards(ids[:k]).tokens[id]) for k, id in enumerate(ids)) + forwards(ids).end


def _at_bytes(student: ct.Tokenizer, score: ct.Score) -> dict[int, float]:
    at, found = 0, {0: 0.0}
    for id, log_p in zip(score.student_ids[:-1].tolist(), score.prefix_upper.tolist(), strict=False):
        at += len(student.token_bytes(id))
        found[at] = log_p
    return found
