"""`Scorer`: texts in, the teacher's probabilities of their student tokens out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import ref

import numpy as np
import torch

from crosstok.distributions import exact as dense
from crosstok.distributions.cut import SPARE, cut, cut_estimate, labels_of
from crosstok.distributions.expansion import Search
from crosstok.distributions.general import estimates
from crosstok.distributions.next_token import next_token
from crosstok.distributions.status import exact_status, row_totals
from crosstok.errors import PlanError, TeacherError, TextError
from crosstok.masses.prefixes import Prefixes, gather
from crosstok.options import check_kinds, check_options, check_tolerance, check_width
from crosstok.pair import Pair, Plan
from crosstok.ragged import IntArray, whole_number
from crosstok.reading import Reading
from crosstok.requests import Ended, Prompts, Request, Texts, ahead, form_batches, requests_of
from crosstok.results import Distributions, NextToken, Score, Source, Timings
from crosstok.scores.labels import score_of
from crosstok.scores.refine import Goal
from crosstok.targets import Labels, SparseTargets
from crosstok.teacher.protocol import Teacher

if TYPE_CHECKING:
    from crosstok.methods import Method
    from crosstok.show import Shown

T = TypeVar("T")
# A batch of texts fills about this many of the teacher's own batches: few ends of batches are half empty, and what is
# planned ahead stays small.
TEACHER_BATCHES = 4
# Tokens that such a batch has where the teacher has no batches of its own.
BATCH_TOKENS = 1024
# Dense rows of a batch of texts take about this much memory (a single text may take more).
DENSE_BYTES = 1 << 30
# Further rows of a batch of texts, at most, where max_rows limits them (a single text may have more): each takes some
# 0.3 MB with SmolLM2 and a tolerance of 0.001 (`benches/run.py --only further`).
FURTHER_ROWS = 1 << 13


class Scorer:
    """What a teacher thinks of student tokens (docs/mathematics.md, 1 and 7).

    canonical: "renormalize" (at every step, over the canonical tokens) or "mask" (no renormalisation; the deficit is
    the non-canonical mass). method: "auto": exact where nothing is undecided, which is everywhere in the regimes "same"
    and "subset", else between bounds; "unbiased": with a sampled correction; others, for comparison, are in
    `crosstok.methods` ("beam", "strict_1to1", "bpm", "recursion"). method_options are the method's; those of "auto":
    order, one of `crosstok.distributions.expansion.ORDERS`, in which leaves are replaced by further rows.
    tolerance, max_rows: how far bounds are tightened by further teacher rows, in the regime "general" only; see
    `score`. temperature divides the teacher's logits before anything else. width: of the student's logits, where it is
    not the student's vocab_size: heads are padded, or lack special tokens. num_threads: of the planner, 0 or None for
    all cores. Attributes: teacher, pair, width, method, timings.

    Raises TeacherError for a teacher whose rows are narrower than its tokenizer's vocabulary; ValueError for an option
    that is not one of these, for a width without a column for each token that a text or its end may have, for max_rows
    or an order without tolerance and, in the regime "general", for a tolerance with another method than "auto" (they
    read what they read) and for tolerance 0 without max_rows unless the teacher is a TableTeacher (a model would be
    asked for rows without end); TypeError for one of another type; PlanError for the method "recursion" where it does
    not hold.
    """

    def __init__(
        self,
        teacher: Teacher,
        pair: Pair,
        canonical: str = "renormalize",
        method: str = "auto",
        tolerance: float | None = None,
        max_rows: int | None = None,
        temperature: float = 1.0,
        width: int | None = None,
        num_threads: int | None = None,
        method_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_kinds(teacher, pair, method_options)
        check_options(canonical, tolerance, max_rows, temperature)
        check_width(pair, width)
        whole_number("num_threads", num_threads, 0)
        self.teacher, self.pair = teacher, pair
        self.width = pair.student.vocab_size if width is None else width
        self.timings = Timings()
        self._reading = Reading(teacher, canonical, float(temperature), num_threads or 0, self.timings)
        self._goal = None if tolerance is None else Goal(float(tolerance), max_rows)
        if pair.regime == "general" and tolerance is not None:
            check_tolerance(teacher, method, tolerance, max_rows)
        self._check_widths()
        self.method = method
        self._method: Method | None = None
        self._search: Search | None = None
        if method == "auto":
            search = Search.of(tolerance, max_rows, **(method_options or {}))
            if tolerance is None and method_options:
                raise ValueError("order is that of further rows: it needs tolerance")
            self._search = None if tolerance is None else search
        else:
            from crosstok import methods

            self._method = methods.open(method, self._reading, pair, self.width, **(method_options or {}))

    @property
    def batch_budget(self) -> int:
        """Tokens of a batch of texts: a few times what the teacher takes at once."""
        tokens: int = getattr(self.teacher, "batch_tokens", BATCH_TOKENS)
        return TEACHER_BATCHES * tokens

    def score(self, texts: Texts, prompts: Prompts = None, ended: Ended = True) -> list[Score]:
        """Log-probabilities of the student tokens of each text, with bounds.

        In the regime "general" some teacher prefixes leave a student prefix undecided: bounds count them as out and as
        in, the value takes each as it would be if the text ended there. With tolerance t further rows are read until
        no label's bounds are further than t apart, as probabilities, or ``max_rows`` were used for a prefix (None: no
        limit), or only entries too light to be looked at one by one are left. Tolerance 0: until no more than 1e-12
        of a prefix is undecided. A text's numbers do not depend on the others, but for the model's rounding.

        prompts: None (each text starts a document) or for each text a sequence of teacher ids, or None. ended: whether
        end-of-text follows; False for a cut-off completion. Raises TextError for a text that is not admissible and
        TeacherError for one that the teacher cannot read, naming it; ValueError where the numbers of texts, prompts
        and flags differ, TypeError for a single text.
        """
        return list(self.iter_scores(texts, prompts, ended))

    def iter_scores(self, texts: Texts, prompts: Prompts = None, ended: Ended = True) -> Iterator[Score]:
        """Stream what `score` returns, in order.

        The arguments may be lazy iterables: they are consumed in a background thread, one batch and a text ahead, where
        the next batch is planned while the teacher reads this one. An error comes when its text's batch does, after
        the scores of all earlier batches.
        """
        batches = form_batches(requests_of(texts, prompts, ended), self.batch_budget)
        return _counted(self.score_batches(batches))

    def score_batches(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[Score]]:
        """Score batch by batch. The numbers of a batch do not depend on the others, to the last bit.

        Errors name a text by its index in its batch, and come when their batch is asked for.
        """
        if self._method is not None:
            yield from map(self._method.score, batches)
            return
        plans = self._plans(batches, every_node=False)
        del batches  # the thread that reads them lets go of them
        for batch, plan in plans:
            ended = [request.ended for request in batch]
            prefixes = self._reading.prefixes(plan, self._prompts(batch), ended, self._goal)
            tolerance = None if self._goal is None else self._goal.tolerance
            yield [
                score_of(plan, prefixes, text, request.ended, Source(ref(self), request), tolerance)
                for text, request in enumerate(batch)
            ]

    @overload
    def distributions(
        self, texts: Texts, prompts: Prompts = None, ended: Ended = True, top_k: None = None
    ) -> list[Distributions]: ...

    @overload
    def distributions(
        self, texts: Texts, prompts: Prompts = None, ended: Ended = True, *, top_k: int
    ) -> list[SparseTargets]: ...

    def distributions(
        self, texts: Texts, prompts: Prompts = None, ended: Ended = True, top_k: int | None = None
    ) -> list[Distributions] | list[SparseTargets]:
        """The teacher's distribution over the next student token, at every position of each text.

        n + 1 rows whatever ``ended`` is. top_k: cut to so many entries a row, as `SparseTargets`. In the regime
        "general" rows are the closing estimate, and `Distributions.undecided_mass` bounds their total variation from
        the truth; with a tolerance further rows are read, best first, until it is no larger, or ``max_rows`` were used
        for a position, or what is left is too light to be looked up: tokens with less than 1e-4 times the tolerance
        of their row. `Distributions.status` says what came of it. Raises what `score` raises, and TargetsError for rows
        that contradict themselves.
        """
        if top_k is None:
            return list(self.iter_distributions(texts, prompts, ended))
        return list(self.iter_distributions(texts, prompts, ended, top_k=top_k))

    @overload
    def iter_distributions(
        self, texts: Texts, prompts: Prompts = None, ended: Ended = True, top_k: None = None
    ) -> Iterator[Distributions]: ...

    @overload
    def iter_distributions(
        self, texts: Texts, prompts: Prompts = None, ended: Ended = True, *, top_k: int
    ) -> Iterator[SparseTargets]: ...

    def iter_distributions(
        self, texts: Texts, prompts: Prompts = None, ended: Ended = True, top_k: int | None = None
    ) -> Iterator[Distributions] | Iterator[SparseTargets]:
        """Stream what `distributions` returns, in order, as `iter_scores` does. n + 1 rows whatever ``ended`` is."""
        whole_number("top_k", top_k, 1)
        requests = requests_of(texts, prompts, ended)
        batches = self._distribution_requests(requests, top_k is None or self._method is not None)
        found: Iterator[Any] = _counted(self._distribution_batches(batches, top_k))
        return found

    def _distribution_requests(self, requests: Iterable[Request], rows: bool) -> Iterator[list[Request]]:
        """Batches that dense rows, if there are such ``rows``, and further ones of the teacher leave memory for.

        None has more tokens than a batch of scores: a search keeps their keys and values.
        """
        limits = [DENSE_BYTES // (8 * self.width)] if rows else []
        if self.pair.regime == "general" and self._search is not None and self._search.max_rows:
            limits.append(FURTHER_ROWS // self._search.max_rows)
        if not limits:
            return form_batches(requests, self.batch_budget)
        positions = max(1, min(limits))

        def share(request: Request) -> float:
            return max(request.cost / self.batch_budget, self._positions(request) / positions)

        return form_batches(requests, 1, share)

    def _distribution_batches(
        self, batches: Iterable[Sequence[Request]], top_k: int | None
    ) -> Iterator[Iterable[Distributions | SparseTargets]]:
        if self._method is not None:
            method = self._method
            yield from (method.distributions(batch, top_k) for batch in batches)
            return
        plans = self._plans(batches, every_node=True)
        del batches
        for batch, plan in plans:
            if self.pair.regime == "general":
                yield self._estimates(batch, plan, top_k)
            else:
                yield self._exact(batch, plan, top_k)

    def _exact(
        self, batch: Sequence[Request], plan: Plan, top_k: int | None
    ) -> Iterator[Distributions | SparseTargets]:
        """The distributions of a batch in the regimes "same" and "subset"."""
        collector = dense.Collector(plan, self.width, keep=top_k)
        prefixes = gather(plan, self._reading.read(plan, self._prompts(batch), collector).masses)
        for text, request in enumerate(batch):
            if top_k is None:
                yield self._distribution(plan, collector, prefixes, text)
            else:
                labels = self._labels(plan, prefixes, text, request, None)
                entries = collector.entries(prefixes, text)
                status = exact_status(plan, prefixes, text, self._reading.canonical, entries.log_totals())
                yield cut(entries, labels, status, top_k)

    def _estimates(
        self, batch: Sequence[Request], plan: Plan, top_k: int | None
    ) -> Iterator[Distributions | SparseTargets]:
        """The closing estimates of a batch, with what further rows add to them."""
        keep = None if top_k is None else top_k * SPARE
        found = estimates(self._reading, plan, self._prompts(batch), self._search, keep)
        tolerance = None if self._search is None else self._search.tolerance
        for text, (estimate, prefixes) in enumerate(found):
            if top_k is None:
                ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
                undecided, status = torch.from_numpy(estimate.undecided).float(), estimate.status(tolerance)
                rows = estimate.dense(self.width)
                yield Distributions(ids, rows, undecided, estimate.spent, status=status)
            else:
                labels = self._labels(plan, prefixes, text, batch[text], tolerance)
                yield cut_estimate(estimate, labels, tolerance, top_k)

    def _labels(
        self, plan: Plan, prefixes: Prefixes, text: int, request: Request, tolerance: float | None
    ) -> Labels:
        score = score_of(plan, prefixes, text, request.ended, tolerance=tolerance)
        ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
        return labels_of(self.pair, ids, score, request.size, request.ended)

    def next_token(
        self, student_ids: Sequence[int] | IntArray, prompt: Sequence[int] | None = None
    ) -> NextToken:
        """The distribution over the student token after ``student_ids``.

        prompt: None (the text starts a document) or teacher ids. Raises NotCanonicalError where no text has such a
        student encoding (end-of-text ids are in none), ZeroProbabilityError where the teacher gives it no
        probability, TeacherError where it cannot read the prompt.

        In the regime "general" between bounds, which a tolerance and ``max_rows`` (for the whole distribution) tighten
        as in `score`: all tokens' bounds are then no further apart than the tolerance. Raises PlanError for another
        method than "auto".
        """
        self._refuse_methods("next_token")
        return next_token(self._reading, self.pair, self.width, student_ids, prompt, self._goal)

    def show(
        self,
        text: str | bytes,
        prompt: Sequence[int] | None = None,
        ended: bool = True,
        max_covers: int = 12,
    ) -> Shown:
        """Score a text, with the ``max_covers`` largest covers of each student prefix, to be looked at.

        In a notebook, in a terminal, or as a page. prompt: None (the text starts a document) or teacher ids. Bounds
        are as close as the scorer's tolerance has them; covers are those of the rows along the text. Raises what
        `crosstok.show.explain.explain` does, and PlanError for another method than "auto".
        """
        from crosstok.show import Shown
        from crosstok.show.explain import explain

        self._refuse_methods("show")
        return Shown(explain(self._reading, self.pair, text, prompt, ended, max_covers, self._goal))

    def _refuse_methods(self, what: str) -> None:
        """Raise PlanError for what only "auto" has."""
        if self._method is not None:
            raise PlanError(f"method {self.method!r} has no {what}: make a Scorer without it")

    def _check_widths(self) -> None:
        """Refuse a model that lacks tokens of its tokenizer. A larger head is fine: its extra mass is non-canonical."""
        try:
            width = self.teacher.vocab_size
        except TeacherError:  # a table that is asked for its width before its first row
            return
        top = max([*self.pair.teacher_eos, int(self.pair.order.max(initial=0))])
        if top >= width:
            raise TeacherError(
                f"the teacher's rows have {width} entries, but its tokenizer has token {top} "
                f"({self.pair.teacher.token_bytes(top)!r})"
            )

    def _plans(
        self, batches: Iterable[Sequence[Request]], every_node: bool
    ) -> Iterator[tuple[Sequence[Request], Plan]]:
        """Each batch with its plan; the next one is planned while the caller is busy with this one."""

        def plan(batch: Sequence[Request]) -> tuple[Sequence[Request], Plan]:
            start = perf_counter()
            made = self.pair.plan(
                [request.text for request in batch],
                start=[request.prompt is None for request in batch],
                ended=[request.ended for request in batch],
                every_node=every_node,
                num_threads=self._reading.num_threads,
            )
            self.timings.plan += perf_counter() - start
            return batch, made

        return ahead(plan(batch) for batch in batches)

    def _positions(self, request: Request) -> int:
        """How many distributions a text has."""
        try:
            return len(self.pair.student.encode(request.text, start=request.prompt is None)) + 1
        except TextError:  # planning it will say so, with its index
            return 1

    def _prompts(self, batch: Sequence[Request]) -> list[tuple[int, ...]]:
        return [self.pair.prompt_ids(request.prompt) for request in batch]

    def _distribution(
        self, plan: Plan, collector: dense.Collector, prefixes: Prefixes, text: int
    ) -> Distributions:
        ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
        logprobs = collector.finish(prefixes, text, range(len(ids) + 1)).float()
        none = np.zeros(len(ids) + 1, dtype=np.int64)
        status = exact_status(plan, prefixes, text, self._reading.canonical, row_totals(logprobs))
        return Distributions(ids, logprobs, torch.from_numpy(none).float(), none, status=status)


def _counted(batches: Iterator[Iterable[T]]) -> Iterator[T]:
    """The items of all batches; errors name a text by its number among all of them."""
    done = 0
    while True:
        first = done
        try:
            batch = next(batches, None)
            if batch is None:
                return
            for item in batch:  # which may only now be computed
                yield item
                done += 1
        except (TextError, TeacherError) as error:
            raise _moved(error, first) from None


def _moved(error: TextError | TeacherError, by: int) -> TextError | TeacherError:
    """The same error about a text that stands ``by`` places later."""
    index = None if error.index is None else error.index + by
    if isinstance(error, TextError):
        return TextError(error.reason, index, error.offset)
    return TeacherError(error.reason, index)
