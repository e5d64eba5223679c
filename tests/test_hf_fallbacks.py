"""HFTeacher: models that cannot read trees are found out, and read path by path."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

pytest.importorskip("torch")

from crosstok.teacher import HFTeacher, probe, runner
from crosstok.teacher.packed import ancestor_mask
from hf_models import VOCAB, collect, forest, gap, make, reference, torch, transformers
from longrope import check_switch, phi3_with_switch

pytestmark = pytest.mark.usefixtures("one_thread")


def test_mamba_goes_path_by_path() -> None:
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, state_size=4, initializer_range=0.3
    )
    model = transformers.MambaForCausalLM(config).eval()
    with pytest.warns(RuntimeWarning, match="path by path"):
        teacher = HFTeacher(model)
    assert not teacher.packed
    trees = forest(1, nodes=8)
    assert gap(collect(teacher.stream(trees), trees), reference(model, trees)) <= 2e-5


def test_bloom_goes_path_by_path() -> None:
    torch.manual_seed(0)
    config = transformers.BloomConfig(
        vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3
    )
    model = transformers.BloomForCausalLM(config).eval()
    with pytest.warns(RuntimeWarning, match="path by path"):
        teacher = HFTeacher(model)
    trees = forest(1, nodes=8)
    assert gap(collect(teacher.stream(trees), trees), reference(model, trees)) <= 2e-5


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral", "qwen2-window"])
def test_probe_finds_wrong_masks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain causal mask for all, and the ancestor mask without its window, are silently wrong."""

    def causal(end: Any, depth: Any, lo: int, hi: int, dtype: Any, window: int | None = None) -> Any:
        return ancestor_mask(torch.full_like(end, hi), depth, lo, hi, dtype, window)

    def windowless(end: Any, depth: Any, lo: int, hi: int, dtype: Any, window: int | None = None) -> Any:
        return ancestor_mask(end, depth, lo, hi, dtype)

    for wrong in (causal,) if name == "llama" else (causal, windowless):
        for dtype in (torch.float32, torch.bfloat16):
            monkeypatch.setattr(runner, "ancestor_mask", wrong)
            with pytest.warns(RuntimeWarning, match="differ"):
                teacher = HFTeacher(make(name).to(dtype))
            assert teacher.packed_reason is not None
            assert "log-probability" in teacher.packed_reason


def test_fallback_rows_are_exact_and_bounded(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "mismatch", lambda *_: "told so")
    with pytest.warns(RuntimeWarning, match="told so"):
        teacher = HFTeacher(llama)
    trees = forest(11)
    teacher._runner.forward_bytes = 5 * 4 * VOCAB
    blocks = list(teacher.stream(trees))
    assert max(b.tree.size for b in blocks) <= 5
    assert gap(collect(iter(blocks), trees), reference(llama, trees)) <= 2e-5


def test_longrope_beyond_its_switch_goes_path_by_path() -> None:
    model = phi3_with_switch(24)
    check_switch(model, 24)
    teacher = HFTeacher(model)
    assert teacher.packed, teacher.packed_reason
    trees = forest(1, nodes=8) + forest(2, nodes=40)  # depths on both sides of 24
    depths = [len(t.prompt) + int(t.depths().max()) for t in trees]
    assert min(depths) <= 24 < max(depths)
    assert gap(collect(teacher.stream(trees), trees), reference(model, trees)) <= 2e-5


def test_keys_and_values_go_by_the_name_that_the_model_has(llama: Any) -> None:
    """transformers renamed them in 5.24; models with code of their own may have the old name."""

    class Old:
        def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...

    class New:
        def forward(self, input_ids: Any, cache: Any = None) -> None: ...

    assert runner.cache_argument(Old()) == "past_key_values"
    assert runner.cache_argument(New()) == "cache"
    assert runner.cache_argument(llama) in inspect.signature(llama.forward).parameters


class Wrapped(torch.nn.Module):  # type: ignore[misc]
    """A model around another, as PEFT's are: its forward names few arguments, and hands on the others."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.given = model, model.config, set[str]()

    def get_base_model(self) -> Any:
        return self.model

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        self.given |= set(kwargs)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def test_wrapped_models_take_what_the_model_inside_does(llama: Any) -> None:
    """Its own name for keys and values (no warning), and logits of the wanted columns only."""
    model = Wrapped(llama)
    teacher = HFTeacher(model.eval())
    assert teacher.packed, teacher.packed_reason
    trees = forest(11)
    assert gap(collect(teacher.stream(trees), trees), reference(llama, trees)) <= 2e-5
    assert {runner.cache_argument(llama), "logits_to_keep"} <= model.given
