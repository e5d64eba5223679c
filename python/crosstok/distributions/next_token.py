"""The distribution over one next student token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosstok.distributions import exact as dense
from crosstok.distributions.following import bounded
from crosstok.errors import TeacherError, ZeroProbabilityError
from crosstok.masses.prefixes import gather
from crosstok.pair import Pair
from crosstok.ragged import IntArray, Ragged, ids_array
from crosstok.reading import Reading
from crosstok.results import NextToken
from crosstok.scores.refine import Goal


def next_token(
    reading: Reading,
    pair: Pair,
    width: int,
    student_ids: Sequence[int] | IntArray,
    prompt: Sequence[int] | None = None,
    goal: Goal | None = None,
) -> NextToken:
    """What `Scorer.next_token` returns, and raises. width: of the student's logits; goal: where there are bounds."""
    ids = ids_array(student_ids)
    pair.check_student_prefix(ids, start=prompt is None)
    if pair.regime == "general":
        return bounded(reading, pair, width, ids, prompt, goal)
    return _exact(reading, pair, width, ids, prompt)


def _exact(
    reading: Reading, pair: Pair, width: int, ids: IntArray, prompt: Sequence[int] | None
) -> NextToken:
    """In the regimes in which nothing is undecided."""
    start, end_rows = np.array([prompt is None]), np.array([True])
    plan = pair.plan_ids(Ragged.of([ids]), start, end_rows, True, reading.num_threads)
    collector = dense.Collector(plan, width, only=len(ids))
    try:
        aggregator = reading.read(plan, [pair.prompt_ids(prompt)], collector, exact=True)
    except TeacherError as error:  # there is no list of texts to count in
        raise TeacherError(error.reason) from None
    prefixes = gather(plan, aggregator.masses)
    if prefixes.estimate[len(ids)] == -np.inf:
        raise ZeroProbabilityError(f"the teacher gives the student prefix {ids.tolist()} no probability")
    logprobs = collector.finish(prefixes, 0, range(len(ids), len(ids) + 1))[0]
    return NextToken(logprobs, logprobs, logprobs)
