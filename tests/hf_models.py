"""Tiny random models of transformers, token trees for them, and plain forwards to compare with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from crosstok.teacher import TokenTree  # noqa: E402

VOCAB = 101

SIZE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    # Large weights: rows that depend on every ancestor, so that a wrong mask shows.
    "initializer_range": 0.2,
}

LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]

WINDOWED: dict[str, Any] = {"sliding_window": 5, "layer_types": LAYERS}

# name: (family of classes, config values, attention implementations that load)
MODELS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("Llama", {}, ("sdpa", "eager")),
    "qwen2": ("Qwen2", {}, ("sdpa", "eager")),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, **WINDOWED}, ("sdpa", "eager")),
    "qwen3": ("Qwen3", {}, ("sdpa", "eager")),
    "gemma2": ("Gemma2", {**WINDOWED, "query_pre_attn_scalar": 8}, ("eager",)),
    "gemma3": ("Gemma3", {**WINDOWED, "query_pre_attn_scalar": 8}, ("sdpa", "eager")),
    "mistral": ("Mistral", {"sliding_window": 5}, ("sdpa", "eager")),
    "mistral-full": ("Mistral", {"sliding_window": None}, ("sdpa",)),
    "gpt2": ("GPT2", {}, ("sdpa", "eager")),
    "gpt_neox": ("GPTNeoX", {}, ("sdpa",)),
    "opt": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}, ("sdpa",)),
}

CASES = [(name, attention) for name, (_, _, kinds) in MODELS.items() for attention in kinds]

CLASSES = {"Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"), "GPT2": ("GPT2Config", "GPT2LMHeadModel")}


def tree_of(prompt: tuple[int, ...], token: list[int], parent: list[int]) -> TokenTree:
    """A tree from lists; the root's token and parent are -1."""
    return TokenTree(prompt, np.array(token, dtype=np.int64), np.array(parent, dtype=np.int64))


def make(name: str, attention: str = "sdpa", **values: Any) -> Any:
    """A tiny random model in float32."""
    family, extra, _ = MODELS[name]
    config_class, model_class = CLASSES.get(family, (f"{family}Config", f"{family}ForCausalLM"))
    size = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **SIZE, **extra, **values}
    if family == "GPT2":  # its config knows other names and no grouped heads
        keep = ("vocab_size", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id")
        size = {k: size[k] for k in keep} | {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**size)
    model = getattr(transformers, model_class)._from_config(config, attn_implementation=attention)
    return model.eval()


def random_tree(rng: np.random.Generator, prompt: tuple[int, ...], nodes: int, reach: int = 3) -> TokenTree:
    """A trunk with side branches: each node hangs below one of the last `reach`, so depths grow."""
    parent = [-1] + [max(0, i - int(rng.integers(1, reach + 1))) for i in range(1, nodes)]
    token = [-1, *rng.integers(0, VOCAB, nodes - 1).tolist()]
    return TokenTree(prompt, np.array(token), np.array(parent))


def forest(seed: int, nodes: int = 20) -> list[TokenTree]:
    """Trees whose prompts are equal, share a beginning, contain one another, or share nothing."""
    rng = np.random.default_rng(seed)
    a = tuple(rng.integers(0, VOCAB, 6).tolist())
    prompts = [a, (*a[:3], 7, 8, 9, 10), a, a[:3], (5,), (*a, 11, 12), a[:3]]
    return [random_tree(rng, prompt, nodes + i) for i, prompt in enumerate(prompts)]


def one(prompt: tuple[int, ...], tokens: list[int]) -> list[TokenTree]:
    """One tree without branches."""
    n = len(tokens) + 1
    return [tree_of(prompt, [-1, *tokens], list(range(-1, n - 1)))]


def collect(blocks: Iterable[Any], trees: list[TokenTree], vocab: int = VOCAB) -> list[Any]:
    """float64 log-probabilities [nodes, vocab] per tree; each node must come exactly once."""
    rows = [torch.full((len(t), vocab), float("nan"), dtype=torch.float64) for t in trees]
    seen = [np.zeros(len(t), dtype=int) for t in trees]
    for block in blocks:
        assert block.tree.dtype == block.node.dtype == np.int64
        assert block.logits.shape == (block.tree.size, vocab)
        values = torch.log_softmax(block.logits.double(), -1)
        for i, (t, n) in enumerate(zip(block.tree, block.node, strict=True)):
            rows[t][n] = values[i]
            seen[t][n] += 1
    assert all((s == 1).all() for s in seen)
    return rows


def reference(model: Any, trees: list[TokenTree]) -> list[Any]:
    """As `collect`, from plain forwards over whole paths, those of one length side by side.

    Nothing is padded, cached or masked, and nothing of crosstok is in it but TokenTree.path.
    """
    paths = {(t, n): tree.path(n) for t, tree in enumerate(trees) for n in range(len(tree))}
    rows: dict[tuple[int, int], Any] = {}
    for length in set(map(len, paths.values())):
        nodes = [node for node, path in paths.items() if len(path) == length]
        with torch.no_grad():
            logits = model(torch.tensor([paths[node] for node in nodes]), use_cache=False).logits
        rows |= dict(zip(nodes, torch.log_softmax(logits[:, -1].double(), -1), strict=True))
    return [torch.stack([rows[t, n] for n in range(len(tree))]) for t, tree in enumerate(trees)]


def gap(a: list[Any], b: list[Any]) -> float:
    """The largest difference between two results of `collect` or `reference`."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
