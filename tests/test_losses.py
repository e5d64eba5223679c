"""Losses against sums written out (oracle/losses.py), their gradients, and every convention they follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import oracle.losses as slow  # noqa: E402
from crosstok.losses import IGNORED, SparseBatch, collate, forward_kl, partial_kl  # noqa: E402
from crosstok.losses import rows as rows_module  # noqa: E402
from crosstok.results import Distributions  # noqa: E402
from crosstok.targets import NO_LABEL, Labels, SparseTargets  # noqa: E402

INF = math.inf
pytestmark = pytest.mark.usefixtures("one_thread")


def random(rows: int, width: int, seed: int, spread: float = 2.0) -> Any:
    """float64 [rows, width]."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, width, generator=generator, dtype=torch.float64)


def teacher_rows(rows: int, width: int, seed: int, dead: float = 0.0, mass: float = 1.0) -> Any:
    """float64 [rows, width]: log-probabilities, some −inf, that sum to ``mass``."""
    logits = random(rows, width, seed, 3.0)
    generator = torch.Generator().manual_seed(seed + 1)
    logits[:, 1:][torch.rand(rows, width - 1, generator=generator) < dead] = -INF
    return logits.log_softmax(1) + math.log(mass)


def dense_of(logprobs: Any, ids: list[int], undecided: list[float] | None = None) -> Distributions:
    """The distributions of a text with one token less than rows."""
    mass = torch.tensor([0.0] * len(logprobs) if undecided is None else undecided, dtype=torch.float32)
    return Distributions(np.array(ids, dtype=np.int64), logprobs, mass)


def sparse_of(logprobs: Any, k: int, ids: list[int], undecided: list[float] | None = None) -> SparseTargets:
    """The same cut to k entries; ids are the rows' labels."""
    logp = np.array([float(row[max(id, 0)]) for row, id in zip(logprobs, ids, strict=True)])
    nothing = np.zeros((len(ids), 2))
    return SparseTargets.from_dense(
        logprobs, k, Labels(ids, logp, logp, logp, nothing[:, 0], nothing), undecided
    )


def cut(logprobs: Any, k: int, ids: list[int] | None = None) -> SparseBatch:
    """The same as a batch; without ids without labels."""
    if ids is None:
        batch = collate([dense_of(logprobs, [NO_LABEL] * (len(logprobs) - 1))], top_k=k)
    else:
        batch = collate([sparse_of(logprobs, k, ids)])
    assert isinstance(batch, SparseBatch)
    return batch


def gradient(loss: Callable[..., Any], logits: Any, *given: Any, **options: Any) -> tuple[float, Any]:
    """A loss, called with the logits and whatever else is given, and its gradient in the logits."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *given, **options)
    assert value.shape == ()
    value.backward()
    return value.item(), leaf.grad


SHAPES = {
    "seed": st.integers(0, 10**6),
    "rows": st.integers(1, 4),
    "width": st.integers(1, 25),
    "padding": st.integers(0, 5),
    "dead": st.sampled_from([0.0, 0.5, 0.9]),
    "mass": st.sampled_from([1.0, 0.6, 1e-6]),
    "temperature": st.sampled_from([1.0, 0.5, 3.0]),
}


@given(**SHAPES)
@settings(max_examples=60)
def test_whole_rows_against_the_oracle(
    seed: int, rows: int, width: int, padding: int, dead: float, mass: float, temperature: float
) -> None:
    logits, teacher = random(rows, width + padding, seed), teacher_rows(rows, width, seed + 7, dead, mass)
    each = [slow.full(z, p, temperature) for z, p in zip(logits.tolist(), teacher.tolist(), strict=True)]
    loss = forward_kl(logits, teacher, temperature=temperature)
    assert float(loss) == pytest.approx(math.fsum(each) / rows, abs=1e-12)
    single = forward_kl(logits.float(), teacher, temperature=temperature)
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(float(loss), rel=1e-5, abs=2e-6)
    _, grad = gradient(forward_kl, logits, teacher)
    expected = [slow.full_gradient(z, p) for z, p in zip(logits.tolist(), teacher.tolist(), strict=True)]
    assert torch.allclose(grad * rows, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@given(k=st.integers(1, 30), **SHAPES)
@settings(max_examples=60)
def test_cut_rows_against_the_oracle(
    k: int, seed: int, rows: int, width: int, padding: int, dead: float, mass: float, temperature: float
) -> None:
    logits, teacher = random(rows, width + padding, seed), teacher_rows(rows, width, seed + 7, dead, mass)
    ids = np.random.default_rng(seed).integers(0, width, rows).tolist()
    each = [
        slow.partial(z, p, k, label, temperature)
        for z, p, label in zip(logits.tolist(), teacher.tolist(), ids, strict=True)
    ]
    batch = cut(teacher, k, ids)
    loss = forward_kl(logits, batch, temperature=temperature)
    assert float(loss) == pytest.approx(math.fsum(each) / rows, rel=1e-5, abs=1e-6)
    mixed = partial_kl(logits, batch, temperature=temperature, cross_entropy_weight=0.3)
    hard = [slow.cross_entropy(z, label) for z, label in zip(logits.tolist(), ids, strict=True)]
    assert float(mixed) == pytest.approx((math.fsum(each) + 0.3 * math.fsum(hard)) / rows, rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 10**6), width=st.integers(2, 25), dead=st.sampled_from([0.0, 0.6]))
@settings(max_examples=40)
def test_more_entries_see_more(seed: int, width: int, dead: float) -> None:
    """Sums over parts of a partition only lose: the partial divergence rises with k, up to the whole one."""
    logits, teacher = random(3, width, seed), teacher_rows(3, width, seed + 7, dead, 0.9)
    whole, grad = gradient(forward_kl, logits, teacher)
    last = 0.0
    for k in range(1, width + 1):
        partial = float(forward_kl(logits, cut(teacher, k)))
        assert last - 1e-6 <= partial <= whole + 1e-6
        last = partial
    everything, same = gradient(forward_kl, logits, cut(teacher, width))
    assert everything == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert torch.allclose(same, grad, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_gradients(temperature: float) -> None:
    """By finite differences, with padding, tokens without probability, rows that are skipped and weights."""
    teacher = teacher_rows(5, 9, 3, dead=0.4, mass=0.8)
    teacher[2] = -INF
    ids = [0, 3, NO_LABEL, 8, 2]
    labels = torch.tensor([0, 3, 1, IGNORED, 2])
    undecided = [0.1, 0.0, 0.5, 0.9, 0.2]
    dense = collate([dense_of(teacher, ids[:4], undecided)])
    few = collate([dense_of(teacher, ids[:4], undecided)], top_k=3)
    starts = collate([dense_of(teacher, ids[:4], undecided)] * 2, [1, 2], eos=5, top_k=2)
    options: dict[str, Any] = {"temperature": temperature, "undecided_weight": "linear"}
    flat, deep = random(5, 11, 8).requires_grad_(), random(2 * 8, 11, 9).view(2, 8, 11).requires_grad_()
    for loss, logits in (
        (lambda z: forward_kl(z, dense, labels, **options), flat),
        (lambda z: forward_kl(z, few, labels, num_items_in_batch=7, **options), flat),
        (lambda z: partial_kl(z, few, labels, cross_entropy_weight=0.7, **options), flat),
        (lambda z: partial_kl(z, starts, **options), deep),
    ):
        # entries are stored as float32, which finite differences do not see
        assert torch.autograd.gradcheck(loss, (logits,), atol=1e-6)


@pytest.mark.parametrize("mass", [1.0, 0.5])
def test_the_teachers_own_rows_cost_nothing(mass: float) -> None:
    teacher = teacher_rows(6, 300, 0, dead=0.3, mass=mass)
    own = torch.where(teacher > -INF, teacher + 5, -INF)  # any constant: logits are not normalised
    for targets in (teacher, cut(teacher, 16), cut(teacher, 300)):
        loss, grad = gradient(forward_kl, own, targets)
        assert abs(loss) < 1e-7
        assert float(grad.abs().max()) < 1e-8
    loss, grad = gradient(forward_kl, own.float(), teacher.float())
    assert abs(loss) < 1e-6
    assert float(grad.abs().max()) < 1e-7


def test_labels_of_minus_100_are_ignored() -> None:
    logits, teacher = random(4, 10, 1), teacher_rows(4, 10, 2)
    labels = torch.tensor([3, IGNORED, 5, IGNORED])
    kept = [0, 2]
    for targets, few in ((teacher, teacher[kept]), (cut(teacher, 3), cut(teacher[kept], 3))):
        loss, grad = gradient(forward_kl, logits, targets, labels)
        expected, small = gradient(forward_kl, logits[kept], few)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert torch.allclose(grad[kept], small, atol=1e-7)
        assert (grad[[1, 3]] == 0).all()


def test_what_is_ignored_may_be_anything() -> None:
    """NaN at padding must not reach the loss or the gradient."""
    logits, teacher = random(3, 6, 1), teacher_rows(3, 6, 2)
    logits[1], labels = math.nan, torch.tensor([0, IGNORED, 1])
    for targets in (teacher, cut(teacher, 2)):
        loss, grad = gradient(partial_kl, logits, targets, labels)
        assert math.isfinite(loss)
        assert grad.isfinite().all()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_num_items_in_batch(as_tensor: bool) -> None:
    """Two halves, each divided by the number of the whole, are the whole."""
    logits, teacher = random(6, 8, 1), teacher_rows(6, 8, 2)
    labels = torch.tensor([1, 2, IGNORED, 3, 4, 5])
    items = torch.tensor(5) if as_tensor else 5
    whole = partial_kl(logits, teacher, labels)
    halves = [
        partial_kl(logits[at], teacher[at], labels[at], num_items_in_batch=items)
        for at in (slice(0, 2), slice(2, 6))
    ]
    assert float(sum(halves)) == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("items", [None, 0, 4, torch.tensor(0)])
def test_no_position_at_all(items: Any) -> None:
    logits, teacher = random(3, 6, 1), teacher_rows(3, 6, 2)
    logits[0, 2] = -INF
    nothing, dead = torch.full((3,), IGNORED), torch.full_like(teacher, -INF)
    for targets, labels in (
        (teacher, nothing),
        (cut(teacher, 2), nothing),
        (dead, None),
        (cut(dead, 2), None),
    ):
        loss, grad = gradient(forward_kl, logits, targets, labels, num_items_in_batch=items)
        assert loss == 0
        assert (grad == 0).all()
    loss, grad = gradient(partial_kl, logits, teacher, nothing, num_items_in_batch=items)
    assert loss == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: Any) -> None:
    logits, teacher = random(4, 5000, 1).to(dtype), teacher_rows(4, 5000, 2).float()
    for targets in (teacher, cut(teacher, 20)):
        loss, grad = gradient(forward_kl, logits, targets)
        wide, exact = gradient(forward_kl, logits.float(), targets)
        assert loss == wide
        assert grad.dtype == dtype
        assert torch.equal(grad, exact.to(dtype))


def test_padded_head() -> None:
    """Columns that the teacher does not know have probability 0 there, and are pushed down."""
    logits, teacher = random(2, 9, 1), teacher_rows(2, 6, 2)
    padded = torch.cat([teacher, torch.full((2, 3), -INF)], 1)
    for a, b in ((teacher, padded), (cut(teacher, 3), cut(padded, 3))):
        loss, grad = gradient(forward_kl, logits, a)
        assert loss == float(forward_kl(logits, b))
        assert (grad[:, 6:] > 0).all()


def test_rows_of_probability_zero_are_ignored() -> None:
    logits, teacher = random(3, 6, 1), teacher_rows(3, 6, 2)
    teacher[1] = -INF
    kept = [0, 2]
    for targets, few in ((teacher, teacher[kept]), (cut(teacher, 3), cut(teacher[kept], 3))):
        loss, grad = gradient(forward_kl, logits, targets)
        assert loss == pytest.approx(float(forward_kl(logits[kept], few)), rel=1e-6)
        assert (grad[1] == 0).all()


def test_logits_of_minus_infinity() -> None:
    """A student that rules tokens out: nothing where the teacher does too, infinite where not."""
    teacher = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log()
    agrees, differs = torch.tensor([[1.0, 1.0, -INF, -INF]]), torch.tensor([[1.0, -INF, 0.0, -INF]])
    for targets in (teacher, cut(teacher, 2), cut(teacher, 4)):
        loss, grad = gradient(forward_kl, agrees, targets)
        assert loss == pytest.approx(0, abs=1e-7)
        assert torch.allclose(grad, torch.zeros(1, 4), atol=1e-7)
        loss, grad = gradient(forward_kl, differs, targets)
        assert loss == INF
        assert grad.isfinite().all()
    uneven, only = torch.tensor([[0.6, 0.4, 0.0, 0.0]]).log(), torch.tensor([[0.0, -INF, -INF, -INF]])
    loss, grad = gradient(forward_kl, only, cut(uneven, 1))
    assert loss == INF  # the rest has probability, and no token to take it
    assert grad.isfinite().all()


def test_a_rest_far_below_rounding_still_pulls() -> None:
    """log(1 - sum of the kept) would be −inf, or whatever it is clamped to; its gradient nothing."""
    logits = torch.zeros(1, 100)
    logits[0, 0] = 60
    teacher = torch.full((1, 100), math.log(0.5 / 99))
    teacher[0, 0] = math.log(0.5)
    loss, grad = gradient(forward_kl, logits, cut(teacher, 1))
    assert loss == pytest.approx(slow.partial(logits[0].tolist(), teacher[0].tolist(), 1, None), rel=1e-6)
    assert loss > 25
    assert float(grad[0, 1:].sum()) == pytest.approx(-0.5, rel=1e-5)


def test_large_logits_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No overflow; the size of the blocks changes nothing."""
    logits, teacher = random(7, 40, 1, spread=200.0) + 3e4, teacher_rows(7, 40, 2, dead=0.5)
    for targets in (teacher, cut(teacher, 5)):
        whole = gradient(forward_kl, logits, targets)
        assert math.isfinite(whole[0])
        with monkeypatch.context() as patch:
            patch.setattr(rows_module, "BLOCK_ENTRIES", 2 * 40 + 1)
            blocks = gradient(forward_kl, logits, targets)
        assert blocks[0] == whole[0]
        assert torch.equal(blocks[1], whole[1])


def test_undecided_mass_as_weight() -> None:
    """Of the rows that count; the number of them is what it was."""
    logits, teacher = random(4, 8, 1), teacher_rows(4, 8, 2)
    each = [float(forward_kl(logits[i : i + 1], teacher[i : i + 1])) for i in range(4)]
    teacher[0] = -INF
    undecided = [0.5, 0.0, 0.25, 1.0]
    for targets in (dense_of(teacher, [1] * 3, undecided), sparse_of(teacher, 8, [1] * 4, undecided)):
        batch = collate([targets])
        loss = forward_kl(logits, batch, undecided_weight="linear")
        assert float(loss) == pytest.approx((each[1] + 0.75 * each[2]) / 3, rel=1e-5)
        assert float(forward_kl(logits, batch)) == pytest.approx(sum(each[1:]) / 3, rel=1e-5)


def test_cross_entropy() -> None:
    """That of torch, at temperature 1 whatever that of the divergence is, and where the teacher has no say."""
    logits, teacher = random(4, 8, 1), teacher_rows(4, 8, 2)
    teacher[1] = -INF
    batch = collate([dense_of(teacher, [1, 2, 3])])
    labels = torch.tensor([1, 2, 3, IGNORED])
    assert torch.equal(batch.labels, labels)

    def difference(z: Any) -> Any:
        whole = partial_kl(z, batch, temperature=2.0, cross_entropy_weight=0.5)
        return whole - forward_kl(z, batch, temperature=2.0)

    def plain(z: Any) -> Any:
        return 0.5 * torch.nn.functional.cross_entropy(z, labels, ignore_index=IGNORED)

    (loss, grad), (expected, exact) = gradient(difference, logits), gradient(plain, logits)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(grad, exact, atol=1e-12)
    only = partial_kl(logits, teacher, cross_entropy_weight=0)
    assert float(only) == pytest.approx(float(forward_kl(logits, batch)), rel=1e-12)
    with pytest.raises(ValueError, match="needs labels"):
        partial_kl(logits, teacher)


@pytest.mark.parametrize("top_k", [None, 4])
def test_a_tiny_student_learns_its_target(top_k: int | None) -> None:
    """From random to nearly the teacher's distribution after every token of a small cycle of tokens."""
    torch.manual_seed(0)
    table = teacher_rows(12, 12, 4)
    ids = np.random.default_rng(0).integers(0, 12, 40)
    targets = Distributions(ids, table[[0, *ids.tolist()]].float(), torch.zeros(41))
    batch = collate([targets], [0], top_k=top_k)
    student = torch.nn.Sequential(torch.nn.Embedding(12, 16), torch.nn.Linear(16, 14))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        loss: Any = forward_kl(student(torch.tensor([[0, *ids.tolist()]])), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.02
    assert all(b < a for a, b in zip(losses[::30], losses[30::30], strict=False))


def test_labels_are_ids_whatever_integers_they_are() -> None:
    """Bytes were taken for a mask, and other small integers for nothing."""
    logits, teacher = torch.randn(4, 4), torch.randn(4, 4).log_softmax(1)
    labels = torch.tensor([1, 3, 2, 1])
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert partial_kl(logits, teacher, labels.to(dtype)) == partial_kl(logits, teacher, labels)
    with pytest.raises(ValueError, match="labels must be token ids, not "):
        forward_kl(logits, teacher, labels > 1)


def test_labels_that_are_a_position_off_are_refused() -> None:
    """As transformers' losses take them: the token at each position, not after it."""
    targets, logits = cut(teacher_rows(4, 9, 0), 3, [5, 6, 7, 8]), random(4, 9, 1)
    right = torch.tensor([5, 6, 7, 8])
    assert partial_kl(logits, targets, right) == partial_kl(logits, targets)
    for loss in (forward_kl, partial_kl):
        with pytest.raises(
            ValueError, match="the label of row 1 of the targets is 6, not 5: a logit's label is the token"
        ):
            loss(logits, targets, torch.tensor([IGNORED, 5, 6, 7]))


def test_num_items_as_a_tensor() -> None:
    logits, teacher = torch.randn(4, 4), torch.randn(4, 4).log_softmax(1)
    whole = forward_kl(logits, teacher, num_items_in_batch=7)
    for items in (torch.tensor(7), torch.tensor([7])):
        loss = forward_kl(logits, teacher, num_items_in_batch=items)
        assert loss == whole and loss.shape == ()
    assert forward_kl(logits, teacher, num_items_in_batch=torch.tensor(7.5)) == whole * 7 / 7.5
    for wrong in (torch.tensor(-5), torch.tensor([3, 4]), torch.tensor(math.nan)):
        with pytest.raises(ValueError, match="num_items_in_batch must"):
            forward_kl(logits, teacher, num_items_in_batch=wrong)
