"""Probabilities of student tokens, by enumeration of texts.

Everything follows from two functions of design.md, section 2: q, the teacher made canonical
(`BruteScorer.q`), and the relative covers of a student prefix (`BrutePair.relative_covers`). Probabilities
are plain float64 products and sums, which is right for texts of a few tokens and for nothing else.

A relative cover may lie deeper than the enumeration sees (where student and teacher merge differently, a
prefix can stay undecided for long). Such prefixes are handed back as *undecided*, and a probability is then
a pair (lower, upper); where nothing is undecided the two are equal. In the regimes "same" and "subset", and
for students with one token a byte, nothing ever is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .brute import BruteTokenizer, Ids, complete

Floats = NDArray[np.float64]
TeacherFn = Callable[[Ids], Floats]
Cover = tuple[Ids, bool]
"""Teacher tokens, and whether end-of-text follows them."""


def random_teacher(vocab_size: int, seed: int, dead: float = 0.0, spread: float = 1.5) -> TeacherFn:
    """A teacher table: log-probabilities [vocab_size] in float64 after any tuple of ids.

    A row is a function of seed and ids only. Each entry is -inf with probability `dead` (never all of them);
    `spread` is the standard deviation of the logits.
    """

    def row(ids: Ids) -> Floats:
        # Ids are shifted and the length is included, since numpy's seeding pads short lists with zeros.
        rng = np.random.default_rng([seed, len(ids), *(token + 1 for token in ids)])
        logits = rng.normal(size=vocab_size) * spread
        alive = rng.random(vocab_size) >= dead
        alive[rng.integers(vocab_size)] = True
        logits[~alive] = -np.inf
        return np.asarray(logits - np.log(np.exp(logits).sum()), dtype=np.float64)

    return row


@dataclass
class Split:
    """Where a student prefix s stands: the covers, and the canonical prefixes that the enumeration leaves
    undecided.
    """

    covers: set[Cover] = field(default_factory=set)
    undecided: set[Ids] = field(default_factory=set)


class BrutePair:
    """A teacher's and a student's tokenizer, both with the same `start`.

    The list of characters must be closed for the teacher (`toys`): a pair-admissible text is one for the
    teacher, so the student's own list does not matter. `look` is how many characters past the end of a
    prefix decide it; it limits how deep an undecided prefix is followed, since one that ends close to the
    last character enumerated would look decided.
    """

    def __init__(self, teacher: BruteTokenizer, student: BruteTokenizer, look: int = 2) -> None:
        self.teacher = teacher
        self.student = student
        self.look = look
        self._pairs: dict[bytes, dict[str, tuple[Ids, Ids]]] = {}
        self._splits: dict[tuple[Ids, bool], Split] = {}
        self._following: dict[Ids, list[int]] = {}

    def texts_from(self, stem: bytes) -> dict[str, tuple[Ids, Ids]]:
        """Pair-admissible texts that start with `stem`, with the encodings of teacher and student."""
        if stem not in self._pairs:
            found = self.teacher.texts_from(stem)
            encoded = self.student.encode_all(list(found))
            self._pairs[stem] = {text: (found[text], ids) for text, ids in encoded.items() if ids is not None}
        return self._pairs[stem]

    def following(self, student_ids: Sequence[int]) -> list[int]:
        """The student tokens that follow a student prefix in some pair-admissible text, in ascending order."""
        s = tuple(student_ids)
        if s not in self._following:
            stem = self.student.text_bytes(s)
            encodings = [] if stem is None else [sigma for _, sigma in self.texts_from(stem).values()]
            longer = {sigma[len(s)] for sigma in encodings if len(sigma) > len(s) and sigma[: len(s)] == s}
            self._following[s] = sorted(longer)
        return self._following[s]

    def relative_covers(self, student_ids: Sequence[int], ended: bool = False) -> Split:
        """Minimal canonical prefixes and complete texts of the teacher that are *in* for the student prefix.

        In: e's bytes start with the bytes of s, and σ(x) starts with s for every pair-admissible text x with
        τ(x) starting with e, and there is one. Each text x is walked along its own encoding from the first e
        that spells the bytes of s: in is a cover, out ends the walk, undecided goes on. At the end of the
        text stands the complete text, which is in or out. With `ended` the last element of s is σ's
        end-of-text: only the complete text with σ(x) = s is in.
        """
        s = tuple(student_ids)
        if (s, ended) not in self._splits:
            self._splits[s, ended] = self._ended(s) if ended else self._open(s)
        return self._splits[s, ended]

    def _ended(self, s: Ids) -> Split:
        stem = self.student.text_bytes(s)
        pairs = {} if stem is None else self.texts_from(stem)
        return Split({(tau, True) for tau, sigma in pairs.values() if sigma == s})

    def _open(self, s: Ids) -> Split:
        split = Split()
        stem = self.student.text_bytes(s)
        if stem is None:
            return split
        # Texts by the canonical prefix that their walk has come to, and whether σ(x) starts with s.
        walks: dict[Ids, list[tuple[Ids, bool]]] = defaultdict(list)
        for tau, sigma in self.texts_from(stem).values():
            first = tau[: self.teacher.reaching(tau, len(stem))]
            walks[first].append((tau, sigma[: len(s)] == s))
        deepest = min((len(text) for text in complete(stem, self.teacher.chars)), default=0)
        deepest += self.teacher.max_chars - self.look
        while walks:
            prefix, texts = walks.popitem()
            verdicts = {fits for _, fits in texts}
            if verdicts == {True}:
                split.covers.add((prefix, False))
            elif verdicts == {True, False} and self._chars(prefix) > deepest:
                split.undecided.add(prefix)
            elif verdicts == {True, False}:
                for tau, fits in texts:
                    if tau != prefix:
                        walks[tau[: len(prefix) + 1]].append((tau, fits))
                    elif fits:
                        split.covers.add((tau, True))
        return split

    def _chars(self, ids: Ids) -> int:
        """Characters begun by a teacher prefix."""
        spelled = self.teacher.text_bytes(ids) or b""
        return sum(byte & 0xC0 != 0x80 for byte in spelled)


@dataclass
class BruteScore:
    """What `Scorer.score` reports, by definition; one entry a position, end-of-text included if the text has
    ended.

    `logprobs[i]` is log P(s_i | s_<i), `prefix_logprobs[i]` is log P(s_1..s_i), `noncanonical_mass[i]` the
    mean over the covers of s_1..s_i, weighted by q, of the mass that was removed at the nodes from which
    they cross (NaN if P = 0). `inadmissible_mass[i]` is 1 - Σ_v P(v | s_<i) (NaN if P(s_<i) = 0; filled only
    on request). `exact[i]`: nothing was undecided for s_1..s_i.
    """

    logprobs: Floats
    prefix_logprobs: Floats
    noncanonical_mass: Floats
    inadmissible_mass: Floats
    exact: NDArray[np.bool_]
    upper: Floats


class BruteScorer:
    """Scores of student tokens under a teacher table.

    `context` is what the teacher sees before the completion: a prompt's ids, or BOS (or end-of-text) where
    the text starts a document. `teacher_eos`: all ids that end a text; they are one event. `student_eos`:
    the id that stands for the event.
    """

    def __init__(
        self,
        fn: TeacherFn,
        pair: BrutePair,
        teacher_eos: Sequence[int],
        student_eos: int,
        canonical: str = "renormalize",
        context: Sequence[int] = (),
    ) -> None:
        if canonical not in ("renormalize", "mask"):
            raise ValueError(f"no canonical mode {canonical!r}")
        self.fn = fn
        self.pair = pair
        self.teacher_eos = tuple(dict.fromkeys(teacher_eos))
        self.student_eos = student_eos
        self.renormalize = canonical == "renormalize"
        self.context = tuple(context)
        self._nodes: dict[Ids, tuple[dict[int, float], float, float]] = {}

    # --- the canonical teacher ---

    def node(self, ids: Ids) -> tuple[dict[int, float], float, float]:
        """After a canonical prefix: q of each next token, q of end-of-text, and Z, the canonical mass before
        any division.

        Special tokens other than end-of-text are never canonical, so their mass is part of 1 - Z.
        """
        if ids not in self._nodes:
            following, finished = self.pair.teacher.canonical_next(ids)
            p = np.exp(self.fn(self.context + ids))
            kept = {token: float(p[token]) for token in sorted(following)}
            end = float(sum(p[token] for token in self.teacher_eos)) if finished else 0.0
            mass = math.fsum([*kept.values(), end])
            scale = 1.0 if not self.renormalize else 1.0 / mass if mass > 0 else 0.0
            self._nodes[ids] = ({token: x * scale for token, x in kept.items()}, end * scale, mass)
        return self._nodes[ids]

    def q(self, ids: Ids, ended: bool = False) -> float:
        """q(e), or q(e · end-of-text): the product of the steps; 0 where e is not canonical."""
        total = 1.0
        for length, token in enumerate(ids):
            total *= self.node(ids[:length])[0].get(token, 0.0)
        return total * (self.node(ids)[1] if ended else 1.0)

    # --- student tokens ---

    def split(self, student_ids: Sequence[int], ended: bool = False) -> Split:
        """The covers of a student prefix, and what stays undecided."""
        return self.pair.relative_covers(student_ids, ended)

    def probability(self, student_ids: Sequence[int], ended: bool = False) -> tuple[float, float]:
        """P(s) = Σ q over the relative covers of s; (lower, upper), which differ by what is undecided."""
        split = self.split(student_ids, ended)
        lower = math.fsum(self.q(*cover) for cover in split.covers)
        return lower, lower + math.fsum(self.q(prefix) for prefix in split.undecided)

    def next_tokens(self, student_ids: Sequence[int]) -> dict[int, tuple[float, float]]:
        """P(s·v), not divided by P(s), as (lower, upper) for every v that can follow; end-of-text under
        `student_eos`.
        """
        s = tuple(student_ids)
        found = {token: self.probability((*s, token)) for token in self.pair.following(s)}
        found[self.student_eos] = self.probability(s, ended=True)
        return found

    def distribution(self, student_ids: Sequence[int], width: int) -> Floats:
        """log P(v | s) for all v, [width]; meaningful where P(s) > 0 and nothing is undecided."""
        lower, upper = self.probability(student_ids)
        row = np.full(width, -np.inf)
        for token, (low, high) in self.next_tokens(student_ids).items():
            if high - low > 1e-15 or upper - lower > 1e-15:
                raise UndecidedError(tuple(student_ids), token)
            row[token] = math.log(low / lower) if low > 0 else -np.inf
        return row

    def noncanonical_mass(self, student_ids: Sequence[int], ended: bool = False) -> float:
        """Mean over the covers of s, weighted by q, of 1 - Z at the node from which the cover's last step is
        taken.

        The last step is the last token, or end-of-text where the cover is a complete text. The empty cover
        takes no step: NaN.
        """
        weights, removed = [], []
        for ids, finished in sorted(self.split(student_ids, ended).covers):
            if ids or finished:
                weights.append(self.q(ids, finished))
                removed.append(1.0 - self.node(ids if finished else ids[:-1])[2])
        total = math.fsum(weights)
        return (
            math.fsum(w * r for w, r in zip(weights, removed, strict=True)) / total if total > 0 else math.nan
        )

    def thinnest_node(self, student_ids: Sequence[int], ended: bool = False) -> float:
        """The least canonical mass Z at any node that P(s) depends on (below 1e-4 a position counts as
        unsupported).
        """
        nodes = {
            ids[:length]
            for ids, finished in self.split(student_ids, ended).covers
            for length in range(len(ids) + finished)
        }
        return min((self.node(ids)[2] for ids in nodes), default=1.0)

    def score(self, student_ids: Sequence[int], ended: bool = True, inadmissible: bool = False) -> BruteScore:
        """All per-position numbers of one sequence; `inadmissible` also fills `inadmissible_mass` (slow)."""
        s = tuple(student_ids)
        steps = [(s[: i + 1], False) for i in range(len(s))] + ([(s, True)] if ended else [])
        bounds = [self.probability(()), *(self.probability(*step) for step in steps)]
        before, after = np.array(bounds[:-1])[:, 0], np.array(bounds[1:])[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            # After a token of probability zero: -inf there and ever after, never NaN.
            logprobs = np.where(before > 0, np.log(after) - np.log(before), -np.inf)
            prefix, upper = np.log(after), np.log(np.array(bounds[1:])[:, 1])
        lost = np.full(len(steps), np.nan)
        if inadmissible:
            for i in range(len(steps)):
                if before[i] > 0:
                    lost[i] = 1.0 - math.fsum(low for low, _ in self.next_tokens(s[:i]).values()) / before[i]
        exact = np.array([not self.split(*step).undecided for step in steps], dtype=np.bool_)
        removed = np.array([self.noncanonical_mass(*step) for step in steps], dtype=np.float64)
        return BruteScore(logprobs, prefix, removed, lost, exact, upper)


class UndecidedError(ValueError):
    """An exact value was asked for where the enumeration leaves something undecided."""
