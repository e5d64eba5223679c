"""Random tiny pairs in the general regime, each with a text, a teacher table, `crosstok`'s objects and brute force."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass, replace
from typing import Any

import crosstok as ct
from oracle import toys
from oracle.brute import Ids
from oracle.general import GeneralPair, GeneralScorer
from oracle.pairs import brute_pair, some_text, student_kind, two_toys
from oracle.scores import TeacherFn, random_teacher

PAIRS_PER_KIND = 40
MODES = ("renormalize", "mask")


@dataclass
class Sample:
    """One pair with a text, and where it stands (`prompt` None: at the start of a document)."""

    name: str
    teacher: toys.Toy
    student: toys.Toy
    pair: Any
    fn: TeacherFn
    brute: GeneralPair
    teacher_eos: list[int]
    text: str
    prompt: Ids | None
    dead: bool
    more: int = 0

    @functools.cached_property
    def ids(self) -> Ids:
        """The text's student tokens, without end-of-text."""
        ids = self.brute.student.encode(self.text)
        assert ids is not None
        return ids

    @functools.cached_property
    def truths(self) -> dict[str, GeneralScorer]:
        """The brute scorer of each mode; without a prompt the teacher sees its BOS or, without one, its end-of-text."""
        bos = self.pair.teacher.bos_id
        context = (self.teacher_eos[0] if bos is None else bos,) if self.prompt is None else self.prompt
        fixed = (self.fn, self.brute, self.teacher_eos, self.student.eos)
        return {mode: GeneralScorer(*fixed, mode, context) for mode in MODES}

    def scorer(self, mode: str, **options: Any) -> Any:
        """A `crosstok.Scorer` over the table."""
        return ct.Scorer(ct.TableTeacher(self.fn), self.pair, canonical=mode, **options)

    @property
    def prompts(self) -> list[Ids] | None:
        """What `Scorer.score` wants for the one text."""
        return None if self.prompt is None else [self.prompt]

    @functools.cached_property
    def continued(self) -> GeneralPair:
        """Brute force for texts that continue something (`start=False`), which is what covers are listed for."""
        if not (self.brute.teacher.dummy or self.brute.student.dummy):
            return self.brute
        return brute_pair(self.teacher, self.student, more=self.more)

    def deeper(self, more: int = 2) -> Sample:
        """The same with an enumeration that sees further: to tell a mistake from a horizon that was too near."""
        brute = brute_pair(self.teacher, self.student, self.prompt is None, more)
        return replace(self, brute=brute, more=more)

    def __str__(self) -> str:
        """What it takes to make it again (`draw_sample`), and what is in it."""
        return f"{self.name}: text={self.text!r} ids={self.ids} prompt={self.prompt}"


def load(spec: toys.Spec) -> Any:
    """A `crosstok.Tokenizer`."""
    return ct.Tokenizer.from_json(json.dumps(spec, ensure_ascii=False))


def with_second_eos(toy: toys.Toy) -> tuple[toys.Toy, list[int]]:
    """The toy with one more special token that ends a text, as Llama 3 has, and both of their ids."""
    second = {**toy.spec["added_tokens"][0], "content": "<end>", "special": True, "normalized": False}
    second["id"] = toys.vocab_size(toy.spec)
    spec = {**toy.spec, "added_tokens": [*toy.spec["added_tokens"], second]}
    return replace(toy, spec=spec), [toy.eos, second["id"]]


@functools.lru_cache(maxsize=1)
def samples(kind: str) -> tuple[Sample, ...]:
    """`PAIRS_PER_KIND` samples whose teachers are of a kind."""
    return tuple(draw_sample(kind, student_kind(kind, n), n) for n in range(PAIRS_PER_KIND))


def draw_sample(kind: str, other: str, seed: int) -> Sample:
    """A sample of a teacher's and a student's kind: drawn until the regime is general and there are enough texts."""
    rng = random.Random(f"{kind} {other} general {seed}")
    for _ in range(1000):
        found = _try(kind, other, rng, f"draw_sample({kind!r}, {other!r}, {seed})")
        if found is not None:
            return found
    raise AssertionError((kind, other, seed))


def _try(kind: str, other: str, rng: random.Random, name: str) -> Sample | None:
    teacher, student = two_toys(kind, other, rng)
    eos = [teacher.eos]
    if rng.random() < 0.3:
        teacher, eos = with_second_eos(teacher)
    pair = ct.Pair(load(teacher.spec), load(student.spec), teacher_eos=eos, student_eos=student.eos)
    size = toys.vocab_size(teacher.spec)
    prompt = rng.choice((None, (), (rng.randrange(size),)))
    if student.has_dummy_prefix and rng.random() < 0.5:
        prompt = None
    brute = brute_pair(teacher, student, start=prompt is None)
    text = some_text(brute, rng) if pair.regime == "general" else None
    if text is None:
        return None
    dead = rng.random() < 0.3
    fn = random_teacher(size, rng.randrange(1 << 30), 0.06 if dead else 0.0)
    return Sample(name, teacher, student, pair, fn, brute, eos, text, prompt, dead)
