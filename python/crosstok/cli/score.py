"""`crosstok score`: lines of a file in, one JSON line for each out, batch by batch, and the sums of the summary."""

from __future__ import annotations

import json
import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

import crosstok as ct
from crosstok.cli.feed import Feed, Work
from crosstok.cli.journal import Entry, Header
from crosstok.cli.load import choose_device, load_pair, load_teacher
from crosstok.cli.output import Output
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.resume import BATCH_TOKENS, Resume, find_resume
from crosstok.cli.settings import Job, describe
from crosstok.cli.source import Source, Survey, check
from crosstok.cli.summary import Summary
from crosstok.errors import CrosstokError, TeacherError, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Start:
    """What is known before a model is loaded: tokenizers, settings, the input, which of its records, where to begin."""

    pair: ct.Pair
    device: str
    settings: dict[str, Any]
    survey: Survey
    first: int
    stop: int
    resume: Resume


def run(job: Job, tell: Callable[[str], None], report: Report) -> Summary:
    """Do what ``job`` asks, and return the sums over all of its lines, those of earlier runs included.

    tell: takes a message for people. report: takes what is being done, how many texts are, and of how many. Raises
    CrosstokError for mistakes; what is finished by then stays, and the same job goes on behind it.
    """
    job.check()
    with Source(job.input) as source:
        prompts = PromptEncoder(job.teacher)
        start = prepare(job, source, prompts, tell, report)
        entry, texts = start.resume.entry, start.stop - start.first
        if start.resume.complete:
            return entry.summary
        scorer = load_scorer(job, start) if entry.place.index < start.stop else None
        with Output(job.output, Header(start.settings, start.survey), start.resume, job.overwrite) as output:
            summary = entry.summary
            if scorer is not None:
                rows = source.rows(entry.place, start.stop)
                feed = Feed(job.input, rows, prompts, scorer.batch_budget)
                summary = score_feed(scorer, feed, output, entry, lambda done: report("scoring", done, texts))
            if not source.unchanged():
                raise CrosstokError(
                    f"{job.input}: changed while it was read: score it anew, with --overwrite"
                )
            output.complete(summary)
    return summary


def prepare(
    job: Job, source: Source, prompts: PromptEncoder, tell: Callable[[str], None], report: Report
) -> Start:
    """Check the input and what is there of the output, and find where to begin."""
    survey = source.survey(job.limit)
    if not survey.records:
        raise CrosstokError(f"{job.input}: nothing to score")
    first, stop = job.span(survey.records)
    pair = load_pair(job.teacher, job.student, job.teacher_eos, job.student_eos)
    job.check_pair(pair)
    device = choose_device(job.device)
    settings = describe(job, pair, device)
    found = None if job.overwrite else find_resume(job.output, settings, survey, source)
    resume = found or Resume(Entry(source.find(first)))
    settings.setdefault(BATCH_TOKENS, resume.batch_tokens)
    if not resume.checked:
        place = resume.entry.place
        left = stop - place.index
        check(source, place, stop, pair, prompts, lambda done: report("checking", done, left))
    if resume.complete:
        tell(f"{job.output}: already complete")
    elif found is not None:
        tell(f"{job.output}: going on after {resume.entry.summary.texts} of {stop - first} texts")
    return Start(pair, device, settings, survey, first, stop, resume)


def load_scorer(job: Job, start: Start) -> ct.Scorer:
    """Return the scorer; its batches are those of the job, of earlier runs, or what suits the model: it is noted."""
    teacher = load_teacher(job.teacher, job.dtype, start.device, start.settings[BATCH_TOKENS])
    start.settings[BATCH_TOKENS] = teacher.batch_tokens
    return ct.Scorer(
        teacher, start.pair, canonical=job.canonical, tolerance=job.tolerance, max_rows=job.max_rows
    )


def score_feed(
    scorer: ct.Scorer, feed: Feed, output: Output, entry: Entry, report: Callable[[int], None]
) -> Summary:
    """Score batches and write each as it comes, from ``entry`` on; return the sums, those before included."""
    begin, before, summary = time.perf_counter(), entry.summary, replace(entry.summary)
    bounds = scorer.pair.regime == "general"
    report(summary.texts)
    batches = cast("Generator[list[ct.Score], None, None]", scorer.score_batches(feed))
    # Closed at once, also by an interrupt: a thread of theirs reads the input.
    with closing(batches):
        try:
            for scores in batches:
                index = entry.place.index + summary.texts - before.texts
                work = feed.pending.popleft()
                _add(summary, work, scores, scorer)
                _add_times(summary, before, scorer, begin)
                lines = as_lines(index, scores, bounds)
                if work.whole:
                    output.append(lines, work.after, replace(summary))
                else:
                    output.write(lines)
                report(summary.texts)
        except (TextError, TeacherError) as error:
            raise feed.blame(error) from error
        except torch.OutOfMemoryError as error:
            hint = "out of memory: fewer --batch-tokens need less (and --overwrite)"
            raise feed.blame(TeacherError(hint)) from error
    return summary


def as_lines(index: int, scores: list[ct.Score], bounds: bool = False) -> bytes:
    """Return the output's lines of consecutive records, the first of which has this index."""
    records = (as_json(index + i, score, bounds) for i, score in enumerate(scores))
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()


def as_json(index: int, score: ct.Score, bounds: bool = False) -> dict[str, Any]:
    """Return the output line of one record. ``total`` is log P of the whole text, in nats.

    bounds: with those of ``logprobs`` and of ``total``, which without end-of-text may be an estimate.
    """
    record = {
        "index": index,
        "student_ids": [int(i) for i in score.student_ids],
        "logprobs": [_number(x) for x in score.logprobs],
        "total": _number(score.total),
        "noncanonical_mass": [_number(x) for x in score.noncanonical_mass],
        "rows": [int(x) for x in score.rows],
        "status": [int(x) for x in score.status],
    }
    if bounds:
        record["lower"] = [_number(x) for x in score.lower]
        record["upper"] = [_number(x) for x in score.upper]
        # Of no tokens P is 1.
        record["total_lower"] = _number(score.prefix_lower[-1]) if len(score.prefix_lower) else 0.0
        record["total_upper"] = _number(score.prefix_upper[-1]) if len(score.prefix_upper) else 0.0
    return record


def _add(summary: Summary, work: Work, scores: list[ct.Score], scorer: ct.Scorer) -> None:
    """Add a batch to the sums."""
    for row, score in zip(work.rows, scores, strict=True):
        own = len(scorer.pair.teacher.encode(row.text, start=row.start)) + row.ended
        summary.add(row.size, score, own)


def _add_times(summary: Summary, before: Summary, scorer: ct.Scorer, begin: float) -> None:
    """Set the seconds: those of earlier runs, and this one's."""
    times = scorer.timings
    summary.plan = before.plan + times.plan
    summary.teacher = before.teacher + times.teacher
    summary.aggregation = before.aggregation + times.aggregation
    summary.seconds = before.seconds + time.perf_counter() - begin


def _number(value: float) -> float | str:
    """JSON has no infinities: a probability of zero is the string "-inf"."""
    return "-inf" if value == -math.inf else float(value)
