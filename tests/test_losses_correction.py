"""Targets with a correction: losses and gradients are those of the corrected rows, written out in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import oracle.losses as slow  # noqa: E402
from crosstok.correction import NOWHERE, Correction  # noqa: E402
from crosstok.losses import IGNORED, DenseBatch, collate, forward_kl, partial_kl  # noqa: E402
from crosstok.losses import rows as rows_module  # noqa: E402
from crosstok.losses.rows import MovedRows  # noqa: E402
from crosstok.results import Distributions  # noqa: E402
from general_pairs import draw_sample  # noqa: E402
from method_checks import of_sample, request_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def targets_of(rows: int, width: int, moves: int, seed: int, mass: float = 1.0) -> Distributions:
    """Random rows that sum to ``mass``, and a correction that moves something in some of them."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(width, 0.5), rows) * mass
    row, taken, given_to = rng.integers(0, rows, moves), *rng.integers(NOWHERE, width, (2, moves))
    correction = Correction.of(row, taken, given_to, rng.random(moves), np.zeros(rows), np.zeros(rows))
    ids = rng.integers(0, width, rows - 1)
    logprobs = torch.from_numpy(np.log(weights)).float()
    return Distributions(ids, logprobs, torch.rand(rows) * 0.5, None, correction)


def expected(
    target: Distributions, logits: Any, temperature: float = 1.0
) -> tuple[list[float], list[list[float]]]:
    """The loss of each row and its gradient in the row's logits, one number at a time."""
    fixed, values, slopes = target.correction, [], []
    assert fixed is not None
    for i, z in enumerate(logits.tolist()):
        scaled = [x / temperature for x in z]
        row, q = target.logprobs[i].double().tolist(), slow.softmax(scaled)
        total = sum(np.exp(row))
        value, p = slow.full(scaled, row), [*slow.normalised(row), *[0.0] * (len(z) - len(row))]
        for r, a, b, m in zip(fixed.row, fixed.taken_from, fixed.given_to, fixed.mass.tolist(), strict=True):
            for token, part in ((a, -m), (b, m)):
                if r == i and token != NOWHERE:
                    value -= part / total * np.log(q[token])
                    p[token] += part / total
        values.append(value)
        slopes.append([(sum(p) * b - a) / temperature for a, b in zip(p, q, strict=True)])
    return values, slopes


def gradient(loss: Any, logits: Any, *args: Any, **options: Any) -> tuple[float, Any]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *args, **options)
    value.backward()
    return value.item(), leaf.grad


def random_logits(*shape: int, seed: int = 0) -> Any:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    width=st.integers(1, 12),
    moves=st.integers(0, 9),
    mass=st.sampled_from([1.0, 0.7]),
    temperature=st.sampled_from([1.0, 0.5, 2.0]),
)
def test_values_and_gradients(
    seed: int, rows: int, width: int, moves: int, mass: float, temperature: float
) -> None:
    target = targets_of(rows, width, moves, seed, mass)
    logits = random_logits(rows, width + 2, seed=seed)
    value, slope = gradient(forward_kl, logits, collate([target]), temperature=temperature)
    values, slopes = expected(target, logits, temperature)
    np.testing.assert_allclose(value, np.mean(values), atol=1e-5)
    np.testing.assert_allclose(slope.numpy(), np.array(slopes) / rows, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradcheck(temperature: float) -> None:
    logits = random_logits(4, 6).requires_grad_()
    at, row, ids = torch.tensor([3, 0, 1]), torch.tensor([0, 2, 0, 0, 1]), torch.tensor([5, 0, 5, 1, 2])
    mass = torch.tensor([0.3, -0.2, 0.5, -0.8, 0.1], dtype=torch.float64)

    def moved(z: Any) -> Any:
        return MovedRows.apply(z, at, row, ids, mass, temperature)

    assert torch.autograd.gradcheck(moved, (logits,))


def test_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    target, logits = targets_of(7, 9, 30, 3), random_logits(7, 9)
    whole = gradient(forward_kl, logits, collate([target]))
    monkeypatch.setattr(rows_module, "BLOCK_ENTRIES", 20)
    parts = gradient(forward_kl, logits, collate([target]))
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-12)
    np.testing.assert_allclose(parts[1].numpy(), whole[1].numpy(), atol=1e-12)


def test_several_texts_some_corrected_and_rows_left_out() -> None:
    """Rows without logits or with a label of -100 take their corrections along; weights hold for these too."""
    targets = [targets_of(4, 8, 12, seed) for seed in (1, 2, 3)]
    plain = targets[1]
    targets[1] = Distributions(plain.student_ids, plain.logprobs, plain.undecided_mass)
    logits = random_logits(3, 6, 8)
    batch = collate(targets, starts=[-1, 2, 1], length=4)
    labels = torch.zeros(3, 6, dtype=torch.int64)
    labels[batch.text, batch.step] = batch.labels.clamp(min=0)
    labels[2, 2] = IGNORED
    value, slope = gradient(forward_kl, logits, batch, labels, undecided_weight="linear")
    total, count, wanted = 0.0, 0, np.zeros((3, 6, 8))
    for text, (target, start) in enumerate(zip(targets, (-1, 2, 1), strict=True)):
        nothing = Correction.none(np.zeros(4))
        known = replace(target, correction=target.correction or nothing)
        for i in range(4):
            step = start + i
            if 0 <= step < 4 and labels[text, step] != IGNORED:
                values, slopes = expected(known, logits[text, step].expand(4, 8))
                weight = 1 - float(target.undecided_mass[i])
                total, count = total + weight * values[i], count + 1
                wanted[text, step] = weight * np.array(slopes[i])
    np.testing.assert_allclose(value, total / count, atol=1e-5)
    np.testing.assert_allclose(slope.numpy(), wanted / count, atol=1e-5)


def test_partial_kl_takes_it_too() -> None:
    target, logits = targets_of(5, 6, 9, 4), random_logits(5, 6)
    batch = collate([target], eos=2)
    both = gradient(partial_kl, logits, batch)[1]
    alone = gradient(forward_kl, logits, batch)[1]
    plain = collate([Distributions(target.student_ids, target.logprobs, target.undecided_mass)], eos=2)
    without = gradient(partial_kl, logits, plain)[1] - gradient(forward_kl, logits, plain)[1]
    np.testing.assert_allclose((both - alone).numpy(), without.numpy(), atol=1e-6)


def test_tokens_that_the_student_gives_no_probability() -> None:
    """As in a divergence: infinite where mass is given to one, nothing where it is taken from one."""
    logits = torch.zeros(2, 3, dtype=torch.float64)
    logits[:, 2] = -torch.inf
    rows = torch.tensor([[0.5, 0.5, 0.0]] * 2).log()
    moves = np.array([0, 1]), np.array([0, 2]), np.array([2, 0]), np.array([0.25, 0.25])
    target = Distributions(
        np.array([0]), rows, torch.zeros(2), None, Correction.of(*moves, *np.zeros((2, 2)))
    )
    batch = collate([target])
    assert forward_kl(logits, batch).item() == np.inf
    labels = torch.tensor([IGNORED, 0])
    np.testing.assert_allclose(forward_kl(logits, batch, labels).item(), 0.25 * np.log(2), atol=1e-6)


def test_cut_rows_have_no_place_for_it() -> None:
    with pytest.raises(ValueError, match="leave out top_k"):
        collate([targets_of(3, 5, 4, 0)], top_k=2)


def test_batches_take_it_along() -> None:
    batch = collate([targets_of(3, 5, 4, 0)]).to("meta")
    assert isinstance(batch, DenseBatch)
    assert batch.moves is not None and batch.moves.is_meta
    assert batch.moved is not None and batch.moved.is_meta


def test_gradients_are_unbiased() -> None:
    """The mean over seeds is the gradient that whole rows, of the same scale, would have."""
    sample = draw_sample("qwen", "llama3", 100)
    seeds, many = 300, 5000
    logits = random_logits(len(sample.ids) + 1, sample.pair.student.vocab_size + 3)

    def slope(draws: int, seed: int) -> Any:
        method = of_sample("unbiased", sample, "renormalize", row_share=0.0, draws=draws, seed=seed)
        return gradient(forward_kl, logits, collate(method.distributions([request_of(sample)])))[1].numpy()

    exact, known = np.zeros(logits.shape), sample.truths["renormalize"]
    (rows,) = of_sample("unbiased", sample, "renormalize", row_share=0.0).distributions([request_of(sample)])
    assert rows.correction is not None
    for i, scale in enumerate(np.exp(rows.correction.scale.numpy())):
        for token, (low, high) in known.next_tokens(sample.ids[:i]).items():
            exact[i, token] = (low + high) / 2 / scale
    wanted = (exact.sum(1, keepdims=True) * torch.softmax(logits, 1).numpy() - exact) / len(exact)
    each = np.array([slope(1, seed) for seed in range(seeds)])
    # A token that comes out less often than once in `seeds` may not have been seen.
    limit = 4.5 * each.std(axis=0) / np.sqrt(seeds) + 8 / seeds / len(exact)
    assert np.all(np.abs(each.mean(axis=0) - wanted) <= limit)
    assert np.all(np.abs(slope(many, 0) - wanted) <= 0.02)
    biased = gradient(forward_kl, logits, rows.logprobs)[1].numpy()
    assert np.abs(biased - wanted).max() > 0.1
