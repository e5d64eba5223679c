"""The checks of `gsm8k.py exact`: what the main job gives on real input is what it should be.

It prints what it saw: equal totals for every student; the prefix probability at random positions against explicit
covers, found without the plan's tables, one plain forward each; raw sums of distributions. A check that fails ends it
with a message and exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import crosstok as ct
import numpy as np
import torch
from crosstok import _core

from .explicit import prefix_logprob
from .inputs import read_chats
from .job import Job

MERGES: tuple[int | None, ...] = (0, 8_000, 24_000, None)
# Two float32 forwards of SmolLM2 over a prefix of 180 tokens differ by up to 1e-4 nats in its log-probability, and each
# from float64 by as much (1.1e-4 seen for a plain forward): sums of rounding errors, not of the method.
# With the model in float64 its norms and rotations are still computed in float32, which leaves 2e-6.
ROUNDING = {torch.float32: 3e-4, torch.float64: 1e-5}


def exact(args: argparse.Namespace) -> None:
    """Run the checks of this file's head."""
    job = Job.load(args.teacher, read_chats(args.data)[: args.texts], args.device, args.dtype)
    totals: dict[str, np.ndarray[Any, Any]] = {}
    rng = np.random.default_rng(0)
    print(f"{len(job.texts)} texts, {args.device}, {args.dtype}, {_core.build_profile} build")
    print("student   tokens  teacher rows  rows/canonical  total nats  non-canonical  seconds")
    canonical = sum(len(ids) + 1 for ids in job.tokenizer.encode_batch(job.texts))
    for merges in MERGES:
        scorer, name = job.scorer(merges), "all" if merges is None else str(merges)
        start = time.perf_counter()
        scores = scorer.score(job.texts, job.prompts)
        seconds = time.perf_counter() - start
        totals[name] = np.array([score.total for score in scores])
        rows = sum(int(score.rows.sum()) for score in scores)
        tokens = sum(len(score.student_ids) for score in scores)
        removed = np.mean(np.concatenate([score.noncanonical_mass for score in scores]))
        print(
            f"{name:>7} {tokens:8} {rows:13} {rows / canonical:15.3f} {totals[name].sum():11.2f}"
            f" {removed:14.2e} {seconds:8.1f}"
        )
        if merges is not None:
            check_positions(job, scorer, scores, args.positions // (len(MERGES) - 1) + 1, rng)
        check_sums(job, scorer, args.sums)
    spread = max(float(np.abs(value - totals["all"]).max()) for value in totals.values())
    print(f"largest difference of a text's total between students: {spread:.2e} nats (bar: 1e-4)")
    if spread > ROUNDING[job.model.dtype]:
        sys.exit("the totals differ")


def check_positions(
    job: Job, scorer: ct.Scorer, scores: list[ct.Score], count: int, rng: np.random.Generator
) -> None:
    """Prefix probabilities against explicit covers, one plain forward each."""
    worst, covers, beyond = 0.0, 0, 0
    for _ in range(count):
        text = int(rng.integers(len(scores)))
        length = int(rng.integers(1, len(scores[text].student_ids)))
        ids = scores[text].student_ids[:length].tolist()
        truth, used = prefix_logprob(job, scorer.pair.student, ids, job.prompts[text])
        difference = abs(truth - float(scores[text].prefix_lower[length - 1]))
        worst, covers = max(worst, difference), covers + used
        beyond += difference > 1e-4
    print(
        f"        {count} positions, {covers} covers: worst prefix difference {worst:.2e} nats, {beyond} beyond 1e-4"
    )
    if worst > ROUNDING[job.model.dtype]:
        sys.exit("prefix probabilities differ by more than rounding")


def check_sums(job: Job, scorer: ct.Scorer, texts: int) -> None:
    """Raw sums of whole distributions; nothing was normalised."""
    worst, rows = 0.0, 0
    for found in scorer.iter_distributions(job.texts[:texts], job.prompts[:texts]):
        sums = found.logprobs.double().exp().sum(dim=1)
        worst, rows = max(worst, float((sums - 1).abs().max())), rows + len(sums)
    print(f"        {rows} distributions: largest |Σ P − 1| {worst:.2e} (bar: 1e-6)")
    if worst > 1e-6:
        sys.exit("a distribution does not sum to 1")


def main() -> None:
    """Read the command line."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(prog="benches/gsm8k.py", description=__doc__)
    parser.add_argument("what", choices=["exact"])
    parser.add_argument("--teacher", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--positions", type=int, default=201)
    parser.add_argument("--sums", type=int, default=4, help="texts whose distributions are summed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    exact(parser.parse_args())
