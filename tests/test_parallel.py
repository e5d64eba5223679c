"""Parallel equals serial."""

from __future__ import annotations

import crosstok as ct
import numpy as np
import pytest
from crosstok.demo import __path__ as DEMO

TEXTS = [f"Return {word} if there are {n} strings.\n" * (1 + n % 4) for n, word in enumerate("abcdefgh" * 4)]
ARRAYS = (
    "student_ids",
    "student_ptr",
    "node_ptr",
    "node_token",
    "node_parent",
    "node_depth",
    "node_complete",
    "range_node",
    "range_first",
    "range_last",
    "range_depth",
)


def make_pair() -> ct.Pair:
    """A pair without any table yet."""
    tok = ct.Tokenizer.from_pretrained(DEMO[0])
    return ct.Pair(tok, tok.first_merges(150))


@pytest.fixture(scope="module")
def serial() -> ct.Pair:
    return make_pair()


@pytest.mark.parametrize("threads", [0, 2, 4])
def test_encode_batch(threads: int) -> None:
    tok = ct.Tokenizer.from_pretrained(DEMO[0])
    texts = TEXTS * 100  # more than the 64 KiB below which no thread starts
    one, many = tok.encode_batch(texts, num_threads=1), tok.encode_batch(texts, num_threads=threads)
    assert np.array_equal(one.values, many.values) and np.array_equal(one.offsets, many.offsets)


@pytest.mark.parametrize("every_node", [False, True])
@pytest.mark.parametrize("threads", [0, 4])
def test_plan(serial: ct.Pair, threads: int, every_node: bool) -> None:
    one = serial.plan(TEXTS, every_node=every_node, num_threads=1)
    many = make_pair().plan(TEXTS, every_node=every_node, num_threads=threads)
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(many, name)), name
    nodes = np.arange(min(200, len(one.node_token)))
    width = serial.teacher.vocab_size
    assert np.array_equal(one.masks(nodes, width, 1), many.masks(nodes, width, threads))


@pytest.mark.parametrize("threads", [0, 4])
def test_enumerate_covers(serial: ct.Pair, threads: int) -> None:
    ids = [[*serial.encode(text), *serial.student_eos[:1]] for text in TEXTS]
    one = ct.enumerate_covers(serial, ids, num_threads=1)
    many = ct.enumerate_covers(make_pair(), ids, num_threads=threads)
    for name in vars(one):
        assert np.array_equal(getattr(one, name), getattr(many, name)), name


def test_scores_do_not_depend_on_threads(serial: ct.Pair) -> None:
    pytest.importorskip("torch")
    size = serial.teacher.vocab_size

    def row(ids: tuple[int, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        logits: np.ndarray[tuple[int], np.dtype[np.float64]] = np.cos(np.arange(size) * (1.0 + sum(ids)))
        return logits - float(np.logaddexp.reduce(logits))

    totals = [
        [score.logprobs.tolist() for score in ct.Scorer(teacher, serial, num_threads=n).score(TEXTS[:4])]
        for teacher in [ct.TableTeacher(row, size)]
        for n in (1, 4)
    ]
    assert totals[0] == totals[1]
