"""What ends the search for further rows: paths too long for the teacher, the tolerance, and light tokens."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import crosstok as ct
import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok import scorer as scorers
from crosstok.distributions import expansion
from crosstok.distributions.expansion import Expansion
from crosstok.teacher.session import Session
from general_pairs import MODES, samples
from test_refine import demo_pair
from test_toys_distributions_general import FLOAT32, errors, found

TEXT = "Return a copy of the string with all occurrences"
ROWS = 4


@pytest.fixture(scope="module")
def demo(one_thread: None) -> tuple[Any, Any]:
    """`demo_pair`."""
    return demo_pair()


def rows_of(teacher: Any, pair: Any, texts: list[str], **options: Any) -> list[Any]:
    """Distributions of texts."""
    return list(ct.Scorer(teacher, pair, **options).distributions(texts))


def fitting(pair: Any, text: str, most: int, rows: int) -> list[int]:
    """Those i whose paths cannot be longer than ``most``, one token of prompt included, with so many further rows.

    Every teacher token has a byte, so a path has at most those of s_1..s_i, one token beyond, and a token a row.
    """
    student = pair.student
    sizes = accumulate((len(student.token_bytes(t)) for t in student.encode(text)), initial=0)
    return [i for i, size in enumerate(sizes) if 1 + size + 1 + rows <= most]


def test_near_the_context_limit_positions_whose_paths_fit_are_expanded(
    demo: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, pair = demo
    longest = 1 + len(pair.teacher.encode(TEXT, start=True))
    options: dict[str, Any] = {"tolerance": 0.02, "max_rows": ROWS, "method_options": {"order": "mass"}}
    (free,) = rows_of(teacher, pair, [TEXT], **options)
    scored = ct.Scorer(teacher, pair, tolerance=0.02, max_rows=ROWS).score([TEXT])[0]
    monkeypatch.setattr(teacher, "max_positions", longest)
    (limited,) = rows_of(teacher, pair, [TEXT], **options)
    bounded = ct.Scorer(teacher, pair, tolerance=0.02, max_rows=ROWS).score([TEXT])[0]
    fit = fitting(pair, TEXT, longest, ROWS)
    assert free.rows[fit].max() == ROWS
    assert limited.rows[fit].tolist() == free.rows[fit].tolist()
    np.testing.assert_allclose(limited.undecided_mass[fit], free.undecided_mass[fit], rtol=0, atol=1e-5)
    np.testing.assert_allclose(limited.logprobs[fit].exp(), free.logprobs[fit].exp(), rtol=0, atol=1e-5)
    assert (limited.undecided_mass >= free.undecided_mass - 1e-5).all()
    # The end of the text has no room for longer paths, but for some.
    late = slice(len(free.rows) - 5, None)
    assert (limited.undecided_mass[late] > free.undecided_mass[late] + 1e-4).any()
    assert limited.rows[late].sum() > 0
    for name in ("prefix_lower", "prefix_upper"):
        ours, theirs = getattr(bounded, name), getattr(scored, name)
        np.testing.assert_allclose(ours[fit[:-1]], theirs[fit[:-1]], rtol=0, atol=1e-5)
    assert bounded.rows[fit].tolist() == scored.rows[fit].tolist()


@pytest.mark.parametrize("top_k", [None, 4])
def test_batches_are_cut_by_the_further_rows_that_they_may_ask_for(
    demo: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, top_k: int | None
) -> None:
    """What is kept of thousands of rows a position would not go into memory for many texts at once."""
    teacher, pair = demo
    texts, sizes = [TEXT, "Return", "a copy", TEXT], list[int]()
    options: dict[str, Any] = {"top_k": top_k}

    def ask() -> list[Any]:
        return list(ct.Scorer(teacher, pair, tolerance=0.02, max_rows=ROWS).distributions(texts, **options))

    whole = ask()
    positions = [len(one.undecided_mass) for one in whole]
    monkeypatch.setattr(scorers, "FURTHER_ROWS", ROWS * (sum(positions[1:3]) + 1))
    run = Expansion.run

    def counted(self: Any, *args: Any) -> Any:
        sizes.append(len(self.positions.text))
        return run(self, *args)

    monkeypatch.setattr(Expansion, "run", counted)
    parts = ask()
    assert sizes == [positions[0], positions[1] + positions[2], positions[3]]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.undecided_mass, other.undecided_mass, rtol=0, atol=1e-5)
        if top_k is None:
            assert one.rows.tolist() == other.rows.tolist()
            np.testing.assert_allclose(one.logprobs.exp(), other.logprobs.exp(), rtol=0, atol=1e-5)
        else:
            np.testing.assert_allclose(np.exp(one.label_logp), np.exp(other.label_logp), rtol=0, atol=1e-5)


@pytest.mark.parametrize("top_k", [None, 4])
@pytest.mark.parametrize("options", [{}, {"tolerance": 0.02, "max_rows": 1}])
def test_prompts_count_for_batches(
    demo: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, top_k: int | None, options: dict[str, Any]
) -> None:
    """Their keys and values are kept, too, however few rows and positions there are."""
    teacher, pair = demo
    planned, plan = list[int](), ct.Pair.plan

    def counted(self: Any, texts: list[str], **others: Any) -> Any:
        planned.append(len(texts))
        return plan(self, texts, **others)

    monkeypatch.setattr(ct.Pair, "plan", counted)
    monkeypatch.setattr(scorers.Scorer, "batch_budget", 60)
    asked: dict[str, Any] = {"prompts": [[5 + i] * (50 if i else 10) for i in range(4)], "top_k": top_k}
    ct.Scorer(teacher, pair, **options).distributions(["a", "Return", "a copy", "a"], **asked)
    assert planned == [1, 1, 1, 1]
    planned.clear()
    asked["prompts"] = [[5 + i] * 10 for i in range(4)]
    ct.Scorer(teacher, pair, **options).distributions(["a", "Return", "a copy", "a"], **asked)
    assert planned == [4]


def calls_of(teacher: Any, pair: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, int]:
    """Distributions of a text, and how often the teacher was asked for further rows."""
    calls, extend = [0], Session.extend

    def counted(self: Any, *args: Any) -> Any:
        calls[0] += 1
        return extend(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "extend", counted)
        return rows_of(teacher, pair, [TEXT], **options)[0], calls[0]


@pytest.mark.parametrize("tolerance", [0.2, 0.05])
def test_without_a_budget_the_best_leaves_come_first(
    demo: tuple[Any, Any], tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, calls = calls_of(*demo, monkeypatch, tolerance=tolerance)
    bound, _ = calls_of(*demo, monkeypatch, tolerance=tolerance, max_rows=100_000)
    assert free.rows.tolist() == bound.rows.tolist()
    assert (free.undecided_mass <= tolerance).all()
    # One row fewer would have done only where it was not the last of its round.
    some = int(free.rows.argmax())
    least, _ = calls_of(*demo, monkeypatch, tolerance=tolerance, max_rows=int(free.rows[some] * 0.7) - 1)
    assert least.undecided_mass[some] > tolerance
    assert calls <= 6 + np.log(max(free.rows.max() / 16, 1)) / np.log(1.25) + 3


def test_light_tokens_of_further_rows_are_looked_up_where_they_matter(demo: tuple[Any, Any]) -> None:
    teacher, pair = demo
    options: dict[str, Any] = {"tolerance": 0.02, "max_rows": 5000}
    for text in (TEXT, "Changed in version 3.9: the"):
        (found,) = rows_of(teacher, pair, [text], **options)
        assert (found.undecided_mass <= 0.02).all() and found.rows.max() < 5000
        (tight,) = rows_of(teacher, pair, [text], tolerance=0.002, max_rows=60)
        gap = (found.logprobs.exp() - tight.logprobs.exp()).abs().sum(1) / 2
        assert (gap <= found.undecided_mass + tight.undecided_mass + 1e-5).all()


def test_a_text_looks_up_the_same_light_tokens_in_any_batch(demo: tuple[Any, Any]) -> None:
    teacher, pair = demo
    texts = [TEXT[:12], "Changed in version", "import os"]
    for text, together in zip(texts, rows_of(teacher, pair, texts, tolerance=0.03), strict=True):
        (alone,) = rows_of(teacher, pair, [text], tolerance=0.03)
        assert alone.rows.tolist() == together.rows.tolist()
        np.testing.assert_allclose(together.undecided_mass, alone.undecided_mass, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "deepseek"])
def test_no_row_is_further_off_where_light_tokens_were_looked_up_late(
    kind: str, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against brute force. The toys' tokens are so few that none is light unless that means far more mass."""
    late, lighter = [0], Expansion._lighter

    def counted(self: Any, *args: Any) -> Any:
        late[0] += 1
        return lighter(self, *args)

    monkeypatch.setattr(Expansion, "_lighter", counted)
    for share in (0.05, 0.5):
        monkeypatch.setattr(expansion, "ROW_SHARE", share)
        for sample in samples(kind)[:6]:
            for mode in MODES:
                rows = found(sample, mode, tolerance=0.2)
                for i in range(len(sample.ids) + 1):
                    little, much, _ = errors(sample, mode, rows, i)
                    assert max(little, much) <= float(rows.undecided_mass[i]) + FLOAT32, (sample.name, i)
    assert late[0] > 3
