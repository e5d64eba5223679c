"""Rows cut to their largest entries, the checks on what is stored, and batches of them."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import oracle.losses as slow  # noqa: E402
from crosstok import targets as module  # noqa: E402
from crosstok.errors import TargetsError  # noqa: E402
from crosstok.losses import IGNORED, collate, forward_kl, partial_kl  # noqa: E402
from crosstok.results import Status  # noqa: E402
from crosstok.targets import NO_LABEL, Labels, SparseTargets, keep_top  # noqa: E402
from test_losses import dense_of, gradient, random, sparse_of, teacher_rows  # noqa: E402

INF = math.inf


def labels_of(logprobs: Any, ids: list[int]) -> Labels:
    """Labels as the rows have them, without anything undecided."""
    logp = np.array([float(row[id]) if id >= 0 else np.nan for row, id in zip(logprobs, ids, strict=True)])
    span = np.array([[i, i + 1] for i in range(len(ids))])
    return Labels(ids, logp, logp, logp, np.zeros(len(ids)), span)


def cut(logprobs: Any, k: int, ids: list[int]) -> SparseTargets:
    return SparseTargets.from_dense(logprobs, k, labels_of(logprobs, ids))


def entries(targets: SparseTargets, row: int) -> tuple[list[int], list[float]]:
    """Ids and log-probabilities of a row."""
    at = slice(targets.ptr[row], targets.ptr[row + 1])
    return targets.ids[at].tolist(), targets.logp[at].tolist()


def test_two_rows_by_hand() -> None:
    logprobs = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 0.2, 0.0, 0.2]]).log()
    targets = cut(logprobs, 2, [3, NO_LABEL])
    assert len(targets) == 2
    assert targets.ptr.tolist() == [0, 3, 5]
    assert targets.ids.tolist() == [0, 1, 3, 1, 3]  # the label is a third entry; −inf is none
    assert np.exp(targets.logp) == pytest.approx([0.5, 0.25, 0.125, 0.5, 0.5])
    assert np.exp(targets.rest_logp) == pytest.approx([0.125, 0.0])
    assert targets.rest_logp[1] == -INF
    assert targets.missing_mass == pytest.approx([0, 0.6], abs=1e-7)
    assert targets.student_ids.tolist() == [3]
    assert targets.label_ids.tolist() == [3, NO_LABEL]
    assert targets.label_logp == pytest.approx([math.log(0.125), 0])
    assert targets.entry_rows.tolist() == [0, 0, 0, 1, 1]


@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 30),
    k=st.integers(1, 35),
    dead=st.sampled_from([0.0, 0.5, 0.9]),
    mass=st.sampled_from([1.0, 0.7, 1e-9]),
    single=st.booleans(),
)
@settings(max_examples=80)
def test_against_the_oracle(seed: int, width: int, k: int, dead: float, mass: float, single: bool) -> None:
    logprobs = teacher_rows(4, width, seed, dead, mass)
    logprobs = logprobs.float() if single else logprobs
    before = logprobs.clone()
    ids = [*np.random.default_rng(seed).integers(0, width, 3).tolist(), NO_LABEL]
    targets = cut(logprobs, k, ids)
    assert torch.equal(logprobs, before)
    for row, label in enumerate(ids):
        values = logprobs[row].tolist()
        wanted = slow.kept_ids(values, k, None if label == NO_LABEL else label)
        kept, logp = entries(targets, row)
        assert sorted(kept) == sorted(wanted)
        assert logp == sorted(logp, reverse=True)
        *expected, rest = slow.with_rest(slow.normalised(values), kept)
        assert np.exp(logp) == pytest.approx(expected, rel=3e-6)
        assert math.exp(targets.rest_logp[row]) == pytest.approx(rest, rel=3e-6, abs=1e-300)
        missing = 1 - math.fsum(math.exp(value) for value in values)
        assert targets.missing_mass[row] == pytest.approx(missing, abs=1e-6)


def test_a_rest_far_below_rounding_is_still_right() -> None:
    """1 minus the sum of the others would be 0 or noise."""
    logprobs = torch.full((1, 1000), -60.0, dtype=torch.float64)
    logprobs[0, 7] = 0.0
    targets = cut(logprobs, 1, [NO_LABEL])
    assert targets.rest_logp[0] == pytest.approx(math.log(999) - 60, rel=1e-6)


def test_a_row_of_probability_zero_is_empty() -> None:
    logprobs = torch.full((2, 5), -INF)
    logprobs[0, 2] = 0.0
    targets = cut(logprobs, 3, [2, 4])
    assert targets.ptr.tolist() == [0, 1, 1]
    assert targets.rest_logp.tolist() == [-INF, -INF]
    assert targets.label_logp.tolist() == [0, -INF]
    assert targets.missing_mass.tolist() == [0, 1]
    assert len(cut(logprobs[1:], 3, [4]).ids) == 0


def test_only_an_unsupported_row_may_be_empty_before_a_label() -> None:
    """What precedes a label may be all that the teacher has something to say of, and the row undecided in full."""
    logprobs = torch.full((1, 5), -INF)
    labels = dataclasses.replace(labels_of(logprobs, [2]), logp=[-3.0], upper=[-3.0])
    with pytest.raises(TargetsError, match="row 0: label 2, log-probability -3, is not among its entries"):
        SparseTargets.from_dense(logprobs, 2, labels)
    empty = SparseTargets.from_dense(logprobs, 2, dataclasses.replace(labels, status=[Status.UNSUPPORTED]))
    assert len(empty.ids) == 0
    assert empty.rest_logp.tolist() == [-INF]


def test_k_of_the_whole_width_leaves_no_rest() -> None:
    logprobs = teacher_rows(3, 11, 0, mass=0.8)
    for k in (11, 12, 1000):
        targets = cut(logprobs, k, [1, 2, 3])
        assert np.diff(targets.ptr).tolist() == [11] * 3
        assert (targets.rest_logp == -INF).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logprobs, ids = teacher_rows(7, 13, 3, dead=0.3), np.arange(7)
    whole = keep_top(logprobs, 4, ids)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 2 * 13)
    blocks = keep_top(logprobs, 4, ids)
    for name in whole._fields:
        assert np.array_equal(getattr(whole, name), getattr(blocks, name)), name


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.7, 0.7], r"row 1: its probabilities sum to 1.4"), ([math.nan, 0.5], "row 1: .* sum to nan")],
)
def test_rows_that_are_no_distributions(values: list[float], message: str) -> None:
    logprobs = torch.tensor([[0.5, 0.5], values]).log()
    with pytest.raises(TargetsError, match=message):
        keep_top(logprobs, 1, np.array([0, 0]))


def test_arguments_that_do_not_fit() -> None:
    logprobs = teacher_rows(2, 5, 0)
    for rows, k, ids, error, message in (
        (logprobs, 0, [0, 0], ValueError, "k must be at least 1, not 0"),
        (logprobs[0], 1, [0], ValueError, r"not float64 \[5\]"),
        (logprobs.half(), 1, [0, 0], ValueError, r"not float16 \[2, 5\]"),
        (logprobs, 1, [0], ValueError, r"labels: \[1\] for 2 rows"),
        (logprobs, 1, [0, 5], TargetsError, "row 1: label 5 is not below the width, 5"),
        (logprobs, 1, [-2, 0], TargetsError, "row 0: label -2"),
    ):
        with pytest.raises(error, match=message):
            keep_top(rows, k, np.array(ids))


def test_labels_of_another_row_are_noticed() -> None:
    """The label has no probability in the row that is cut, and some in what scoring says."""
    logprobs = torch.tensor([[0.5, 0.5, 0.0]]).log()
    labels = dataclasses.replace(labels_of(logprobs, [2]), logp=[-3.0], upper=[-1.0])
    with pytest.raises(TargetsError, match="row 0: label 2, log-probability -3, is not among its entries"):
        SparseTargets.from_dense(logprobs, 1, labels)


def damaged(field: str, value: Any, at: Any = None) -> SparseTargets:
    """Sound targets of three rows, one value of which is replaced, or, where ``at`` is None, a whole field."""
    sound = cut(teacher_rows(3, 20, 5), 4, [3, 4, NO_LABEL])
    sound.validate()
    if at is not None:
        value, new = getattr(sound, field).copy(), value
        value[at] = new
    return dataclasses.replace(sound, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "at", "message"),
    [
        ("ids", np.zeros(14, dtype=np.int64), None, r"ids: expected int32 \[14\], found int64 \[14\]"),
        ("logp", np.zeros(3, dtype=np.float32), None, r"logp: expected float32 \[\d+\], found float32 \[3\]"),
        ("byte_span", np.zeros((3, 3), dtype=np.int32), None, r"byte_span: expected int32 \[3, 2\]"),
        ("status", np.zeros(4, dtype=np.uint8), None, r"status: expected uint8 \[3\]"),
        ("ptr", 99, 3, "ptr must rise from 0"),
        ("ptr", 1, 0, "ptr must rise from 0"),
        ("ptr", 13, 1, "ptr must rise from 0"),
        ("ids", -1, 0, "row 0: a negative token id"),
        ("logp", math.nan, 5, "row 1: an entry is not a finite logarithm"),
        ("logp", -INF, 5, "row 1: an entry is not a finite logarithm"),
        ("logp", -0.01, 0, "row 0: its probabilities sum to"),
        ("rest_logp", -0.01, 2, "row 2: its probabilities sum to"),
        ("rest_logp", math.nan, 2, "row 2: its probabilities sum to nan"),
        ("missing_mass", 1.5, 2, "row 2: missing_mass is no probability"),
        ("undecided_mass", -0.1, 1, "row 1: undecided_mass is no probability"),
        ("undecided_mass", math.nan, 1, "row 1: undecided_mass is no probability"),
        ("status", 5, 1, "row 1: 5 is no status"),
        ("byte_span", 9, (0, 0), "row 0: its byte_span"),
        ("byte_span", 0, (1, 0), "row 1: its byte_span"),
        ("label_ids", NO_LABEL, 0, "row 0: it has no label, and is not the last row"),
        ("label_ids", -5, 2, "row 2: it has no label"),
        ("label_lower", -0.001, 1, "row 1: bounds are not in order"),
        ("label_upper", -99, 1, "row 1: bounds are not in order"),
        ("label_upper", 0.5, 1, "row 1: bounds are not in order"),
        ("label_logp", math.nan, 1, "row 1: bounds are not in order"),
        ("label_ids", 19, 0, "row 0: label 19, log-probability .*, is not among its entries"),
    ],
)
def test_each_damage_is_named(field: str, value: Any, at: Any, message: str) -> None:
    with pytest.raises(TargetsError, match=message):
        damaged(field, value, at).validate()


def test_a_token_that_is_there_twice() -> None:
    sound = cut(teacher_rows(3, 20, 5), 4, [3, 4, NO_LABEL])
    ids = sound.ids.copy()
    first = sound.ptr[1]
    ids[first + 2] = ids[first]
    with pytest.raises(TargetsError, match=f"row 1: token {ids[first]} is there twice"):
        dataclasses.replace(sound, ids=ids).validate()


def test_no_rows() -> None:
    sound = cut(teacher_rows(1, 5, 0), 2, [NO_LABEL])
    empty = {field.name: getattr(sound, field.name)[:0] for field in dataclasses.fields(sound)}
    with pytest.raises(TargetsError, match="no rows"):
        SparseTargets(**{**empty, "ptr": sound.ptr[:1]}).validate()


def test_a_large_vocabulary() -> None:
    """Sums and bounds hold at the width of Gemma 3, also for rows that a float32 log-softmax made."""
    width = 262_144
    logprobs = teacher_rows(3, width, 1).float().log_softmax(1)
    targets = cut(logprobs, 64, [5, width - 1, NO_LABEL])
    assert np.diff(targets.ptr).tolist() == [65, 65, 64]
    assert np.exp(targets.rest_logp) == pytest.approx(
        [1 - float(np.exp(targets.logp[targets.entry_rows == row].astype(float)).sum()) for row in range(3)],
        abs=1e-6,
    )


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("length", [None, 6])
def test_rows_find_their_logits(top_k: int | None, length: int | None) -> None:
    """Three texts after prompts of different lengths, one of them empty; padded right and left; perhaps cut."""
    texts = [dense_of(teacher_rows(n + 1, 7, n), [n] * n) for n in (3, 2, 4)]
    starts, logits = [-1, 4, 2], random(3 * 8, 9, 5).view(3, 8, 9)
    logits = logits if length is None else logits[:, :length]
    pairs = [
        (logits[i, start + j], text.logprobs[j])
        for i, (start, text) in enumerate(zip(starts, texts, strict=True))
        for j in range(len(text.logprobs))
        if 0 <= start + j < logits.shape[1]
    ]
    assert len(pairs) == (11 if length is None else 9)
    flat, rows = (torch.stack(part) for part in zip(*pairs, strict=True))
    batch = collate(texts, starts, length=length, top_k=top_k)
    assert len(batch) == len(pairs)
    assert batch.texts == 3
    if top_k is None:
        expected = float(forward_kl(flat, rows))
        assert float(forward_kl(logits, batch)) == pytest.approx(expected, rel=1e-12)
    _, grad = gradient(forward_kl, logits, batch)
    assert int((grad != 0).any(2).sum()) == len(pairs)
    assert float(forward_kl(flat, batch)) == pytest.approx(float(forward_kl(logits, batch)), rel=1e-12)


def test_labels_in_the_shape_of_the_logits() -> None:
    text = dense_of(teacher_rows(3, 7, 0), [4, 5])
    logits, labels = random(2 * 6, 7, 1).view(2, 6, 7), torch.full((2, 6), IGNORED)
    labels[0, 2], labels[1, 1] = 4, 5
    batch = collate([text, text], [2, 0])
    loss, grad = gradient(partial_kl, logits, batch, labels)
    flat = torch.stack([logits[0, 2], logits[1, 1]])
    expected = partial_kl(flat, text.logprobs[[0, 1]], torch.tensor([4, 5]))
    assert loss == pytest.approx(float(expected), rel=1e-12)
    assert (grad != 0).any(2).nonzero().tolist() == [[0, 2], [1, 1]]


def test_sparse_targets_and_distributions_cut_alike() -> None:
    teacher, ids = teacher_rows(4, 20, 3, dead=0.5), [1, 2, 3]
    a = collate([sparse_of(teacher, 5, [*ids, 9]), sparse_of(teacher[:2], 5, [1, NO_LABEL])], [0, -1])
    b = collate([dense_of(teacher, ids), dense_of(teacher[:2], [1])], [0, -1], top_k=5, eos=[9, None])
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_batches_travel() -> None:
    batch = collate([dense_of(teacher_rows(3, 7, 0), [4, 5])], [0], top_k=2)
    copy = pickle.loads(pickle.dumps(batch))
    assert all(torch.equal(v, getattr(copy, n)) for n, v in vars(batch).items() if torch.is_tensor(v))
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert {value.device.type for value in vars(moved).values() if torch.is_tensor(value)} == {"meta"}


def test_collate_refuses() -> None:
    text, cut_text = dense_of(teacher_rows(3, 7, 0), [4, 5]), sparse_of(teacher_rows(1, 7, 0), 2, [NO_LABEL])
    mixed: Any = [text, cut_text]
    for arguments, options, error, message in (
        (([],), {}, ValueError, "no targets"),
        ((mixed,), {}, TypeError, "all Distributions or all SparseTargets"),
        (([cut_text],), {"eos": 1}, ValueError, "eos and top_k are for Distributions"),
        (([cut_text],), {"top_k": 1}, ValueError, "eos and top_k are for Distributions"),
        (([text], [0, 0]), {}, ValueError, "starts: 2 for 1 texts"),
        (([text, text], [0, -2]), {}, ValueError, "the start of text 1 must be a whole number"),
        (([text],), {"length": 4}, ValueError, "length needs starts"),
        (([text],), {"eos": [1, 2]}, ValueError, "eos: 2 for 1 texts"),
        (([text, dense_of(teacher_rows(1, 8, 0), [])],), {}, ValueError, r"different widths: \[7, 8\]"),
    ):
        with pytest.raises(error, match=message):
            collate(*arguments, **options)


def test_labels_that_are_given_take_the_place_of_those_that_the_targets_lack() -> None:
    logits, teacher = random(3, 8, 1), teacher_rows(3, 8, 2)
    batch = collate([dense_of(teacher, [1, 2])])
    other = torch.tensor([1, IGNORED, 5])
    assert batch.labels.tolist() == [1, 2, IGNORED]
    expected = partial_kl(logits, teacher, other)
    assert float(partial_kl(logits, batch, other)) == pytest.approx(float(expected), rel=1e-12)


def test_losses_refuse_what_does_not_fit() -> None:
    logits, teacher = random(3, 7, 0), teacher_rows(3, 7, 1)
    batch, placed = collate([dense_of(teacher, [4, 5])]), collate([dense_of(teacher, [4, 5])], [0])
    deep, labels = logits[None], torch.tensor([0, 1, 2])
    for arguments, options, message in (
        ((logits[0], teacher), {}, r"logits must be .*, not \[7\]"),
        ((labels[:, None], teacher), {}, "of torch.int64"),
        ((logits[:, :6], teacher), {}, "targets need 7 columns, logits have 6"),
        ((logits, teacher[:2]), {}, r"targets \[2, 7\] do not fit logits \[3, 7\]"),
        ((logits[:2], batch), {}, r"3 rows of targets for logits \[2, 7\]"),
        ((deep, batch), {}, "collated with starts"),
        ((deep[:, :2], placed), {}, r"targets of 1 texts, 3 logits each, for logits \[1, 2, 7\]"),
        ((deep.repeat(2, 1, 1), placed), {}, "targets of 1 texts"),
        ((logits, teacher, labels[:2]), {}, r"labels \[2\] do not fit"),
        ((logits, teacher, labels + 5), {}, "label 7 is none of the 7 columns"),
        ((logits, teacher, labels - 1), {}, "label -1 is none"),
        ((logits, teacher), {"temperature": 0.0}, "temperature must be positive and finite"),
        ((logits, batch), {"undecided_weight": "half"}, "undecided_weight must be"),
        ((logits, teacher), {"undecided_weight": "linear"}, "needs a batch made by collate"),
        ((logits, collate([dense_of(teacher, [4, 5])], eos=9)), {}, "targets need 10 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            forward_kl(*arguments, **options)


def test_undecided_mass_is_that_of_the_normalised_rows() -> None:
    """Also where float32 cannot tell what is missing from all that there is."""
    rows = torch.tensor([0.5, 0.25, 1e-9], dtype=torch.float64)[:, None].log().expand(3, 2) - math.log(2)
    half = np.log([0.5, 0.5, 0.5])
    labels = Labels(np.zeros(3, dtype=np.int64), half, half, half, np.zeros(3), np.zeros((3, 2)))
    found = SparseTargets.from_dense(rows, 1, labels, np.array([0.1, 0.0, 1e-12])).undecided_mass
    np.testing.assert_allclose(found, [0.2, 0.0, 1.0], atol=1e-6)
