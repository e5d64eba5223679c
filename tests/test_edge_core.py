"""edge_cases.md, Core: items 2, 3, 4, 6 and 8.

Items 1 and 7 are test_toys_scores.py, item 5 is test_toys_tokenizer.py and, on real tokenizers,
test_real_canonical.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from handmade import WORDS, byte_level, ct, id_of, pair_of, random_teacher
from oracle import toys


def test_02_every_student_gives_a_text_the_same_probability() -> None:
    pytest.importorskip("torch")
    teacher = random_teacher(WORDS.tok.vocab_size)
    texts = ["ab ab\naé", "", "  ab", "é\n\nabé b"]
    totals: dict[str, list[list[float]]] = {"renormalize": [], "mask": []}
    for merges in range(len(WORDS.spec["model"]["merges"]) + 1):
        pair = pair_of(WORDS, WORDS.tok.first_merges(merges))
        for canonical, found in totals.items():
            batch = ct.Scorer(teacher, pair, canonical=canonical).score(texts)
            for score in batch:
                assert np.sum(score.logprobs) == pytest.approx(score.prefix_lower[-1], abs=1e-9)
            found.append([score.total for score in batch])
    for found in totals.values():
        np.testing.assert_allclose(found, [found[0]] * len(found), rtol=0, atol=1e-9)


def test_03_end_of_text_is_counted_once_and_where_the_text_may_end() -> None:
    torch = pytest.importorskip("torch")
    made = byte_level("<ae", "< e", added=[toys.added_token("<a>", special=True)])
    student = made.tok.first_merges(0)
    pair = pair_of(made, student)
    width = made.tok.vocab_size
    less = id_of(student, b"<")

    def probability(eos: float) -> float:
        """P("<") where end-of-text has so much of the row, at the cost of "a"."""
        row = np.full(width, 0.1)
        row[made.eos] = eos
        row[made.ids("a")[0]] = 1 - (row.sum() - row[made.ids("a")[0]])
        teacher = ct.TableTeacher(lambda path: np.log(row), width)
        found = ct.Scorer(teacher, pair, canonical="mask").next_token([])
        return float(torch.exp(found.logprobs)[less])

    # "<" is also how end-of-text's own content begins: mass that moves there must not reach the byte.
    assert [probability(0.05), probability(0.3)] == pytest.approx([0.2, 0.2], abs=1e-12)
    found = ct.Scorer(random_teacher(width), pair).next_token([])
    assert float(torch.exp(found.logprobs).sum()) == pytest.approx(1, abs=1e-12)
    # Inside a character no text ends.
    inside = byte_level("é", "\u00e9 \u00e9")
    pair = pair_of(inside, inside.tok.first_merges(0))
    scorer = ct.Scorer(random_teacher(inside.tok.vocab_size), pair)
    for prefix, ends in ((b"", True), (b"\xc3", False), (b"\xc3\xa9", True)):
        found = scorer.next_token([id_of(pair.student, bytes([byte])) for byte in prefix])
        assert np.isfinite(float(found.logprobs[pair.student_eos[0]])) == ends


def test_04_the_same_tokenizer_gives_plain_log_probabilities() -> None:
    pytest.importorskip("torch")
    made = byte_level("ab")
    teacher = random_teacher(made.tok.vocab_size)
    pair = pair_of(made, made.tok, made.eos)
    assert pair.regime == "same"
    (score,) = ct.Scorer(teacher, pair).score(["abba"], prompts=[(0,)])
    ids = [*made.ids("a", "b", "b", "a"), made.eos]
    rows = teacher.rows([(0, *ids[:i]) for i in range(len(ids))]).numpy()
    np.testing.assert_allclose(score.logprobs, rows[np.arange(len(ids)), ids], rtol=0, atol=1e-12)


def test_06_parallel_equals_serial() -> None:
    pair = pair_of(WORDS, WORDS.tok.first_merges(2))
    texts = ["ab " * (i % 7) + "é\n" * (i % 3) for i in range(400)]
    one, many = (pair.plan(texts, num_threads=threads) for threads in (1, 4))
    for field in (
        "node_token",
        "node_parent",
        "node_depth",
        "node_ptr",
        "range_node",
        "range_first",
        "range_last",
    ):
        assert np.array_equal(getattr(one, field), getattr(many, field)), field
    alone = [pair.plan([text]) for text in texts[:20]]
    assert one.node_ptr[20] == sum(len(plan.node_token) for plan in alone)
    long = ["ab é\n" * 20_000] * 3
    serial, parallel = (WORDS.tok.encode_batch(long, num_threads=threads) for threads in (1, 4))
    assert np.array_equal(serial.values, parallel.values)


def test_08_covers_of_nothing_and_of_what_no_text_is() -> None:
    assert WORDS.covers(b"") == {()}
    assert WORDS.covers(b"xyz") == set()
    assert WORDS.covers(b"ab\xff") == set()
    # A text that is longer than any to which the teacher gives probability.
    pytest.importorskip("torch")
    width = WORDS.tok.vocab_size
    row = np.full(width, -np.inf)
    row[WORDS.eos] = 0
    pair = pair_of(WORDS, WORDS.tok.first_merges(1))
    (score,) = ct.Scorer(ct.TableTeacher(lambda path: row, width), pair).score(["ab ab"])
    assert np.all(np.isneginf(score.logprobs)) and np.all(score.status == 4)
