"""Statuses of whole rows, rows that say nothing, and raw sums that cannot be."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import crosstok as ct
import numpy as np
import pytest
from general_pairs import MODES, samples
from oracle import toys
from oracle.brute import Ids
from test_toys_general_by_hand import _file, _pair

torch = pytest.importorskip("torch")

from crosstok.distributions.closing import ClosingCollector  # noqa: E402
from crosstok.distributions.exact import Collector  # noqa: E402
from crosstok.errors import TargetsError  # noqa: E402
from crosstok.losses import collate, forward_kl, partial_kl  # noqa: E402
from crosstok.results import Distributions, Status  # noqa: E402

EXACT, CERTIFIED, ESTIMATED, UNSUPPORTED = 0, 1, 2, 4
OPTIONS: list[dict[str, Any]] = [{}, {"tolerance": 0.2, "max_rows": 3}, {"tolerance": 0.0}]


def teacher(row: Callable[[int | None], list[float]]) -> ct.TableTeacher:
    """Rows that depend on the last id, None before the first."""

    def logs(ids: Ids) -> Any:
        with np.errstate(divide="ignore"):
            return np.log(row(ids[-1] if ids else None))

    return ct.TableTeacher(logs)


@pytest.mark.parametrize("kind", ["plain", "qwen", "sentencepiece", "nfc"])
def test_statuses_are_what_the_rows_say(kind: str) -> None:
    for sample in samples(kind)[:8]:
        for mode in MODES:
            for options in OPTIONS:
                scorer = sample.scorer(mode, **options)
                (rows,) = scorer.distributions([sample.text], sample.prompts)
                (cut,) = scorer.distributions([sample.text], sample.prompts, top_k=3)
                undecided, empty = rows.undecided_mass.numpy(), np.isneginf(rows.logprobs.amax(1).numpy())
                assert rows.status.dtype == np.uint8
                assert rows.status.shape == (len(sample.ids) + 1,)
                fine = rows.status != UNSUPPORTED
                assert not fine[empty].any()
                limit = max(options.get("tolerance", -1.0), 4e-12 if options else -1.0)
                expected = np.where(undecided <= limit, CERTIFIED, ESTIMATED)
                expected[undecided == 0] = EXACT
                assert rows.status[fine].tolist() == expected[fine].tolist()
                cut.validate()
                assert (cut.status[~fine] == UNSUPPORTED).all()
                assert ((np.diff(cut.ptr) == 0) & np.isneginf(cut.rest_logp)).tolist() == empty.tolist()


def of_rows(rows: Distributions) -> list[int]:
    assert rows.status is not None
    return [int(status) for status in rows.status]


def a_subset_pair() -> Any:
    """After "a" the teacher has no "b": that would be "ab"."""
    one, other = _file("a b ab", "a+b"), _file("a b", "")
    pair = ct.Pair(one, other, teacher_eos=3, student_eos=2)
    assert pair.regime == "subset"
    return pair


@pytest.mark.parametrize(
    ("mode", "a", "kept", "status"),
    [
        ("renormalize", 0.3, 1e-5, UNSUPPORTED),  # a third of "b" and what else follows "a" comes through [a]
        ("renormalize", 1e-5, 1e-5, EXACT),
        ("renormalize", 0.3, 1e-3, EXACT),
        ("renormalize", 0.3, 0.0, EXACT),  # nothing comes through [a]
        ("mask", 0.3, 1e-5, EXACT),  # next to nothing does
        ("mask", 1.0, 1e-5, UNSUPPORTED),
    ],
)
def test_rows_through_next_to_no_canonical_mass(mode: str, a: float, kept: float, status: int) -> None:
    def row(last: int | None) -> list[float]:
        if last == 0:
            return [kept / 2, 1 - kept, 0.0, kept / 2]
        return [a, 0.0, (1 - a) / 2, (1 - a) / 2]

    scorer = ct.Scorer(teacher(row), a_subset_pair(), mode)
    (rows,) = scorer.distributions(["a"], [()])
    assert of_rows(rows) == [EXACT, status]
    (cut,) = scorer.distributions(["a"], [()], ended=False, top_k=1)
    assert cut.status.tolist() == [EXACT, status]
    unbiased = ct.Scorer(teacher(row), a_subset_pair(), mode, method="unbiased")
    assert of_rows(unbiased.distributions(["a"], [()])[0]) == [EXACT, status]


def test_a_row_that_nothing_follows() -> None:
    """In the regime "subset": no text goes on after "b"."""
    scorer = ct.Scorer(teacher(lambda last: [0.0, 1.0, 0.0, 0.0]), a_subset_pair())
    (rows,) = scorer.distributions(["ba"], [()])
    assert of_rows(rows) == [EXACT, EXACT, UNSUPPORTED]
    assert rows.logprobs[2].tolist() == [-np.inf] * 3


@pytest.mark.parametrize(("kept", "status"), [(1e-5, UNSUPPORTED), (1e-3, EXACT)])
def test_further_rows_may_have_next_to_no_canonical_mass(kept: float, status: int) -> None:
    """Before the first token, where "ab" may come of the teacher's "a", after which it has no other "a"."""

    def row(last: int | None) -> list[float]:
        if last == 0:
            return [1 - kept, kept / 2, 0.0, kept / 2]
        return [0.5, 0.3, 0.0, 0.2]

    pair = _pair(_file("a b aa", "a+a"), _file("a b ab", "a+b"))
    for tolerance, expected in ((None, ESTIMATED), (0.0, status)):
        scorer = ct.Scorer(teacher(row), pair, tolerance=tolerance)
        (rows,) = scorer.distributions(["b"], [()])
        assert of_rows(rows)[0] == expected, tolerance
        (cut,) = scorer.distributions(["b"], [()], top_k=2)
        # The label's, EXACT where its bounds agree, and the row's where that is not to be trusted.
        assert cut.status[0] == (UNSUPPORTED if expected == UNSUPPORTED else EXACT)


def an_open_row(**options: Any) -> Any:
    """A scorer of "€": the teacher goes on with another character's bytes, and its third one decides which that is."""

    def row(last: int | None) -> list[float]:
        found = [0.0] * 8
        if last == 1:
            found[2], found[4] = 1e-5, 1 - 1e-5
        elif last == 4:
            found[5] = found[6] = 0.5
        else:
            found[{2: 3, None: 1}.get(last, 7)] = 1.0
        return found

    metaspace = toys.metaspace("first", False)
    student = _file("<unk> a € ⁴ ⁵ ▁", "", pre_tokenizer=metaspace, unk_token="<unk>")
    return ct.Scorer(teacher(row), _pair(_file("a â Ĥ ¬ ģ ´ µ", ""), student), **options)


def test_a_row_of_which_all_is_open_is_empty_whether_dense_or_sparse() -> None:
    (score,) = an_open_row().score(["€"], [()])
    assert score.logprobs[0] == pytest.approx(np.log(1e-5), rel=1e-3)
    (rows,) = an_open_row().distributions(["€"], [()])
    (cut,) = an_open_row().distributions(["€"], [()], top_k=2)
    assert rows.logprobs[0].tolist() == [-np.inf] * 7
    assert rows.undecided_mass.tolist() == cut.undecided_mass.tolist() == [1.0, 0.0]
    assert rows.status.tolist() == cut.status.tolist() == [UNSUPPORTED, EXACT]
    assert cut.ptr.tolist() == [0, 0, 1]
    assert cut.rest_logp.tolist() == [-np.inf, -np.inf]
    assert cut.label_logp[0] == pytest.approx(score.logprobs[0])
    (known,) = an_open_row(tolerance=0.0).distributions(["€"], [()], top_k=2)
    assert known.ids.tolist() == [3, 4, 2, 6]
    assert known.status.tolist() == [EXACT, EXACT]


@pytest.mark.parametrize("loss", [forward_kl, partial_kl])
@pytest.mark.parametrize("undecided_weight", ["none", "linear"])
def test_losses_skip_an_empty_row(loss: Any, undecided_weight: str) -> None:
    (rows,) = an_open_row().distributions(["€"], [()])
    (cut,) = an_open_row().distributions(["€"], [()], top_k=2)
    options: dict[str, Any] = {"undecided_weight": undecided_weight}
    if loss is partial_kl:
        options["cross_entropy_weight"] = 0.0
    start = torch.randn(2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for batch in (collate([rows], eos=6), collate([cut]), collate([rows], eos=6, top_k=2)):
        logits = start.clone().requires_grad_()
        value = loss(logits, batch, **options)
        value.backward()
        assert logits.grad is not None
        assert logits.grad[0].tolist() == [0.0] * 7
        found.append(float(value.detach()))
    assert found == pytest.approx([float(-start[1].log_softmax(0)[6])] * 3, rel=1e-6)
    if loss is partial_kl:  # cross-entropy is no concern of the teacher's
        whole = [float(loss(start, collate([each], eos=eos))) for each, eos in ((rows, 6), (cut, None))]
        assert whole[0] == pytest.approx(whole[1], rel=1e-6)


@pytest.mark.parametrize("method", ["strict_1to1", "bpm"])
def test_methods_without_a_certificate_estimate(method: str) -> None:
    seen = set()
    for sample in samples("plain")[:8]:
        (rows,) = sample.scorer("renormalize", method=method).distributions([sample.text], sample.prompts)
        empty = np.isneginf(rows.logprobs.amax(1).numpy())
        assert set(rows.status.tolist()) <= {ESTIMATED, UNSUPPORTED}
        assert (rows.status[empty] == UNSUPPORTED).all()
        seen |= set(rows.status.tolist())
    assert ESTIMATED in seen


def test_unbiased_has_those_of_its_closing_estimate() -> None:
    for sample in samples("plain")[:8]:
        given = [sample.text], sample.prompts
        (auto,) = sample.scorer("renormalize").distributions(*given)
        (rows,) = sample.scorer("renormalize", method="unbiased").distributions(*given)
        assert rows.status.tolist() == auto.status.tolist()


def test_they_travel_and_may_be_left_out() -> None:
    (rows,) = an_open_row().distributions(["€"], [()])
    copy = pickle.loads(pickle.dumps(rows))
    assert copy.status.dtype == np.uint8
    assert copy.status.tolist() == rows.status.tolist()
    part = dataclasses.replace(
        rows,
        student_ids=rows.student_ids[:0],
        logprobs=rows.logprobs[:1],
        undecided_mass=rows.undecided_mass[:1],
        status=rows.status[:1],
    )
    assert [Status(x) for x in part.status] == [Status.UNSUPPORTED]
    assert Distributions(rows.student_ids, rows.logprobs, rows.undecided_mass).status is None


@pytest.mark.parametrize("top_k", [None, 2])
def test_raw_sums_are_checked_before_rows_are_normalised(
    monkeypatch: pytest.MonkeyPatch, top_k: int | None
) -> None:
    """Everything counted twice: rows that are divided by what they sum to would not show it."""
    share = ClosingCollector.share
    monkeypatch.setattr(ClosingCollector, "share", lambda *arguments: 2 * share(*arguments))
    with pytest.raises(TargetsError, match=r"row 1: its raw probabilities sum to 2 .* mistake in crosstok"):
        an_open_row().distributions(["€"], [()], top_k=top_k)
    with pytest.raises(TargetsError, match="row 1: its raw probabilities sum to 2"):
        an_open_row(method="unbiased").distributions(["€"], [()])


@pytest.mark.parametrize("method", ["auto", "unbiased"])
def test_raw_sums_are_checked_where_all_is_exact(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    finish = Collector.finish
    monkeypatch.setattr(Collector, "finish", lambda *arguments: finish(*arguments) + 0.1)
    scorer = ct.Scorer(teacher(lambda last: [0.25] * 4), a_subset_pair(), method=method)
    with pytest.raises(TargetsError, match=r"row 0: its raw probabilities sum to 1\.1"):
        scorer.distributions(["a"], [()])


def test_raw_sums_are_checked_where_all_is_exact_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = Collector.entries

    def more(*arguments: Any) -> Any:
        found = entries(*arguments)
        return found._replace(log_mass=found.log_mass + 0.1)

    monkeypatch.setattr(Collector, "entries", more)
    scorer = ct.Scorer(teacher(lambda last: [0.25] * 4), a_subset_pair())
    with pytest.raises(TargetsError, match=r"row 0: its raw probabilities sum to 1\.1"):
        scorer.distributions(["a"], [()], top_k=2)
