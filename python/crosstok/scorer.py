"""`Scorer`: texts in, the teacher's probabilities of their student tokens out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from crosstok import distributions as dense
from crosstok.errors import TeacherError, TextError, ZeroProbabilityError
from crosstok.masses import Aggregator, Block
from crosstok.pair import BoolArray, Pair, Plan, flags
from crosstok.prefixes import Prefixes, gather
from crosstok.ragged import IntArray, Ragged, ids_array
from crosstok.results import Distributions, NextToken, Score, Status
from crosstok.teacher.protocol import Teacher, TokenTree, stream_rows

Prompts = Sequence[Sequence[int]] | None
# Texts that are planned and sent to the teacher together; results come out as each such window is done.
WINDOW = 16
# Dense rows of a window of texts take about this much memory (a single text may take more).
DENSE_BYTES = 1 << 30


class Scorer:
    """What a teacher thinks of student tokens (design.md, sections 2 and 5).

    canonical: "renormalize" (at every step, over the canonical tokens) or "mask" (no renormalisation; the deficit is
    the non-canonical mass). method: "auto", exact where nothing is undecided, which is everywhere in the regimes
    "same" and "subset"; others are not available yet. tolerance, max_rows: no effect where nothing is undecided.
    temperature divides the teacher's logits before anything else. width: of the student's logits, for padded heads.
    num_threads: of the planner, 0 or None for all cores.

    Raises PlanError for a pair in the general regime, TeacherError for a teacher whose rows are narrower than its
    tokenizer's vocabulary.
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
    ) -> None:
        if canonical not in ("renormalize", "mask"):
            raise ValueError(f"canonical must be 'renormalize' or 'mask', not {canonical!r}")
        if method != "auto":
            raise ValueError(f"method {method!r} is not available yet, only 'auto'")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, not {temperature}")
        if tolerance is not None and not 0 <= tolerance <= 1:
            raise ValueError(f"tolerance is a share of mass, not {tolerance}")
        if max_rows is not None and max_rows < 0:
            raise ValueError(f"max_rows must not be negative: {max_rows}")
        self.teacher, self.pair = teacher, pair
        self.canonical, self.temperature = canonical, float(temperature)
        self.width = max(pair.student.vocab_size, width or 0)
        self.num_threads = num_threads or 0
        self._check_widths(pair.spelling.tokens)

    def score(
        self, texts: Sequence[str | bytes], prompts: Prompts = None, ended: bool | Sequence[bool] = True
    ) -> list[Score]:
        """Log-probabilities of the student tokens of each text.

        prompts: None (each text starts a document) or one sequence of teacher ids a text. ended: whether end-of-text
        follows; False for a cut-off completion. Raises TextError for a text that is not admissible, naming it.
        """
        return list(self.iter_scores(texts, prompts, ended))

    def iter_scores(
        self, texts: Sequence[str | bytes], prompts: Prompts = None, ended: bool | Sequence[bool] = True
    ) -> Iterator[Score]:
        """Stream what `score` returns, in order."""
        ends = flags(ended, len(texts), "ended")
        for chunk in self._windows(texts, prompts):
            plan = self._plan(texts, prompts, ends, chunk, every_node=False)
            aggregator = self._aggregate(plan, self._prompts(prompts, chunk))
            prefixes = gather(plan, aggregator.masses)
            for text, index in enumerate(chunk):
                yield self._score(plan, prefixes, text, bool(ends[index]))

    def distributions(
        self,
        texts: Sequence[str | bytes],
        prompts: Prompts = None,
        ended: bool | Sequence[bool] = True,
        top_k: int | None = None,
    ) -> list[Distributions]:
        """The teacher's distribution over the next student token, at every position of each text."""
        return list(self.iter_distributions(texts, prompts, ended, top_k))

    def iter_distributions(
        self,
        texts: Sequence[str | bytes],
        prompts: Prompts = None,
        ended: bool | Sequence[bool] = True,
        top_k: int | None = None,
    ) -> Iterator[Distributions]:
        """Stream what `distributions` returns, in order. Rows are n + 1 whatever ``ended`` is."""
        if top_k is not None:
            raise ValueError("top_k is not available yet: distributions are dense")
        ends = flags(ended, len(texts), "ended")
        # A byte of text is at most about one row that is held until its text is done.
        held = 8 * self.width * max((len(text) for text in texts), default=0)
        for chunk in self._windows(texts, prompts, max(1, min(WINDOW, DENSE_BYTES // max(1, held)))):
            plan = self._plan(texts, prompts, ends, chunk, every_node=True)
            collector = dense.Collector(plan, self.width)
            aggregator = self._aggregate(plan, self._prompts(prompts, chunk), collector)
            prefixes = gather(plan, aggregator.masses)
            for text in range(len(chunk)):
                ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
                logprobs = collector.finish(prefixes, text, range(len(ids) + 1)).float()
                undecided = torch.zeros(len(ids) + 1, dtype=torch.float32)
                yield Distributions(ids, logprobs, undecided)

    def next_token(
        self, student_ids: Sequence[int] | IntArray, prompt: Sequence[int] | None = None
    ) -> NextToken:
        """The distribution over the student token after ``student_ids``.

        prompt: None (the text starts a document) or teacher ids. Raises NotCanonicalError where no text has such a
        student encoding, ZeroProbabilityError where the teacher gives it none.
        """
        ids = ids_array(student_ids)
        start = prompt is None
        self.pair.check_student_prefix(ids, start)
        plan = self.pair.plan_ids(
            Ragged.of([ids]), np.array([start]), np.array([True]), True, self.num_threads
        )
        collector = dense.Collector(plan, self.width, only=len(ids))
        aggregator = self._aggregate(plan, [self._prompt(prompt)], collector)
        prefixes = gather(plan, aggregator.masses)
        if prefixes.log_p[len(ids)] == -np.inf:
            raise ZeroProbabilityError(f"the teacher gives the student prefix {ids.tolist()} no probability")
        logprobs = collector.finish(prefixes, 0, range(len(ids), len(ids) + 1))[0]
        return NextToken(logprobs, logprobs, logprobs)

    def _check_widths(self, tokens: IntArray) -> None:
        """Refuse a model that lacks tokens of its tokenizer. A larger head is fine: its extra mass is non-canonical."""
        try:
            width = self.teacher.vocab_size
        except TeacherError:  # a table that is asked for its width before its first row
            return
        top = max([*self.pair.teacher_eos, int(tokens.max(initial=0))])
        if top >= width:
            raise TeacherError(
                f"the teacher's rows have {width} entries, but its tokenizer has token {top} "
                f"({self.pair.teacher.token_bytes(top)!r})"
            )

    def _windows(self, texts: Sequence[str | bytes], prompts: Prompts, size: int = WINDOW) -> Iterator[range]:
        if isinstance(texts, (str, bytes)):
            raise TypeError("texts must be a list of texts, not one text")
        if prompts is not None and len(prompts) != len(texts):
            raise ValueError(f"{len(prompts)} prompts for {len(texts)} texts")
        if prompts is not None and any(prompt is None for prompt in prompts):
            raise ValueError("prompts must be None for all texts or a sequence of ids for each")
        for first in range(0, len(texts), size):
            yield range(first, min(first + size, len(texts)))

    def _plan(
        self, texts: Sequence[str | bytes], prompts: Prompts, ends: BoolArray, chunk: range, every_node: bool
    ) -> Plan:
        start = prompts is None
        try:
            return self.pair.plan(
                [texts[i] for i in chunk],
                start=start,
                ended=[bool(ends[i]) for i in chunk],
                every_node=every_node,
                num_threads=self.num_threads,
            )
        except TextError as error:
            index = None if error.index is None else error.index + chunk.start
            raise TextError(error.reason, index, error.offset) from None

    def _prompts(self, prompts: Prompts, chunk: range) -> list[tuple[int, ...]]:
        return [self._prompt(None if prompts is None else prompts[i]) for i in chunk]

    def _prompt(self, prompt: Sequence[int] | None) -> tuple[int, ...]:
        """The ids the teacher sees first. Without prompt its BOS, or, if it has none, its end-of-text id."""
        if prompt is not None:
            return tuple(ids_array(prompt).tolist())
        bos = self.pair.teacher.bos_id
        return (self.pair.teacher_eos[0] if bos is None else bos,)

    def _aggregate(
        self, plan: Plan, prompts: list[tuple[int, ...]], collector: dense.Collector | None = None
    ) -> Aggregator:
        """Run the teacher over the plan's trees and take in its rows."""
        aggregator = Aggregator(plan, self.canonical, self.temperature, self.num_threads)
        bounds = plan.node_ptr
        trees = []
        for text, prompt in enumerate(prompts):
            nodes = slice(int(bounds[text]), int(bounds[text + 1]))
            parent = np.maximum(plan.node_parent[nodes] - bounds[text], -1)
            trees.append(TokenTree(prompt, plan.node_token[nodes], parent))
        for rows in stream_rows(self.teacher, trees):
            nodes_of_rows = bounds[rows.tree] + rows.node
            block: Block = aggregator.add(nodes_of_rows, rows.logits, exact=collector is not None)
            if collector is not None:
                collector.add(aggregator, block)
        return aggregator

    def _score(self, plan: Plan, prefixes: Prefixes, text: int, ended: bool) -> Score:
        ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
        if ended:
            ids = np.append(ids, self.pair.student_eos[0])
        before = slice(int(prefixes.first[text]), int(prefixes.first[text]) + len(ids))
        after = slice(before.start + 1, before.stop + 1)
        log_p = prefixes.log_p[after]
        possible = (log_p > -np.inf) & (prefixes.log_p[before] > -np.inf)
        logprobs = np.full(len(ids), -np.inf)
        logprobs[possible] = log_p[possible] - prefixes.log_p[before][possible]
        status = np.where(prefixes.thin[after] | ~possible, Status.UNSUPPORTED, Status.EXACT).astype(np.uint8)
        return Score(
            student_ids=ids,
            logprobs=logprobs,
            lower=logprobs,
            upper=logprobs,
            prefix_lower=log_p,
            prefix_upper=log_p,
            noncanonical_mass=prefixes.noncanonical[after],
            inadmissible_mass=prefixes.dead[before],
            rows=prefixes.rows[before],
            status=status,
        )
