"""From the probabilities of student prefixes to scores: differences, and what is known of each position."""

from __future__ import annotations

import numpy as np

from crosstok.pair import Plan
from crosstok.prefixes import Prefixes
from crosstok.results import Score, Source, Status


def score_of(plan: Plan, prefixes: Prefixes, text: int, ended: bool, source: Source | None = None) -> Score:
    """The score of a plan's text; with end-of-text where it is ended."""
    ids = plan.student_ids[plan.student_ptr[text] : plan.student_ptr[text + 1]]
    if ended:
        ids = np.append(ids, plan.pair.student_eos[0])
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
        source=source,
    )
