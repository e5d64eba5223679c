"""Label scoring and whole distributions, dense and cut to their largest entries, against plain forwards.

The baseline: plain, unbatched forwards of the teacher over prompt and canonical tokens, with a log-softmax at the
completion's rows. What counts is the median of ratios of alternating runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import crosstok as ct
import torch

from . import general
from .inputs import Inputs, merges_of, named
from .job import Job
from .row import Bar, Row
from .timing import paired

# The bar of labels is for SmolLM2's first 24,000 merges; that of whole distributions for every student.
LABELS, LABELS_MERGES, WHOLE = Bar(1.3), 24_000, Bar(2.5)
# Of labels in the tokens of unrelated tokenizers.
GENERAL = Bar(2.0)
# Entries of a row that are kept of distributions that are cut.
TOP_K = 32
# Name, call, bar.
Timed = tuple[str, Callable[[], Any], Bar | None]


def measure(inputs: Inputs) -> Iterator[Row]:
    """Ratios for students of three sizes and unrelated ones; labels also batched, distributions one by one."""
    job = Job.load(inputs.teacher, inputs.chats[: inputs.texts], inputs.device, "float32")
    plain = _waiting(_plain(job), inputs)
    for what, ours, bar in _all_runs(inputs, job):
        ratio, base = paired(plain, _waiting(ours, inputs), inputs.repeats)
        details = {**ratio.details(), "plain s": base.median, "texts": len(job.texts)}
        yield Row("teacher", what, ratio.median, "x plain", bar, details)


def _all_runs(inputs: Inputs, job: Job) -> Iterator[Timed]:
    name = inputs.teacher_file[0]
    for merges in merges_of(job.tokenizer)[: inputs.scaled(3, 1)]:
        labels = LABELS if merges == LABELS_MERGES else None
        scorer = job.scorer(merges)
        for what, ours, bar in (*_labels(job, scorer, labels), _dense(job, scorer)):
            yield f"{named(name, merges)}, {what}", ours, bar
    for files in list(general.of_teacher(inputs))[: inputs.scaled(None, 1)]:
        scorer = ct.Scorer(job.teacher, files.pair())
        for what, ours, bar in (*_labels(job, scorer, GENERAL), _dense(job, scorer), _sparse(job, scorer)):
            yield f"{files.label}, {what}", ours, bar


def _plain(job: Job) -> Callable[[], None]:
    ids = [ids.tolist() for ids in job.tokenizer.encode_batch(job.texts)]

    def run() -> None:
        for prompt, completion in zip(job.prompts, ids, strict=True):
            with torch.inference_mode():
                keep = torch.arange(len(prompt) - 1, len(prompt) + len(completion))
                tokens = torch.tensor([prompt + completion], device=job.model.device)
                job.model(tokens, logits_to_keep=keep).logits.float().log_softmax(-1)

    return run


def _labels(job: Job, scorer: ct.Scorer, bar: Bar | None) -> Iterator[Timed]:
    each = list(zip(job.texts, job.prompts, strict=True))
    yield "labels one by one", lambda: [scorer.score([t], [p]) for t, p in each], bar
    yield "labels batched", lambda: scorer.score(job.texts, job.prompts), bar


def _dense(job: Job, scorer: ct.Scorer) -> Timed:
    each = list(zip(job.texts, job.prompts, strict=True))
    return "dense", lambda: [scorer.distributions([t], [p]) for t, p in each], WHOLE


def _sparse(job: Job, scorer: ct.Scorer) -> Timed:
    each = list(zip(job.texts, job.prompts, strict=True))
    return f"top {TOP_K}", lambda: [scorer.distributions([t], [p], top_k=TOP_K) for t, p in each], WHOLE


def _waiting(run: Callable[[], Any], inputs: Inputs) -> Callable[[], Any]:
    """The same, done only when the device is."""

    def waited() -> None:
        run()
        if inputs.device != "cpu":
            torch.cuda.synchronize()

    return waited
