"""edge_cases.md, Core, for unrelated tokenizers: items 2 to 4 and 6 to 8.

Items 1 and 5 are test_toys_general.py and test_toys_distributions_general.py; all of them also test_real_pairs.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from handmade import EOS, WORDS, Made, byte_level, ct, id_of, pair_of, random_teacher
from made_pairs import general
from oracle import toys

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

GPT2 = toys.byte_level(True)
# Students of `WORDS` that merge otherwise.
STUDENTS = (
    byte_level("ab \né", "b a", "␣ b", "␣b a", "\n a", pre_tokenizer=GPT2),
    byte_level("ab \né", "a a", "b b", "\n \n"),
    byte_level("ab \né", "é a", "a b", "ab a"),
)
TEXTS = ["ab ab\naé", "", "  ab", "é\n\nabé b", "bab"]
TEACHER = random_teacher(WORDS.tok.vocab_size, seed=11)
# What a plan is made of in this regime as well.
ARRAYS = ("student_ids", "node_ptr", "node_token", "node_parent", "range_node", "range_first", "range_last")


def scorer_of(student: Made = STUDENTS[0], **options: Any) -> Any:
    """A scorer for one of the students."""
    return ct.Scorer(TEACHER, general(WORDS, student), **options)


@pytest.mark.parametrize("mode", ["renormalize", "mask"])
def test_02_every_student_gives_a_text_the_same_probability(mode: str) -> None:
    """Exact without any further row; at tolerance 0 the labels add up to it. No prefix has more than its bytes."""
    byte_student = WORDS.tok.first_merges(0)
    by_bytes = ct.Scorer(TEACHER, pair_of(WORDS, byte_student), canonical=mode)
    assert by_bytes.pair.regime == "subset"
    wanted = by_bytes.score(TEXTS)
    for student in STUDENTS:
        plain = scorer_of(student, canonical=mode).score(TEXTS)
        exact = scorer_of(student, canonical=mode, tolerance=0.0).score(TEXTS)
        for text, known, bounded, score in zip(TEXTS, wanted, plain, exact, strict=True):
            assert bounded.total == pytest.approx(known.total, abs=1e-9)
            assert score.total == pytest.approx(known.total, abs=1e-9)
            assert score.logprobs.sum() == pytest.approx(known.total, abs=1e-9)
            ends = np.cumsum([len(student.token_bytes[int(id)]) for id in score.student_ids[:-1]])
            assert text.encode() == b"".join(student.token_bytes[int(id)] for id in score.student_ids[:-1])
            of_bytes = known.prefix_lower[ends - 1] if len(ends) else np.zeros(0)
            assert (score.prefix_upper[:-1] <= of_bytes + 1e-9).all()


def test_03_rows_sum_to_one_and_end_where_a_text_may() -> None:
    """Every student spells every text of the teacher: nothing is lost. Inside a character no text ends."""
    for student in STUDENTS:
        scorer = scorer_of(student, tolerance=0.0)
        for rows in scorer.distributions(TEXTS):
            assert float((rows.logprobs.double().exp().sum(dim=1) - 1).abs().max()) < 1e-6
        inside = [] if student is STUDENTS[2] else [id_of(student.tok, b"\xc3")]  # that one merges the bytes
        for prefix in ([], inside):
            found = scorer.next_token(prefix)
            assert np.isfinite(float(found.logprobs[student.eos])) == (not prefix)
            assert float(found.logprobs.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_03_mass_that_moves_to_the_end_changes_no_other_token() -> None:
    """P("<") stays what it is, though end-of-text is spelled with it."""
    teacher, student = byte_level("<ae", "< e"), byte_level("<ae", "a e", "e <")
    assert EOS.startswith("<")
    width, less = teacher.tok.vocab_size, id_of(student.tok, b"<")

    def probabilities(eos: float) -> tuple[float, float]:
        """P("<") of next_token and of the distributions, where end-of-text has so much of the row."""
        row = np.full(width, 0.1)
        row[teacher.eos] = eos
        row[teacher.ids("a")[0]] += 1 - row.sum()
        table = ct.TableTeacher(lambda path: np.log(row), width)
        scorer = ct.Scorer(table, general(teacher, student), canonical="mask", tolerance=0.0)
        (rows,) = scorer.distributions([""])
        following = scorer.next_token([])
        assert float(following.logprobs[student.eos].exp()) == pytest.approx(eos, abs=1e-9)
        return float(following.logprobs[less].exp()), float(rows.logprobs[0, less].exp())

    assert probabilities(0.05) == pytest.approx((0.2, 0.2), abs=1e-6)
    assert probabilities(0.3) == pytest.approx((0.2, 0.2), abs=1e-6)


def test_04_distributions_of_the_same_tokenizer_are_the_rows() -> None:
    made = byte_level("ab")
    teacher = random_teacher(made.tok.vocab_size)
    scorer = ct.Scorer(teacher, pair_of(made, made.tok, made.eos))
    assert scorer.pair.regime == "same"
    ids = made.ids("a", "b", "b")
    paths = [(0, *ids[:i]) for i in range(len(ids) + 1)]
    (rows,) = scorer.distributions(["abb"], prompts=[(0,)])
    (cut,) = scorer.distributions(["abb"], prompts=[(0,)], top_k=made.tok.vocab_size)
    np.testing.assert_allclose(rows.logprobs.numpy(), teacher.rows(paths).numpy(), atol=1e-6)
    dense = np.full(rows.logprobs.shape, -np.inf)
    dense[cut.entry_rows, cut.ids] = cut.logp
    np.testing.assert_allclose(dense, rows.logprobs.numpy(), atol=1e-6)


@pytest.mark.parametrize("every_node", [False, True])
def test_06_parallel_equals_serial(every_node: bool) -> None:
    texts = ["ab " * (i % 7) + "é\n" * (i % 3) for i in range(60)]
    student = STUDENTS[0]
    one = general(WORDS, student).plan(texts, every_node=every_node, num_threads=1)
    many = general(WORDS, student).plan(texts, every_node=every_node, num_threads=4)
    for field in ARRAYS:
        assert np.array_equal(getattr(one, field), getattr(many, field)), field
    wanted, found = (scorer_of(num_threads=threads, tolerance=0.05).score(texts[:20]) for threads in (1, 4))
    for left, right in zip(wanted, found, strict=True):
        assert np.array_equal(left.lower, right.lower) and np.array_equal(left.upper, right.upper)


@pytest.mark.parametrize("options", [{}, {"tolerance": 0.02, "max_rows": 3}])
def test_06_distributions_do_not_depend_on_the_batch(options: dict[str, Any]) -> None:
    scorer = scorer_of(STUDENTS[1], **options)
    together = scorer.distributions(TEXTS)
    targets = scorer.distributions(TEXTS, top_k=3)
    for text, rows, target in zip(TEXTS, together, targets, strict=True):
        (alone,) = scorer.distributions([text])
        np.testing.assert_allclose(rows.logprobs.exp().numpy(), alone.logprobs.exp().numpy(), atol=1e-6)
        np.testing.assert_allclose(rows.undecided_mass.numpy(), alone.undecided_mass.numpy(), atol=1e-6)
        (one,) = scorer.distributions([text], top_k=3)
        assert np.array_equal(target.ptr, one.ptr) and np.array_equal(target.ids, one.ids)
        np.testing.assert_allclose(target.logp, one.logp, atol=1e-5)


def test_06_a_packed_model_gives_what_its_rows_give() -> None:
    """Rows and bounds of a model that reads trees, extended and not, against one forward for each path."""
    pytest.importorskip("transformers")
    import hf_models

    teacher = ct.HFTeacher(hf_models.make("llama"))
    table = ct.TableTeacher(lambda ids: teacher.rows([ids])[0].double(), teacher.vocab_size)
    pair = general(WORDS, STUDENTS[0])
    for options in ({}, {"tolerance": 0.02, "max_rows": 2}):
        packed, plain = (ct.Scorer(t, pair, **options) for t in (teacher, table))
        for left, right in zip(packed.score(TEXTS), plain.score(TEXTS), strict=True):
            np.testing.assert_allclose(np.exp(left.lower), np.exp(right.lower), atol=1e-4)
            np.testing.assert_allclose(np.exp(left.upper), np.exp(right.upper), atol=1e-4)
        for one, other in zip(packed.distributions(TEXTS), plain.distributions(TEXTS), strict=True):
            assert float((one.logprobs.exp() - other.logprobs.exp()).abs().max()) < 1e-4
            assert float((one.undecided_mass - other.undecided_mass).abs().max()) < 1e-4


def test_07_two_ways_to_a_row_agree() -> None:
    """At tolerance 0: next tokens, by bounds that meet, and distributions, by leaves that are replaced."""
    text = "ab ba\né"
    for student in STUDENTS:
        scorer = scorer_of(student, tolerance=0.0)
        (rows,) = scorer.distributions([text])
        for i in range(len(rows.student_ids) + 1):
            row = scorer.next_token(rows.student_ids[:i]).logprobs.exp()
            assert float((rows.logprobs[i].double().exp() - row).abs().max()) < 1e-6, i


@pytest.mark.parametrize("student", STUDENTS)
def test_07_undecided_mass_falls_with_the_budget(student: Made) -> None:
    """And never is a row further from the truth than it says."""
    text, before = "ab  ab\nab", np.inf
    (truth,) = scorer_of(student, tolerance=0.0).distributions([text])
    for options in ({}, *({"tolerance": 0.0, "max_rows": rows} for rows in (0, 1, 4, 16, 64))):
        (rows,) = scorer_of(student, **options).distributions([text])
        variation = (rows.logprobs.exp() - truth.logprobs.exp()).abs().sum(dim=1) / 2
        assert bool((variation <= rows.undecided_mass + 1e-6).all()), options
        total = float(rows.undecided_mass.sum())
        assert total <= before + 1e-6, options
        before = total
    assert before < 0.5 * float(scorer_of(student).distributions([text])[0].undecided_mass.sum())


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.0])
@pytest.mark.parametrize("student", STUDENTS)
def test_07_a_tolerance_is_kept(student: Made, tolerance: float) -> None:
    """Of whole distributions: without a limit of rows undecided mass is no larger."""
    for rows in scorer_of(student, tolerance=tolerance).distributions(TEXTS):
        assert float(rows.undecided_mass.max()) <= tolerance + 1e-6


def test_07_without_rows_what_is_wide_is_estimated() -> None:
    for score in scorer_of(tolerance=0.1, max_rows=0).score(TEXTS):
        wide = np.exp(score.upper) - np.exp(score.lower) > 0.1
        assert (score.status[wide] == ct.Status.ESTIMATED).all()


def test_08_the_root_is_undecided_and_not_out() -> None:
    """A student token may still come of what the teacher has not begun."""
    student = STUDENTS[0]
    covers = ct.enumerate_covers(general(WORDS, student), [student.ids(" b")])
    assert [path.tolist() for path in covers.paths(0)] == [[]]
    assert len(covers.paths(1)) > 0


def test_08_what_is_longer_than_any_text_of_the_teacher() -> None:
    """It ends every text at once: everything has probability zero, and nothing is NaN."""
    row = np.full(WORDS.tok.vocab_size, -np.inf)
    row[WORDS.eos] = 0
    table = ct.TableTeacher(lambda path: row, len(row))
    for options in ({}, {"tolerance": 0.0}):
        scorer = ct.Scorer(table, general(WORDS, STUDENTS[0]), **options)
        (score,) = scorer.score(["ab ab"])
        assert np.isneginf(score.logprobs).all() and (score.status == ct.Status.UNSUPPORTED).all()
        (rows,) = scorer.distributions(["ab ab"])
        assert float(rows.logprobs[0, STUDENTS[0].eos]) == pytest.approx(0, abs=1e-6)
        assert torch.isneginf(rows.logprobs[1:]).all()
