"""Texts in batches: lazy, in order, planned ahead, and each batch by itself."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import crosstok as ct
import torch
from crosstok.requests import Request, ahead, form_batches, requests_of

DEMO = Path(str(resources.files("crosstok.demo")))
TEXTS = [
    "Return a copy.",
    "If the key is not found, KeyError is raised.",
    "x = 1\n",
    "",
    "é 🙂",
    "The end.",
] * 3


@pytest.fixture(scope="module")
def scorer() -> ct.Scorer:
    teacher = ct.HFTeacher(str(DEMO), batch_tokens=10, dtype=torch.float32, device="cpu")
    tokenizer = ct.Tokenizer.from_pretrained(DEMO)
    return ct.Scorer(teacher, ct.Pair(tokenizer, tokenizer.first_merges(200)))


def same(left: ct.Score, right: ct.Score) -> bool:
    """Equal to the last bit."""
    names = (
        "student_ids",
        "logprobs",
        "prefix_lower",
        "noncanonical_mass",
        "inadmissible_mass",
        "rows",
        "status",
    )
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


def test_lazy_texts_come_in_order_and_are_not_read_far_ahead(scorer: ct.Scorer) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for text in itertools.cycle(TEXTS):
            taken += 1
            yield text

    wanted = scorer.score(TEXTS)
    found = list(itertools.islice(scorer.iter_scores(endless()), 40))
    for i, score in enumerate(found):
        again = wanted[i % len(TEXTS)]
        assert score.student_ids.tolist() == again.student_ids.tolist()
        np.testing.assert_allclose(score.logprobs, again.logprobs, atol=2e-5)
    assert taken < 40 + 4 * scorer.batch_budget // 3


def test_prompts_may_be_lazy_and_mixed(scorer: ct.Scorer) -> None:
    prompts = [None if i % 2 else [5, 6, 7 + i] for i in range(len(TEXTS))]
    together = list(scorer.iter_scores(iter(TEXTS), iter(prompts), (i % 3 > 0 for i in itertools.count())))
    for i, score in enumerate(together):
        prompt = prompts[i]
        alone = scorer.score([TEXTS[i]], None if prompt is None else [prompt], ended=i % 3 > 0)[0]
        assert score.student_ids.tolist() == alone.student_ids.tolist()
        np.testing.assert_allclose(score.logprobs, alone.logprobs, atol=2e-5)


def test_a_batch_does_not_depend_on_the_others(scorer: ct.Scorer) -> None:
    batches = list(form_batches(requests_of(TEXTS, None, True), scorer.batch_budget))
    assert len(batches) > 2
    together = list(scorer.score_batches(batches))
    for batch, scores in zip(batches, together, strict=True):
        alone = next(scorer.score_batches([batch]))
        assert all(same(left, right) for left, right in zip(scores, alone, strict=True))


def test_batches_keep_the_budget_and_leave_nothing_out() -> None:
    requests = [Request("x" * n, [1] * (n % 5)) for n in [0, 3, 50, 1, 1, 1, 7, 400, 2, 90]]
    batches = list(form_batches(requests, 40))
    assert list(itertools.chain(*batches)) == requests
    assert all(len(batch) == 1 or sum(r.cost for r in batch) <= 40 for batch in batches)
    full = itertools.pairwise(batches)
    assert all(sum(r.cost for r in batch) + after[0].cost > 40 for batch, after in full)
    assert Request("日本").size == 6 and Request(b"\xff").size == 1 and Request("\ud800").size == 3


def test_errors_come_in_their_turn_and_name_their_text(scorer: ct.Scorer) -> None:
    texts: list[str | bytes] = [*TEXTS, b"\xff", *TEXTS]
    seen: list[ct.Score] = []
    with pytest.raises(ct.TextError) as caught:
        seen.extend(scorer.iter_scores(iter(texts)))
    assert caught.value.index == len(TEXTS) and caught.value.offset == 0
    assert 0 < len(seen) <= len(TEXTS)
    rows = scorer.iter_distributions(iter(texts))
    with pytest.raises(ct.TextError, match=f"text {len(TEXTS)}: byte 0: invalid UTF-8"):
        list(rows)
    positions = scorer.teacher.max_positions  # type: ignore[attr-defined]
    with pytest.raises(
        ct.TeacherError, match=rf"text 2: .*the prompt's: the model has {positions} positions"
    ) as long:
        scorer.score(["a", "b", "c"], prompts=[[5], [5], [5] * positions])
    assert long.value.index == 2


def test_numbers_of_prompts_and_flags_are_checked(scorer: ct.Scorer) -> None:
    with pytest.raises(ValueError, match="prompts: 1 for 2 texts"):
        scorer.iter_scores(["a", "b"], prompts=[[5]])
    with pytest.raises(ValueError, match="ended: 3 for 2 texts"):
        scorer.iter_scores(["a", "b"], ended=[True] * 3)
    with pytest.raises(ValueError, match="only 1, but there are more texts"):
        scorer.score(iter(["a", "b"]), prompts=iter([[5]]))
    with pytest.raises(ValueError, match="prompts: 3 for 2 texts"):
        scorer.score(iter(["a", "b"]), prompts=[[5], [6], [7]])
    with pytest.raises(TypeError, match="a list of texts"):
        scorer.iter_scores("a")
    assert scorer.score([]) == [] and scorer.distributions([]) == []


def test_the_next_item_is_made_while_this_one_is_in_use() -> None:
    made, wanted = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        wanted.wait(10)  # the consumer holds 1 by now
        made.set()
        yield 2

    stream = ahead(items())
    assert next(stream) == 1
    wanted.set()
    assert made.wait(10)  # without asking for it
    assert list(stream) == [2]


def test_leaving_early_stops_the_thread(scorer: ct.Scorer) -> None:
    before = set(threading.enumerate())
    scores = scorer.iter_scores(itertools.cycle(TEXTS))
    next(scores)
    assert set(threading.enumerate()) - before
    scores.close()  # type: ignore[attr-defined]
    assert not set(threading.enumerate()) - before


def test_leaving_does_not_wait_for_texts_that_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosstok.requests.GRACE", 0.1)
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        never.wait(60)
        yield 2

    stream = ahead(items())
    assert next(stream) == 1
    start = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 30
    never.set()


def test_texts_are_let_go_of_in_the_thread_that_read_them() -> None:
    ended: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            ended.append(threading.current_thread().name)

    stream = ahead(items())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert ended == ["crosstok-plan"]


def test_time_is_accounted_for(scorer: ct.Scorer) -> None:
    fresh = ct.Scorer(scorer.teacher, scorer.pair)
    assert (fresh.timings.plan, fresh.timings.teacher, fresh.timings.aggregation) == (0, 0, 0)
    fresh.score(TEXTS)
    assert min(fresh.timings.plan, fresh.timings.teacher, fresh.timings.aggregation) > 0


def test_a_score_can_be_shown_and_pickled(scorer: ct.Scorer) -> None:
    score = scorer.score(["If the key is not found"], [[5, 6]], ended=False)[0]
    shown = score.show()
    assert [position.logprob for position in shown.explanation.positions] == pytest.approx(
        score.logprobs, abs=2e-5
    )
    assert set(dataclasses.asdict(score)) > {"logprobs", "status"}
    copy = pickle.loads(pickle.dumps(score))
    assert same(copy, score)
    with pytest.raises(ValueError, match="scorer is gone"):
        copy.show()
