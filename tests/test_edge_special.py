"""edge_cases.md, Special tokens, templates, normalizers: items 21 to 25."""

from __future__ import annotations

import numpy as np
import pytest
import real
from handmade import EOS, WORDS, byte_level, ct, pair_of, random_teacher, sentencepiece, with_bos
from oracle import toys
from oracle.brute import Ids


class Recorder:
    """A uniform teacher that remembers what it was asked."""

    def __init__(self, width: int) -> None:
        self.paths: set[Ids] = set()
        self.teacher = ct.TableTeacher(self._row, width)
        self._width = width

    def _row(self, path: Ids) -> np.ndarray:
        self.paths.add(path)
        return np.full(self._width, -np.log(self._width))


def test_21_what_the_teacher_sees_first() -> None:
    pytest.importorskip("torch")
    without = byte_level("<s>a", "a a", added=[toys.added_token("<s>", special=True)])
    for made, bos in ((without, None), (with_bos(without), 0)):
        assert made.tok.bos_id == bos
        recorder = Recorder(made.tok.vocab_size)
        scorer = ct.Scorer(recorder.teacher, pair_of(made, made.tok.first_merges(0)))
        context = made.eos if bos is None else bos
        for text in ("aa", "a", ""):
            recorder.paths.clear()
            (score,) = scorer.score([text])
            assert len(score.logprobs) == len(text) + 1
            assert np.isfinite(score.logprobs).all()
            assert (context,) in recorder.paths
            assert all(path[0] == context for path in recorder.paths)
            recorder.paths.clear()
            scorer.score([text], prompts=[()])
            assert () in recorder.paths


def test_21_dummy_prefix_with_and_without_a_prompt() -> None:
    made = sentencepiece(["▁", "a", "b"], "▁ a", "a b", normalizer=toys.prepend())
    vocab = made.spec["model"]["vocab"]
    assert made.tok.encode("ab", start=True).tolist() == made.hf("ab") == [vocab["▁a"], vocab["b"]]
    assert made.tok.encode("ab").tolist() == [vocab["ab"]]
    assert made.tok.encode(" ab").tolist() == [vocab["▁a"], vocab["b"]]
    assert made.tok.encode("", start=True).tolist() == made.hf("") == []
    assert not made.tok.is_canonical([vocab["ab"]], start=True) and made.tok.is_canonical([vocab["ab"]])
    assert not made.tok.is_canonical([vocab["▁"]], complete=True, start=True)
    pytest.importorskip("torch")
    pair = pair_of(made, made.tok, made.eos)
    recorder = Recorder(made.tok.vocab_size)
    scorer = ct.Scorer(recorder.teacher, pair)
    assert scorer.score(["ab"])[0].student_ids.tolist() == [vocab["▁a"], vocab["b"], made.eos]
    assert scorer.score(["ab"], prompts=[(0,)])[0].student_ids.tolist() == [vocab["ab"], made.eos]


def test_21_llama2_dummy_prefix() -> None:
    found = real.load("llama2")
    for text in ("hello", " hello", "\nhello", "", " ", "1", "🙂"):
        assert found.tok.encode(text, start=True).tolist() == found.hf_ids([text], start=True)[0]
        assert found.tok.encode(text).tolist() == found.hf_ids([text])[0]
    assert found.tok.decode(found.tok.encode("hello", start=True)) == b" hello"


def test_22_special_and_added_tokens() -> None:
    added = [*map(toys.added_token, ("<a>", "<a>b", "a>b")), toys.added_token("bb", special=True)]
    made = byte_level("<a>b", "< a", added=added)
    for text in ("<a>", "<a>b", "<a>bb", "ba>b", "<a<a>b>", "bbb", "<a>>", "a>bb", "<a>ba>b"):
        assert made.tok.encode(text).tolist() == made.hf(text), text
    made.check_covers("<a>bb", "a>bb<")
    plain = byte_level("<eos>")
    assert plain.pieces(EOS) == [b"<", b"e", b"o", b"s", b">"]
    assert not plain.tok.canonical_next([])[plain.eos]
    assert not plain.tok.is_canonical([plain.eos])


def test_22_runs_as_added_tokens() -> None:
    """Gemma 3 matches runs of newlines up to 31: a shorter one can never be followed by another."""
    runs = ["\n" * length for length in range(2, 32)]
    made = byte_level("\na ", "\n \n", "\n\n \n\n", "␣ a", added=[toys.added_token(run) for run in runs])
    assert made.pieces("\n" * 33 + "a") == [b"\n" * 31, b"\n" * 2, b"a"]
    first = made.tok.canonical_next([])
    assert first[made.ids("\n", *runs)].all()
    assert not made.canonical("\n", "\n") and not made.canonical(runs[0], runs[0])
    assert made.canonical(runs[-1], runs[0]) and not made.canonical(runs[-1], runs[0], "\n")
    assert made.canonical(runs[3], "a", runs[5], " a")


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
def test_22_flags_of_added_tokens(flag: str) -> None:
    with pytest.raises(ct.UnsupportedTokenizerError, match=rf"added_tokens\[0\]\.{flag}"):
        byte_level("ab ", added=[toys.added_token("ab", **{flag: True})])
    # Special tokens are text here: their flags are of no account.
    made = byte_level("ab ", added=[toys.added_token("ab", special=True, **{flag: True})])
    assert made.pieces("a ab b") == [b"a", b" ", b"a", b"b", b" ", b"b"]


def test_22_qwen3_think() -> None:
    found = real.load("qwen3")
    (think,) = (token["id"] for token in found.spec["added_tokens"] if token["content"] == "<think>")
    assert found.tok.encode("a<think>b").tolist()[1] == think
    assert found.tok.encode("<|im_end|>").tolist() == found.hf_ids(["<|im_end|>"])[0]
    assert len(found.tok.encode("<|im_end|>")) > 1
    open_tag, (end,) = found.tok.encode("<think").tolist(), found.tok.encode(">").tolist()
    assert found.tok.is_canonical(open_tag, complete=True) and not found.tok.is_canonical([*open_tag, end])
    assert not found.tok.canonical_next(open_tag)[end]


def test_22_gemma3_table() -> None:
    found = real.load("gemma3")
    vocab = found.spec["model"]["vocab"]
    assert found.tok.encode("<table>").tolist() == found.hf_ids(["<table>"])[0] == [vocab["<table>"]]
    assert not found.tok.is_canonical([vocab["<"], vocab["table"], vocab[">"]])
    assert found.tok.is_canonical([vocab["<"], vocab["table"]])
    assert not found.tok.canonical_next([vocab["<"], vocab["table"]])[vocab[">"]]
    # Runs of newlines are added tokens too: the longest at each place.
    two, three = vocab["\n\n"], vocab["\n\n\n"]
    assert found.tok.is_canonical([three]) and not found.tok.is_canonical([two, two])
    assert not found.tok.is_canonical([vocab["\n"], two])
    assert found.tok.canonical_next([]).sum() > 200_000


def test_23_nfc() -> None:
    cedilla, acute = "\u0327", "\u0301"
    made = byte_level(
        f"ae{cedilla}{acute}", f"{cedilla} {cedilla}", f"{acute} {acute}", normalizer={"type": "NFC"}
    )
    for text in ("e" + acute, "a" + cedilla + acute, acute + cedilla):
        assert made.tok.normalize(text) != text
        with pytest.raises(ct.TextError):
            made.tok.check_admissible(text)
    assert made.canonical("a", cedilla) and made.canonical(cedilla, acute)
    assert not made.canonical("a", cedilla, acute)
    # The text may end before the mark, so the letter alone is fine.
    assert made.canonical("e") and not made.canonical("e", acute)
    made.check_covers("a" + cedilla, cedilla + acute)


@pytest.mark.parametrize("name", ["qwen3", "qwen_first_8000"])
def test_23_nfc_in_qwen(name: str) -> None:
    found = real.load(name)
    encode = found.tok.encode
    for left, right in (("e", "\u0301"), ("\u1100", "\u1161"), ("가", "\u11a8"), ("a\u0327", "\u0301")):
        assert found.tok.normalize(left + right) != left + right
        with pytest.raises(ct.TextError):
            found.tok.check_admissible(left + right)
        assert found.tok.is_canonical(encode(left), complete=True)
        assert found.tok.is_canonical(encode(right), complete=True)
        assert not found.tok.is_canonical([*encode(left), *encode(right)])


def test_23_a_student_that_rewrites_what_the_teacher_spells() -> None:
    """Only one side normalises: such texts are not pair-admissible, and the pair is not of the exact regimes."""
    teacher = byte_level("e\u0301")
    student = byte_level("e\u0301é", normalizer={"type": "NFC"})
    pair = ct.Pair(teacher.tok, student.tok, teacher_eos=teacher.eos, student_eos=student.eos)
    assert pair.regime == "general"
    with pytest.raises(ct.TextError):
        pair.encode("e\u0301")


def test_24_everything_is_scored() -> None:
    pytest.importorskip("torch")
    pair = pair_of(WORDS, WORDS.tok.first_merges(0))
    text = "a\nb é\n\nabé ab\n"
    (score,) = ct.Scorer(random_teacher(WORDS.tok.vocab_size), pair).score([text])
    assert len(score.logprobs) == len(text.encode()) + 1
    assert np.isfinite(score.logprobs).all() and np.all(score.logprobs <= 0)
    assert pair.student.decode(score.student_ids[:-1]) == text.encode()


def test_25_several_ends_of_text_are_one_event() -> None:
    pytest.importorskip("torch")
    made = byte_level("ab", "a b", added=[toys.added_token("<turn>", special=True)])
    ends = [made.eos, next(t["id"] for t in made.spec["added_tokens"] if t["content"] == "<turn>")]
    student = made.tok.first_merges(1)
    eos = [int(id) for id in student.special_ids]
    teacher = random_teacher(made.tok.vocab_size)
    pair = ct.Pair(made.tok, student, teacher_eos=ends, student_eos=eos)
    (score,) = ct.Scorer(teacher, pair, canonical="mask").score(["ab"], prompts=[(0,)])
    row = np.asarray(teacher.rows([(0, *made.tok.encode("ab").tolist())]))[0]
    assert score.logprobs[-1] == pytest.approx(np.logaddexp(*row[ends]), abs=1e-12)
    assert score.student_ids[-1] == eos[0]


def test_25_llama3_ends() -> None:
    found = real.load("llama3")
    tok = ct.Tokenizer.from_pretrained(str(real.SHARED / "tokenizers" / "llama3"))
    assert {found.token_bytes[id] for id in tok.eos_ids} == {b"<|eot_id|>", b"<|end_of_text|>"}
