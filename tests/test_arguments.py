"""What cannot be is refused where it comes in, by its name."""

from __future__ import annotations

from typing import Any

import crosstok as ct
import pytest

pytest.importorskip("torch")

from crosstok.losses import collate, forward_kl
from hf_models import torch
from test_refine import demo_pair


@pytest.fixture(scope="module")
def demo(one_thread: None) -> tuple[Any, Any]:
    """`demo_pair`."""
    return demo_pair()


@pytest.mark.parametrize(
    ("texts", "others", "message"),
    [
        ([None], (), "text 0 must be a str or bytes, not NoneType"),
        (["a", 5], (), "text 1 must be a str or bytes, not int"),
        (["a", "b"], ([5, 6],), "the prompt of text 0 must be token ids, not int"),
        (["a"], (["b"],), "the prompt of text 0 must be token ids, not str"),
        (
            ["a"],
            ([{"input_ids": [1]}],),
            "the prompt of text 0 must be token ids, not a dict: pass its input_ids",
        ),
        (
            ["a", "b"],
            ({"input_ids": [[1], [2]]},),
            "prompts must be token ids for each text, not a dict: pass its",
        ),
        (["a"], ([[[1], [2, 3]]],), "the prompt of text 0: "),
        (["a", "b"], ([[1], [[2]]],), r"the prompt of text 1: token ids must be .* not int64 \[1, 1\]"),
        (["a"], (None, 0), "ended must be True, False or one of these for each text, not 0"),
        (["a"], (None, "n"), "ended must be True, False or one of these for each text, not 'n'"),
        (["a"], (None, None), "ended must be True, False or one of these for each text, not None"),
    ],
)
def test_texts_prompts_and_flags(
    demo: tuple[Any, Any], texts: list[Any], others: tuple[Any, ...], message: str
) -> None:
    scorer = ct.Scorer(*demo)
    for call in (scorer.score, scorer.distributions):
        with pytest.raises(TypeError, match=message):
            call(texts, *others)


@pytest.mark.parametrize("text", [None, 5, ["abc"]])
def test_a_single_text(demo: tuple[Any, Any], text: Any) -> None:
    teacher, pair = demo
    for call in (pair.encode, ct.Scorer(teacher, pair).show):
        with pytest.raises(TypeError, match="a text must be a str or bytes"):
            call(text)
    with pytest.raises(TypeError, match="text 0 must be a str or bytes"):
        pair.plan([text])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_threads": -1}, "num_threads must be a whole number, 0 at least, not -1"),
        ({"width": 50_000.5}, "width must be a whole number, 1 at least, not 50000.5"),
        ({"width": -1}, "width must be"),
        ({"width": True}, "width must be"),
        ({"max_rows": 1.5, "tolerance": 0.1}, "max_rows must be a whole number, 0 at least, not 1.5"),
        ({"max_rows": -1, "tolerance": 0.1}, "max_rows must be"),
        ({"max_rows": 8}, "max_rows needs tolerance, which says when fewer rows are enough"),
        ({"method_options": {"order": "mass"}}, "order is that of further rows: it needs tolerance"),
        ({"width": 5}, "width 5 has no column for the student's token"),
        ({"method": "x"}, "no method 'x', only 'auto', "),
    ],
)
def test_options_of_a_scorer(demo: tuple[Any, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ct.Scorer(*demo, **options)


def test_arguments_of_other_types(demo: tuple[Any, Any]) -> None:
    teacher, pair = demo
    with pytest.raises(TypeError, match="pair must be a Pair, not Tokenizer"):
        ct.Scorer(teacher, pair.student)
    with pytest.raises(TypeError, match="method_options must be a mapping, not list"):
        ct.Scorer(teacher, pair, method_options=[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="teacher must be a Teacher"):
        ct.Scorer(teacher.model, pair)
    with pytest.raises(TypeError, match="tolerance must be a number, not True"):
        ct.Scorer(teacher, pair, tolerance=True)
    with pytest.raises(ValueError, match="no method 'nope'"):
        ct.Scorer(teacher, pair, method="nope", tolerance=0.1)
    options: dict[str, Any]
    for name in ("tolerance", "temperature"):
        options = {name: "0.1"}
        with pytest.raises(TypeError, match=f"{name} must be a number, not '0.1'"):
            ct.Scorer(teacher, pair, **options)
    with pytest.raises(TypeError, match="pair must be a Pair, not str"):
        ct.enumerate_covers("pair", [[1]])  # type: ignore[arg-type]


@pytest.mark.parametrize("top_k", [0, 2.5, True])
def test_top_k(demo: tuple[Any, Any], top_k: Any) -> None:
    scorer = ct.Scorer(*demo)
    with pytest.raises(ValueError, match="top_k must be a whole number, 1 at least"):
        scorer.distributions(["a"], top_k=top_k)
    with pytest.raises(ValueError, match="top_k must be a whole number, 1 at least"):
        collate(scorer.distributions(["a"]), top_k=top_k)


@pytest.mark.parametrize("options", [{"max_covers": -1}, {"num_threads": -1}])
def test_limits_of_covers(demo: tuple[Any, Any], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be a whole number, 0 at least"):
        ct.enumerate_covers(demo[1], [[1]], **options)


def test_what_losses_take(demo: tuple[Any, Any]) -> None:
    targets = ct.Scorer(*demo).distributions(["a"])
    logits, batch = targets[0].logprobs.clamp(min=-50), collate(targets)
    with pytest.raises(ValueError, match="num_items_in_batch must be finite and not negative, not -3"):
        forward_kl(logits, batch, num_items_in_batch=-3)
    with pytest.raises(TypeError, match="targets must be a tensor or a batch made by collate, not list"):
        forward_kl(logits, targets)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels must be token ids, not torch\.float32"):
        forward_kl(logits, batch, torch.zeros(len(logits)))
    with pytest.raises(ValueError, match="temperature must be positive and finite, not inf"):
        forward_kl(logits, batch, temperature=float("inf"))


def test_where_targets_go(demo: tuple[Any, Any]) -> None:
    targets = ct.Scorer(*demo).distributions(["a", "b"])
    with pytest.raises(
        ValueError, match=r"the start of text 0 must be a whole number, -1 at least, not 0\.5"
    ):
        collate(targets, starts=[0.5, 1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the start of text 1 must be a whole number, -1 at least, not -2"):
        collate(targets, starts=[0, -2])
    with pytest.raises(ValueError, match="the end-of-text id of text 0 must be a whole number, 0 at least"):
        collate(targets, eos=-3)


def test_what_is_no_tokenizer(demo: tuple[Any, Any]) -> None:
    pair = demo[1]
    with pytest.raises(
        TypeError, match=r"teacher must be a crosstok.Tokenizer, not str \(Tokenizer.from_pretrained"
    ):
        ct.Pair("gpt2", pair.student)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"student must be .*, not Pair"):
        ct.Pair(pair.teacher, pair)
    with pytest.raises(ValueError, match="n must be a whole number, 0 at least, not -1"):
        pair.teacher.first_merges(-1)


def test_a_head_may_lack_special_tokens_that_end_no_text(demo: tuple[Any, Any]) -> None:
    """Gemma 3's tokenizer has one more than the heads of its smaller models."""
    teacher, pair = demo
    special = set(pair.student.special_ids.tolist()) - set(pair.student_eos)
    last = pair.student.vocab_size - 1
    least = max(set(range(last + 1)) - special) + 1
    rows = ct.Scorer(teacher, pair, width=least).distributions(["a b"])[0].logprobs
    assert rows.shape[1] == least
    assert torch.equal(rows, ct.Scorer(teacher, pair).distributions(["a b"])[0].logprobs[:, :least])
    with pytest.raises(
        ValueError, match=f"width {least - 1} has no column for the student's token {least - 1} "
    ):
        ct.Scorer(teacher, pair, width=least - 1)
