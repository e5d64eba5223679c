"""edge_cases.md, Vocabulary, and Special tokens, templates, normalizers, for unrelated tokenizers: items 16 to 25.

Scores, next tokens and distributions, between bounds and at tolerance 0, against brute force where `check_pair` is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from general_pairs import load, with_second_eos
from handmade import WORDS, byte_level, ct, random_teacher, sentencepiece, uniform
from made_pairs import check_pair, check_rows, check_scores, general, sample_of
from oracle import scores, toys

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("text", ["abc", "ab ", " ab"])
def test_16_ignore_merges(text: str) -> None:
    """Tokens that no merge reaches are whole pretokens, and only those."""
    split = toys.byte_level(True)
    ignoring = byte_level("abc ", "a b", pre_tokenizer=split, extra=["abc", " ab"], ignore_merges=True)
    merging = byte_level("abc ", "b c", "␣ a", pre_tokenizer=split)
    check_pair(sample_of(ignoring, merging, text, "abc "))
    check_pair(sample_of(merging, ignoring, text, "abc "))


@pytest.mark.parametrize("text", ["abcb", "aabc"])
def test_17_improper_tokens_and_several_derivations(text: str) -> None:
    improper = byte_level("abc", "ab c", "a b", "b c")
    several = byte_level("abc", "b c", "a b", "ab c", "a bc")
    check_pair(sample_of(improper, several, text, "abc"))
    check_pair(sample_of(several, improper, text, "abc"))


@pytest.mark.parametrize("text", ["a\n", "é\n", "\né"])
def test_18_duplicate_bytes_and_fallback(text: str) -> None:
    """The student spells a newline by its piece and é by fallback; the newline's fallback byte is never next."""
    fallback = [f"<0x{byte:02X}>" for byte in sorted(set("é\n".encode()))]
    student = sentencepiece([*fallback, "\n", "a", "▁"], "a \n", byte_fallback=True)
    sample = sample_of(byte_level("a\né", "\n a", "é é"), student, text, "a\né")
    check_pair(sample)
    (rows,) = sample.scorer("renormalize").distributions([text], sample.prompts)
    assert torch.isneginf(rows.logprobs[:, student.spec["model"]["vocab"]["<0x0A>"]]).all()


def test_19_padded_heads() -> None:
    teacher, student = byte_level("ab", "a b"), byte_level("ab", "b a")
    width = teacher.tok.vocab_size + 5
    scorer = ct.Scorer(uniform(width), general(teacher, student), width=student.tok.vocab_size + 7)
    (score,) = scorer.score(["ab"])
    assert score.noncanonical_mass[0] >= 5 / width - 1e-12
    (rows,) = scorer.distributions(["ab"])
    (cut,) = scorer.distributions(["ab"], top_k=2)
    assert rows.logprobs.shape == (len(score.student_ids), student.tok.vocab_size + 7)
    assert torch.isneginf(rows.logprobs[:, student.tok.vocab_size :]).all()
    assert cut.ids.max() < student.tok.vocab_size
    with pytest.raises(ct.TeacherError):
        ct.Scorer(uniform(teacher.tok.vocab_size - 2), scorer.pair)


@pytest.mark.parametrize("prompt", [None, (0,)])
@pytest.mark.parametrize("text", ["ab", "a b", "b"])
def test_21_dummy_prefixes(text: str, prompt: tuple[int, ...] | None) -> None:
    """Of one side, of both, and of neither after a prompt."""
    dummy = sentencepiece(["▁", "a", "b"], "▁ a", "a b", normalizer=toys.prepend())
    plain = byte_level("ab ", "␣ b", "b a")
    other = sentencepiece(["▁", "a", "b"], "b a", "▁ b", normalizer=toys.prepend())
    for teacher, student in ((dummy, plain), (plain, dummy)):
        check_pair(sample_of(teacher, student, text, "ab ", prompt))
    check_scores(sample_of(dummy, other, text, "ab ", prompt))


@pytest.mark.parametrize("text", ["ab", "a b"])
def test_21_rows_before_a_dummy_prefix_of_both(text: str) -> None:
    """The first teacher token may be nothing but the prefix: at tolerance 0 that mass is not left undecided."""
    teacher = sentencepiece(["▁", "a", "b"], "▁ a", "a b", normalizer=toys.prepend())
    student = sentencepiece(["▁", "a", "b"], "b a", "▁ b", normalizer=toys.prepend())
    check_rows(sample_of(teacher, student, text, "ab ", None), "renormalize")


@pytest.mark.parametrize("text", ["<a>", "<a>a", "a<a"])
def test_22_added_tokens(text: str) -> None:
    """Matched on one side only; a special token's text is text on both, and it is never next."""
    added = byte_level("<a>", "a >", added=[toys.added_token("<a>")])
    plain = byte_level("<a>", "< a", "> <", added=[toys.added_token("a>", special=True)])
    for teacher, student in ((added, plain), (plain, added)):
        sample = sample_of(teacher, student, text, "<a>")
        check_pair(sample)
        (rows,) = sample.scorer("renormalize").distributions([text], sample.prompts)
        special = sorted(toys.special_ids(student.spec) - {student.eos})
        assert torch.isneginf(rows.logprobs[:, special]).all()


@pytest.mark.parametrize("text", ["e", "ee"])
def test_23_what_the_student_would_rewrite_is_lost_and_said_so(text: str) -> None:
    """A byte-level teacher may go on with a combining mark, which the student's NFC composes: undecided mass."""
    teacher = byte_level("e\u0301", "e e", "\u0301 \u0301")
    student = byte_level("e\u0301é", normalizer={"type": "NFC"})
    sample = sample_of(teacher, student, text, "e\u0301")
    check_pair(sample)
    (rows,) = sample.scorer("renormalize").distributions([text], sample.prompts)
    truth = sample.truths["renormalize"]
    known = truth.next_tokens(sample.ids)
    lost = 1 - sum(low for low, _ in known.values()) / truth.probability(sample.ids)[1]
    assert lost > 0.01 and float(rows.undecided_mass[-1]) >= lost - 1e-6


def test_24_everything_is_scored() -> None:
    """After newlines and other characters too; at tolerance 0 the labels add up to the teacher's own total."""
    text = "a\nb é\n\nabé ab\n"
    student = byte_level("ab \né", "b a", "␣ b", "\n a", pre_tokenizer=toys.byte_level(True))
    teacher = random_teacher(WORDS.tok.vocab_size)
    own = ct.Scorer(teacher, ct.Pair(WORDS.tok, WORDS.tok, WORDS.eos, WORDS.eos)).score([text])[0]
    scorer = ct.Scorer(teacher, general(WORDS, student), tolerance=0.0)
    (score,) = scorer.score([text])
    assert student.tok.decode(score.student_ids[:-1]) == text.encode()
    assert np.isfinite(score.logprobs).all() and (score.logprobs <= 0).all()
    assert score.logprobs.sum() == pytest.approx(own.total, abs=1e-9)
    (rows,) = scorer.distributions([text])
    at = np.arange(len(score.student_ids))
    np.testing.assert_allclose(rows.logprobs[at, score.student_ids].numpy(), score.logprobs, atol=1e-5)


def test_25_several_ends_of_text_are_one_event() -> None:
    """The teacher's two, at the student's first one."""
    sample = sample_of(byte_level("ab", "a b"), byte_level("ab", "b a"), "ab", "ab")
    teacher, ends = with_second_eos(sample.teacher)
    pair = ct.Pair(load(teacher.spec), sample.pair.student, teacher_eos=ends, student_eos=sample.student.eos)
    assert pair.regime == "general" and len(ends) == 2
    fn = scores.random_teacher(toys.vocab_size(teacher.spec), 25)
    check_pair(replace(sample, teacher=teacher, pair=pair, fn=fn, teacher_eos=ends))
