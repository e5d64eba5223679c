"""`crosstok.Scorer` and `enumerate_covers` against brute force on random toys, in both canonical modes.

Students: the toy's own `first_merges(n)` for random n (regimes "same" and "subset", where everything is
exact and equal to brute force to 1e-9), and students with one token a byte or a character and another
pretokenizer (regime "general", where the bounds must hold the exact value). Edge_cases.md, items 1 to 4, 8,
25, 26.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import toys
from oracle.brute import BruteTokenizer, Ids
from oracle.scores import BrutePair, BruteScorer, Floats, TeacherFn, random_teacher

ct = pytest.importorskip("crosstok")
pytest.importorskip("torch")

TOYS_PER_KIND = 24
MODES = ("renormalize", "mask")
TOLERANCE = 1e-9


@dataclass
class Sample:
    """One teacher, one student, one text, and where it stands (`prompt` None: at the start of a document)."""

    toy: toys.Toy
    fn: TeacherFn
    pair: Any
    brute: BrutePair
    teacher_eos: list[int]
    student_eos: int
    width: int
    text: str
    ids: Ids
    prompt: Ids | None
    dead: bool

    def truth(self, mode: str) -> BruteScorer:
        """The brute scorer; without a prompt the teacher sees its end-of-text id, since toys have no BOS."""
        context = (self.teacher_eos[0],) if self.prompt is None else self.prompt
        return BruteScorer(self.fn, self.brute, self.teacher_eos, self.student_eos, mode, context)

    def scorer(self, mode: str) -> Any:
        teacher = ct.TableTeacher(self.fn)
        return ct.Scorer(teacher, self.pair, canonical=mode)

    @property
    def prompts(self) -> list[Ids] | None:
        return None if self.prompt is None else [self.prompt]


def _load(spec: toys.Spec, path: Path) -> Any:
    path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    return ct.Tokenizer.from_file(str(path))


def _id_of(spec: toys.Spec, content: str) -> int:
    return next(int(added["id"]) for added in spec["added_tokens"] if added["content"] == content)


def _with_second_eos(spec: toys.Spec) -> toys.Spec:
    """The spec with one more special token that ends a text, as Llama 3 has."""
    second = {**spec["added_tokens"][0], "content": "<end>", "special": True, "normalized": False}
    second["id"] = toys.vocab_size(spec)
    return {**spec, "added_tokens": [*spec["added_tokens"], second]}


def _unmerged(spec: toys.Spec) -> toys.Spec:
    """A student with the same symbols, no merges and another pretokenizer: regime "general", nothing
    undecided.

    Its encoding of a text is the text's symbols one by one, so the first symbols of a continuation never
    change.
    """
    spec = json.loads(json.dumps(spec))
    spec["model"].update(merges=[], ignore_merges=False)
    if toys.is_byte_level(spec):
        spec["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
    return spec


def _draw_text(pair: BrutePair, rng: random.Random) -> tuple[str, Ids] | None:
    """A pair-admissible text of at most four characters, never empty."""
    known = {text: sigma for text, (_, sigma) in pair.texts_from(b"").items() if 1 <= len(text) <= 4}
    return rng.choice(sorted(known.items())) if known else None


def _samples(kind: str, folder: Path, own: bool) -> Iterator[Sample]:
    """Random samples of a kind; `own`: the student is the toy's `first_merges(n)`, else an unmerged one."""
    for seed in range(TOYS_PER_KIND):
        rng = random.Random(f"{kind} scores {seed} {own}")
        toy = toys.make_toy(kind, rng, max_texts=800)
        spec = toy.spec
        teacher_eos = [toy.eos]
        if rng.random() < 0.5:
            spec = _with_second_eos(spec)
            teacher_eos.append(_id_of(spec, "<end>"))
        tok_t = _load(spec, folder / f"teacher{seed}{own}.json")
        if own:
            path = folder / f"student{seed}.json"
            tok_t.first_merges(rng.randint(0, len(spec["model"]["merges"]))).save(str(path))
            student_spec = json.loads(path.read_text(encoding="utf-8"))
        else:
            student_spec = _unmerged(spec)
        tok_s = _load(student_spec, folder / f"student{seed}{own}.json")
        student_eos = _id_of(student_spec, "<e>")
        pair = ct.Pair(teacher=tok_t, student=tok_s, teacher_eos=teacher_eos, student_eos=student_eos)
        dead = seed % 3 == 0  # Some entries of the table are -inf.
        fn = random_teacher(toys.vocab_size(spec), seed, dead=0.05 if dead else 0.0)
        start = rng.random() < 0.5
        brute = BrutePair(
            BruteTokenizer(spec, toy.chars, toy.ahead, start),
            BruteTokenizer(student_spec, toy.chars, toy.ahead, start),
            toy.look,
        )
        drawn = _draw_text(brute, rng)
        if drawn is None:
            continue
        prompt = None if start else (rng.randrange(toys.vocab_size(spec)),)
        width = toys.vocab_size(student_spec)
        yield Sample(toy, fn, pair, brute, teacher_eos, student_eos, width, *drawn, prompt, dead)


def _assert_close(got: Any, expected: Floats, tolerance: float = TOLERANCE) -> None:
    """Equal where -inf, close elsewhere."""
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert got.shape == expected.shape
    assert not np.isnan(got).any()
    assert np.array_equal(np.isneginf(got), np.isneginf(expected)), (got, expected)
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=0, atol=tolerance)


def _check_covers(sample: Sample) -> int:
    """Explicit relative covers of every prefix, end-of-text included, equal brute force (start=False)."""
    brute = sample.brute
    teacher, student = brute.teacher, brute.student
    if teacher.dummy or student.dummy:
        brute = BrutePair(
            BruteTokenizer(teacher.spec, teacher.chars, teacher.max_chars),
            BruteTokenizer(student.spec, student.chars, student.max_chars),
            brute.look,
        )
    ids = brute.student.encode(sample.text)
    if ids is None or brute.teacher.encode(sample.text) is None:
        return 0
    batch = ct.enumerate_covers(sample.pair, [[*ids, sample.student_eos]])
    assert batch.text_ptr.tolist() == [0, len(ids) + 2]
    assert np.all(batch.status == 1)
    for i in range(len(ids) + 2):
        split = brute.relative_covers(ids[:i], ended=i > len(ids))
        assert not split.undecided
        expected = {cover + (sample.teacher_eos[0],) * ended for cover, ended in split.covers}
        got = [tuple(path.tolist()) for path in batch.paths(i)]
        assert len(got) == len(set(got)) and set(got) == expected, (sample.text, i)
    return 1


@pytest.mark.parametrize("kind", toys.KINDS)
def test_first_merges_equal_brute_force(kind: str, tmp_path: Path) -> None:
    real = covers = refused = 0
    for sample in _samples(kind, tmp_path, own=True):
        if "hide an added token" in sample.pair.reason:
            refused += 1  # the student would spell one teacher token in two ways
            continue
        assert sample.pair.regime in ("same", "subset")
        covers += _check_covers(sample)
        for mode in MODES:
            truth, scorer = sample.truth(mode), sample.scorer(mode)
            for ended in (True, False):
                (score,) = scorer.score([sample.text], prompts=sample.prompts, ended=ended)
                expected = truth.score(sample.ids, ended, inadmissible=ended and mode == "renormalize")
                assert expected.exact.all()
                assert score.student_ids.tolist() == [*sample.ids, *[sample.student_eos] * ended]
                _assert_close(score.logprobs, expected.logprobs)
                for bound in (score.lower, score.upper):
                    _assert_close(bound, expected.logprobs)
                for bound in (score.prefix_lower, score.prefix_upper):
                    _assert_close(bound, expected.prefix_logprobs)
                known = np.isfinite(expected.noncanonical_mass) & np.isfinite(expected.prefix_logprobs)
                np.testing.assert_allclose(
                    score.noncanonical_mass[known], expected.noncanonical_mass[known], rtol=0, atol=TOLERANCE
                )
                lost = np.isfinite(expected.inadmissible_mass)
                np.testing.assert_allclose(
                    score.inadmissible_mass[lost], expected.inadmissible_mass[lost], rtol=0, atol=TOLERANCE
                )
                for i in range(len(score.status)):
                    done = i == len(sample.ids)
                    if (
                        truth.thinnest_node(sample.ids[: i + 1], done) > 1e-3
                        and expected.prefix_logprobs[i] > -30
                    ):
                        assert score.status[i] == 0, i
            _check_rows(sample, truth, scorer, mode)
        real += 1
    assert real + refused >= TOYS_PER_KIND - 1 and covers + refused >= TOYS_PER_KIND - 2


def _check_rows(sample: Sample, truth: BruteScorer, scorer: Any, mode: str) -> None:
    """Whole rows: `distributions` (float32) and `next_token` (float64) after every prefix of the text."""
    (rows,) = scorer.distributions([sample.text], prompts=sample.prompts)
    dense = np.asarray(rows.logprobs)
    _check_sparse(sample, scorer, dense)
    assert dense.shape == (len(sample.ids) + 1, sample.width)
    for i in range(len(sample.ids) + 1):
        prefix = sample.ids[:i]
        if truth.probability(prefix)[0] == 0:
            with pytest.raises(ct.ZeroProbabilityError):
                scorer.next_token(list(prefix), prompt=sample.prompt)
            continue
        expected = truth.distribution(prefix, sample.width)
        following = scorer.next_token(list(prefix), prompt=sample.prompt)
        for row in (following.logprobs, following.lower, following.upper):
            _assert_close(row, expected)
        if mode == "renormalize" and not sample.dead:
            # Raw sums: first_merges has its teacher's texts, so no mass is inadmissible. (With -inf entries
            # a node may have no canonical mass at all, and its share is lost; that such rows are right is
            # checked above.)
            raw = np.exp(np.asarray(following.logprobs, dtype=np.float64)).sum()
            assert raw == pytest.approx(1, abs=TOLERANCE)
        _assert_close(dense[i], expected, 1e-5)


def _check_sparse(sample: Sample, scorer: Any, dense: Floats) -> None:
    """With ``top_k`` the same rows, cut to their largest entries."""
    for top_k in (1, 3):
        (sparse,) = scorer.distributions([sample.text], prompts=sample.prompts, top_k=top_k)
        sparse.validate()
        for i, row in enumerate(np.exp(dense.astype(np.float64))):
            of_row = slice(sparse.ptr[i], sparse.ptr[i + 1])
            p, total = np.exp(sparse.logp[of_row]), max(row.sum(), 1e-300)
            np.testing.assert_allclose(p, (row / total)[sparse.ids[of_row]], atol=1e-5)
            largest = np.sort(row / total)[::-1][:top_k]
            np.testing.assert_allclose(np.sort(p)[::-1][:top_k], largest[: len(p)], atol=1e-5)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_bounds_hold_the_value_for_unmerged_students(kind: str, tmp_path: Path) -> None:
    """Another pretokenizer, no merges: the bounds hold what brute force gives."""
    real = 0
    for sample in _samples(kind, tmp_path, own=False):
        real += 1
        for mode in MODES:
            truth = sample.truth(mode)
            (score,) = sample.scorer(mode).score([sample.text], prompts=sample.prompts)
            expected = truth.score(sample.ids)
            assert expected.exact.all()
            assert score.student_ids.tolist() == [*sample.ids, sample.student_eos]
            for i in range(len(expected.logprobs)):
                pairs = (
                    (score.prefix_lower[i], expected.prefix_logprobs[i], score.prefix_upper[i]),
                    (score.lower[i], expected.logprobs[i], score.upper[i]),
                )
                for low, value, high in pairs:
                    assert not np.isnan(low) and not np.isnan(high)
                    assert low <= value + TOLERANCE and value <= high + TOLERANCE, (sample.text, i)
    assert real >= TOYS_PER_KIND - 1
