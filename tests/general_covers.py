"""`enumerate_covers` in the general regime against brute force: byte covers, each with its decision."""

from __future__ import annotations

import random
from typing import Any

import crosstok as ct
from general_checks import Tally
from general_pairs import Sample
from oracle.brute import Ids
from oracle.general import IN, OUT, UNDECIDED, GeneralPair

NAMES = {IN: "in", UNDECIDED: "undecided", OUT: "out"}


def check_covers(sample: Sample, tally: Tally) -> None:
    """Every prefix of the text, and the complete text (`start=False`: covers are those of continuing texts)."""
    brute = sample.continued
    ids = brute.student.encode(sample.text)
    tau = brute.teacher.encode(sample.text)
    if ids is None or tau is None:  # a text of a document only
        return
    batch = ct.enumerate_covers(sample.pair, [[*ids, sample.student.eos]])
    assert batch.text_ptr.tolist() == [0, len(ids) + 2]
    for i in range(len(ids) + 1):
        compare(sample, brute, ids[:i], listed(batch, i), tally)
    ended = {(*cover, sample.teacher_eos[0]): IN for cover, _ in brute.relative_covers(ids, True).covers}
    assert listed(batch, len(ids) + 1) == ended, f"complete text {ids}: brute force {ended}"
    tally["samples"] += 1


def check_foreign(sample: Sample, tally: Tally) -> None:
    """Random student tokens, most of them no text's encoding: whatever is listed must be there, and nothing else."""
    brute, rng = sample.continued, random.Random(sample.name)
    ordinary = sorted(set(range(brute.student.vocab_size)) - brute.student.special)
    sequences = [tuple(rng.choices(ordinary, k=rng.randint(1, 2))) for _ in range(2)]
    batch = ct.enumerate_covers(sample.pair, [list(ids) for ids in sequences])
    for number, ids in enumerate(sequences):
        at = int(batch.text_ptr[number])
        for i in range(len(ids) + 1):
            compare(sample, brute, ids[:i], listed(batch, at + i), tally)


def listed(batch: Any, position: int) -> dict[Ids, int]:
    """The covers of a position and their statuses. None is listed twice."""
    paths = [tuple(path.tolist()) for path in batch.paths(position)]
    first = int(batch.position_ptr[position])
    status = batch.status[first : first + len(paths)].tolist()
    assert len(set(paths)) == len(paths), f"position {position}: listed twice: {paths}"
    return dict(zip(paths, status, strict=True))


def compare(sample: Sample, brute: GeneralPair, s: Ids, got: dict[Ids, int], tally: Tally) -> None:
    """What `crosstok` says of the byte covers of s.

    A witness settles a question, its absence up to a horizon does not: where brute force has all texts on one side
    and `crosstok` calls it undecided, texts far longer are drawn, and what is still one-sided then is counted.
    """
    known = brute.byte_covers(s)
    assert set(got) <= set(known), f"{s}: not covers of its bytes: {set(got) - set(known)}"
    for e, truth in known.items():
        given = got.get(e, OUT)
        what = f"{e} for {s}: {NAMES[given]}, brute force {NAMES[truth]}"
        tally[NAMES[given]] += 1
        if given == truth:
            continue
        assert given == UNDECIDED, what
        truth = brute.distant(e, s, random.Random(f"{sample.name} {e} {s}"), 2000, brute.far + 12)
        tally["undecided, witness far"] += truth == UNDECIDED
        tally["undecided, one witness"] += truth != UNDECIDED
        if truth != UNDECIDED:
            print(f"{sample}: {what}, also far beyond")
