"""Prefix probabilities from explicit covers: no tables of the library, one plain forward for each cover's path."""

from __future__ import annotations

import crosstok as ct
import numpy as np
import torch

from .job import Job


def prefix_logprob(job: Job, student: ct.Tokenizer, ids: list[int], prompt: list[int]) -> tuple[float, int]:
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
