"""HFTeacher: packed rows against one plain forward per path, in all architectures, dtypes and block sizes."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.teacher import HFTeacher, probe
from hf_models import CASES, MODELS, VOCAB, collect, forest, gap, make, random_tree, reference, torch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_packed_rows_equal_one_forward_per_path(name: str, attention: str) -> None:
    model = make(name, attention)
    teacher = HFTeacher(model)
    assert teacher.packed, teacher.packed_reason
    trees = forest(1)
    found = gap(collect(teacher.stream(trees), trees), reference(model, trees))
    assert found <= 2e-5


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral", "gpt2"])
def test_small_batches_and_blocks_change_nothing(name: str) -> None:
    attention = MODELS[name][2][0]
    model = make(name, attention)
    trees = forest(2)
    want = reference(model, trees)
    for batch_tokens in (1, 40, 70):  # one text a batch, pairs, some with a prompt kept from the batch before
        teacher = HFTeacher(model, batch_tokens=batch_tokens)
        for columns, rows in ((512, 10**6), (7, 10**6), (512, 3), (1, 1)):
            teacher._runner.block_columns = columns
            teacher._runner.forward_bytes = rows * 4 * VOCAB
            assert gap(collect(teacher.stream(trees), trees), want) <= 2e-5


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral"])
def test_long_tree_spans_cached_blocks(name: str) -> None:
    model = make(name, MODELS[name][2][0], max_position_embeddings=4096)
    rng = np.random.default_rng(3)
    tree = random_tree(rng, tuple(rng.integers(0, VOCAB, 30).tolist()), 1600, reach=4)
    teacher = HFTeacher(model, batch_tokens=100)
    found = collect(teacher.stream([tree]), [tree])
    nodes = [0, 1, 480, 483, 511, 512, 700, 1100, 1599]
    with torch.no_grad():
        for node in nodes:
            logits = model(torch.tensor([tree.path(node)]), use_cache=False).logits[0, -1]
            want = torch.log_softmax(logits.double(), -1)
            assert float((found[0][node] - want).abs().max()) <= 5e-5


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt2", "mistral"])
def test_bfloat16_is_no_worse_packed(name: str) -> None:
    exact = make(name, MODELS[name][2][0], initializer_range=0.1)
    half = copy.deepcopy(exact).to(torch.bfloat16)
    exact = copy.deepcopy(half).float()  # the same rounded weights
    teacher = HFTeacher(half)
    assert teacher.packed, teacher.packed_reason
    trees = forest(8)
    want = reference(exact, trees)
    packed, plain = gap(collect(teacher.stream(trees), trees), want), gap(reference(half, trees), want)
    assert packed <= 2 * plain + 0.01
    assert teacher.rows([(1, 2)]).dtype == torch.float32


def test_large_half_precision_models_get_the_loose_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "COPY_PARAMETERS", 0)
    assert HFTeacher(make("llama").to(torch.bfloat16)).packed


def test_cast_and_float64() -> None:
    teacher = HFTeacher(make("llama"), dtype=torch.float64, device="cpu")
    trees = forest(9)[:3]
    assert teacher.rows([(1, 2)]).dtype == torch.float64
    assert gap(collect(teacher.stream(trees), trees), reference(teacher.model, trees)) <= 1e-12
