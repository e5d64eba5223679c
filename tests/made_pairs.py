"""Pairs of tokenizers written down by hand (`handmade`) in the general regime, held against brute force."""

from __future__ import annotations

from collections import Counter
from typing import Any

import crosstok as ct
from general_checks import check_exact, check_next, check_score, check_sum, check_total
from general_pairs import MODES, Sample
from handmade import Made
from oracle import toys
from oracle.brute import Ids
from oracle.pairs import brute_pair
from oracle.scores import random_teacher
from test_toys_distributions_general import FLOAT32, errors, found

# Rows at tolerance 0, over all tokens.
EXACT_ROWS = 1e-5


def general(teacher: Made, student: Made) -> Any:
    """The pair; it is of the general regime."""
    pair = ct.Pair(teacher.tok, student.tok, teacher_eos=teacher.eos, student_eos=student.eos)
    assert pair.regime == "general"
    return pair


def sample_of(teacher: Made, student: Made, text: str, chars: str, prompt: Ids | None = (0,)) -> Sample:
    """A sample for brute force. chars: every character that the teacher can spell; few, for all texts are enumerated.

    prompt: None where the text starts a document.
    """
    pair = general(teacher, student)
    one, other = (toys.Toy("made", made.spec, list(chars), made.eos) for made in (teacher, student))
    brute = brute_pair(one, other, start=prompt is None)
    fn = random_teacher(teacher.tok.vocab_size, sum(text.encode()))
    return Sample("made", one, other, pair, fn, brute, [teacher.eos], text, prompt, dead=False)


def check_pair(sample: Sample) -> None:
    """`check_scores`, and distributions, in both modes."""
    check_scores(sample)
    for mode in MODES:
        check_rows(sample, mode)


def check_scores(sample: Sample) -> None:
    """Scores between bounds and at tolerance 0, and next tokens, in both modes."""
    for mode in MODES:
        (bounded,) = sample.scorer(mode).score([sample.text], sample.prompts)
        check_score(sample, mode, bounded)
        (exact,) = sample.scorer(mode, tolerance=0.0).score([sample.text], sample.prompts)
        check_exact(sample, mode, exact)
        check_sum(sample, mode, exact)
        for score in (bounded, exact):
            check_total(sample, mode, score)
        for size in range(len(sample.ids) + 1):
            following = sample.scorer(mode, tolerance=0.0).next_token(sample.ids[:size], prompt=sample.prompt)
            check_next(sample, mode, following, sample.ids[:size], True, Counter())


def check_rows(sample: Sample, mode: str) -> None:
    """No row of the distributions is further off than it says; at tolerance 0 every token is right.

    Then no more than what is lost is missing from a row's total, nor undecided.
    """
    for options in ({}, {"tolerance": 0.0}):
        rows = found(sample, mode, **options)
        for i, total in enumerate(rows.logprobs.double().exp().sum(dim=1).tolist()):
            little, much, lost = errors(sample, mode, rows, i)
            undecided = float(rows.undecided_mass[i])
            limit = EXACT_ROWS if options else FLOAT32 + undecided
            assert little <= limit, (mode, options, i, little, limit)
            assert much <= limit, (mode, options, i, much, limit, lost)
            if options:
                assert total == 0 or total >= 1 - lost - EXACT_ROWS, (mode, i, total, lost)
                assert undecided <= lost + EXACT_ROWS, (mode, i, undecided, lost)
