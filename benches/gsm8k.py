"""The main job on real input: GSM8K answers under a real teacher, scored for students of its first merges.

    python benches/gsm8k.py exact --teacher DIR --data gsm8k_train.jsonl [--texts 200]
    python benches/gsm8k.py speed --teacher DIR --data gsm8k_train.jsonl [--texts 8 --repeats 7]

``exact`` checks, and prints what it saw: equal totals for every student; the prefix probability at random positions
against explicit covers, found without the plan's tables, one plain forward each; raw sums of distributions. ``speed``
times label scoring and dense distributions against plain forwards over prompt and canonical tokens with a log-softmax
at the completion's rows (design.md, section 8), as the median of paired ratios. DIR is a transformers model directory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crosstok as ct
import numpy as np
import torch
from crosstok import _core
from transformers import AutoModelForCausalLM, AutoTokenizer

MERGES: tuple[int | None, ...] = (0, 8_000, 24_000, None)
# Two float32 forwards of SmolLM2 over a prefix of 180 tokens differ by up to 1e-4 nats in its log-probability, and each
# from float64 by as much (1.1e-4 seen for a plain forward): sums of rounding errors, not of the method.
# With the model in float64 its norms and rotations are still computed in float32, which leaves 2e-6.
ROUNDING = {torch.float32: 3e-4, torch.float64: 1e-5}


@dataclass
class Job:
    """The teacher with texts and prompts."""

    model: Any
    teacher: ct.HFTeacher
    tokenizer: ct.Tokenizer
    texts: list[str]
    prompts: list[list[int]]

    def student(self, merges: int | None) -> ct.Tokenizer:
        """The student of the first ``merges`` merges; None: of all."""
        return self.tokenizer.first_merges(1 << 30 if merges is None else merges)

    def scorer(self, merges: int | None) -> ct.Scorer:
        """A scorer for that student."""
        return ct.Scorer(self.teacher, ct.Pair(self.tokenizer, self.student(merges)))


def load(args: argparse.Namespace) -> Job:
    """Read model, tokenizer and data. The chat template renders the question as prompt."""
    model: Any = AutoModelForCausalLM.from_pretrained(args.teacher, dtype=getattr(torch, args.dtype)).to(
        args.device
    )
    chat: Any = AutoTokenizer.from_pretrained(args.teacher)
    rows = [json.loads(line)["messages"] for line in Path(args.data).read_text().splitlines()[: args.texts]]
    prompts = [
        chat.apply_chat_template(row[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        for row in rows
    ]
    tokenizer = ct.Tokenizer.from_pretrained(args.teacher)
    return Job(model, ct.HFTeacher(model), tokenizer, [row[1]["content"] for row in rows], prompts)


def exact(args: argparse.Namespace) -> None:
    """Run the checks of this file's head."""
    job = load(args)
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
        truth, used = oracle(job, scorer.pair.student, ids, job.prompts[text])
        difference = abs(truth - float(scores[text].prefix_lower[length - 1]))
        worst, covers = max(worst, difference), covers + used
        beyond += difference > 1e-4
    print(
        f"        {count} positions, {covers} covers: worst prefix difference {worst:.2e} nats, {beyond} beyond 1e-4"
    )
    if worst > ROUNDING[job.model.dtype]:
        sys.exit("prefix probabilities differ by more than rounding")


def oracle(job: Job, student: ct.Tokenizer, ids: list[int], prompt: list[int]) -> tuple[float, int]:
    """log P(s_1..s_n) from explicit covers: no tables of the library, one plain forward for each cover's path.

    Walks all teacher sequences whose student encoding agrees with ``ids`` as far as it goes; a token is spelled by
    undoing the teacher's merges until the student has every part; canonicality is the tokenizer's own.
    """
    spelled = spellings(job, student)
    open_paths: list[tuple[list[int], int]] = [([], 0)]
    terms: list[float] = []
    while open_paths:
        path, at = open_paths.pop()
        rest = tuple(ids[at:])
        crossing = [t for t in spelled.covering(rest) if job.tokenizer.is_canonical([*path, t])]
        inner = [t for t in spelled.inside(rest) if job.tokenizer.is_canonical([*path, t])]
        terms += log_q(job, path, crossing, prompt) if crossing else []
        open_paths += [([*path, t], at + len(spelled.of[t])) for t in inner]
    return float(np.logaddexp.reduce(terms)), len(terms)


def log_q(job: Job, path: list[int], last: list[int], prompt: list[int]) -> list[float]:
    """log q of a teacher path with each of several last tokens: one plain forward, renormalised at every step."""
    with torch.inference_mode():
        logits = job.model(torch.tensor([prompt + path], device=job.model.device)).logits[
            0, len(prompt) - 1 :
        ]
    total = 0.0
    for step in range(len(path) + 1):
        allowed = np.flatnonzero(job.tokenizer.canonical_next(path[:step])).tolist()
        if job.tokenizer.is_canonical(path[:step], complete=True):
            allowed += list(job.tokenizer.eos_ids)
        row = logits[step].double()
        row = row - row[allowed].logsumexp(0)
        if step < len(path):
            total += float(row[path[step]])
    return [total + float(row[token]) for token in last]


class Spelled:
    """Student ids of every teacher token, from the teacher's merges and the student's vocabulary alone."""

    def __init__(self, teacher: ct.Tokenizer, student: ct.Tokenizer) -> None:
        by_bytes = {student.token_bytes(id): id for id in range(student.vocab_size)}
        special = set(teacher.special_ids.tolist())
        self.of = {t: expand(teacher, by_bytes, t) for t in range(teacher.vocab_size) if t not in special}
        self.longest = max(len(spelled) for spelled in self.of.values())
        self.by_spelling: dict[tuple[int, ...], list[int]] = {}
        for token, spelled in self.of.items():
            self.by_spelling.setdefault(spelled, []).append(token)

    def covering(self, rest: tuple[int, ...]) -> list[int]:
        """Tokens whose spelling starts with ``rest``."""
        if len(rest) > self.longest:
            return []
        return [token for token, spelled in self.of.items() if spelled[: len(rest)] == rest]

    def inside(self, rest: tuple[int, ...]) -> list[int]:
        """Tokens that are spelled by a proper start of ``rest``."""
        lengths = range(1, min(len(rest), self.longest + 1))
        return [token for length in lengths for token in self.by_spelling.get(rest[:length], [])]


_SPELLED: dict[str, Spelled] = {}


def spellings(job: Job, student: ct.Tokenizer) -> Spelled:
    """The spellings for a student, made once."""
    if student.fingerprint not in _SPELLED:
        _SPELLED[student.fingerprint] = Spelled(job.tokenizer, student)
    return _SPELLED[student.fingerprint]


def expand(teacher: ct.Tokenizer, by_bytes: dict[bytes, int], token: int) -> tuple[int, ...]:
    """Undo merges of the teacher until the student has every part."""
    kept = by_bytes.get(teacher.token_bytes(token))
    if kept is not None:
        return (kept,)
    _, left, right = teacher.merge_dag(token)[0]
    return (*expand(teacher, by_bytes, left), *expand(teacher, by_bytes, right))


def check_sums(job: Job, scorer: ct.Scorer, texts: int) -> None:
    """Raw sums of whole distributions; nothing was normalised."""
    worst, rows = 0.0, 0
    for found in scorer.iter_distributions(job.texts[:texts], job.prompts[:texts]):
        sums = found.logprobs.double().exp().sum(dim=1)
        worst, rows = max(worst, float((sums - 1).abs().max())), rows + len(sums)
    print(f"        {rows} distributions: largest |Σ P − 1| {worst:.2e} (bar: 1e-6)")
    if worst > 1e-6:
        sys.exit("a distribution does not sum to 1")


def speed(args: argparse.Namespace) -> None:
    """Time label scoring and dense distributions against plain forwards."""
    if _core.build_profile != "release":
        sys.exit("this is a debug build: install with `pip install .` first")
    job = load(args)
    ids = [ids.tolist() for ids in job.tokenizer.encode_batch(job.texts)]

    def plain() -> None:
        for prompt, completion in zip(job.prompts, ids, strict=True):
            with torch.inference_mode():
                keep = torch.arange(len(prompt) - 1, len(prompt) + len(completion))
                tokens = torch.tensor([prompt + completion], device=job.model.device)
                job.model(tokens, logits_to_keep=keep).logits.float().log_softmax(-1)

    print(f"{args.texts} texts, {args.repeats} pairs, {args.device}, {torch.get_num_threads()} threads")
    for merges in args.merges:
        for name, ours in runs(job, job.scorer(merges)).items():
            ratios, base = paired(plain, ours, args.repeats, args.device)
            print(
                f"{merges:>6} merges, {name:<18}: {statistics.median(ratios):.2f} x plain"
                f" (of {base:.2f} s; {min(ratios):.2f} to {max(ratios):.2f})"
            )


def runs(job: Job, scorer: ct.Scorer) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    each = list(zip(job.texts, job.prompts, strict=True))
    return {
        "labels, one by one": lambda: [scorer.score([text], [prompt]) for text, prompt in each],
        "labels, batched": lambda: scorer.score(job.texts, job.prompts),
        "dense": lambda: [scorer.distributions([text], [prompt]) for text, prompt in each],
    }


def paired(
    plain: Callable[[], Any], ours: Callable[[], Any], repeats: int, device: str
) -> tuple[list[float], float]:
    """Ratios of alternating runs after one warm-up each, and the baseline's median time."""
    ours()
    plain()
    ratios, bases = [], []
    for _ in range(repeats):
        times = []
        for run in (plain, ours):
            start = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
        bases.append(times[0])
    return ratios, statistics.median(bases)


def main() -> None:
    """Read the command line."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["exact", "speed"])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--positions", type=int, default=201)
    parser.add_argument("--sums", type=int, default=4, help="texts whose distributions are summed")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--merges", type=int, nargs="+", default=[24_000, 8_000, 0], help="of speed's students"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    args = parser.parse_args()
    {"exact": exact, "speed": speed}[args.what](args)


if __name__ == "__main__":
    main()
