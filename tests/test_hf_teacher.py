"""HFTeacher and the teacher protocol: packed rows against one plain forward per path, refusals, fallbacks."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from crosstok.errors import PlanError, TeacherError  # noqa: E402
from crosstok.teacher import HFTeacher, TableTeacher, TokenTree, probe, protocol, runner, stream_rows  # noqa: E402
from crosstok.teacher.packed import MaskRule, UnpackableError, ancestor_mask, build_pack, mask_rule  # noqa: E402

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

# name: (config class, model class, config values, attention implementations that load)
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


@pytest.fixture(scope="module")
def llama() -> Any:
    return make("llama")


@pytest.fixture(scope="module")
def teacher(llama: Any) -> HFTeacher:
    return HFTeacher(llama)


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


def collect(blocks: Iterator[Any], trees: list[TokenTree], vocab: int = VOCAB) -> list[Any]:
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
    """One plain forward for every path, nothing of crosstok in it but TokenTree.path."""
    rows = []
    with torch.no_grad():
        for tree in trees:
            paths = [torch.tensor([tree.path(n)]) for n in range(len(tree))]
            logits = [model(p, use_cache=False).logits[0, -1].double() for p in paths]
            rows.append(torch.log_softmax(torch.stack(logits), -1))
    return rows


def gap(a: list[Any], b: list[Any]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


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


def test_prompt_is_read_once_across_batches(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    prompt = tuple(rng.integers(0, VOCAB, 50).tolist())
    trees = [random_tree(rng, prompt + extra, 10) for extra in ((), (1, 2), (3,), ())]
    teacher = HFTeacher(llama, batch_tokens=1)
    want = reference(llama, trees)
    columns = []
    forward = runner.Runner._forward

    def counted(self: runner.Runner, inputs: dict[str, Any], keep: Any) -> Any:
        columns.append(inputs["input_ids"].shape[1])
        return forward(self, inputs, keep)

    monkeypatch.setattr(runner.Runner, "_forward", counted)
    assert gap(collect(teacher.stream(trees), trees), want) <= 2e-5
    # 50 prompt tokens once, 9 nodes a tree; the root's own column again, and what follows the shared part.
    assert sum(columns) == (50 + 9) + (2 + 9) + (1 + 9) + (1 + 9)


def test_blocks_are_bounded_and_roots_share_a_column(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = HFTeacher(llama)
    monkeypatch.setattr(runner, "rows_per_block", lambda vocab, nbytes=0: 4)
    trees = [tree_of((3, 4), [-1], [-1]) for _ in range(6)] + forest(5)
    blocks = list(teacher.stream(trees))
    assert max(b.tree.size for b in blocks) == 4
    assert gap(collect(iter(blocks), trees), reference(llama, trees)) <= 2e-5


def test_rows_are_normalised_paths(llama: Any, teacher: HFTeacher) -> None:
    tree = forest(6)[0]
    paths = [tree.path(n) for n in range(len(tree))]
    rows = teacher.rows(paths)
    assert rows.dtype == torch.float32
    assert rows.shape == (len(paths), VOCAB)
    assert float((rows.double() - reference(llama, [tree])[0]).abs().max()) <= 2e-6
    assert teacher.rows([]).shape == (0, VOCAB)
    assert not rows.is_inference()  # may be saved for a backward pass
    generic = collect(protocol.path_blocks(teacher, [tree], [0]), [tree])
    assert gap(generic, collect(stream_rows(teacher, [tree]), [tree])) <= 2e-5


def test_caller_modes_do_not_reach_the_teacher(llama: Any) -> None:
    model = copy.deepcopy(llama)
    teacher = HFTeacher(model)
    trees = forest(7)[:2]
    want = reference(model, trees)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = teacher.stream(trees)
        first = next(found)
        assert torch.is_grad_enabled()  # no mode leaks out of the generator
        assert first.logits.dtype == torch.float32
        assert not torch.is_inference_mode_enabled()
    assert gap(collect(teacher.stream(trees), trees), want) <= 2e-5


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


def test_from_directory(tmp_path: Any, llama: Any) -> None:
    llama.save_pretrained(tmp_path)
    teacher = HFTeacher(str(tmp_path), device="cpu")
    assert torch.equal(teacher.rows([(4, 5)]), HFTeacher(llama).rows([(4, 5)]))
    with pytest.raises(TeacherError, match="cannot load"):
        HFTeacher(str(tmp_path / "nothing"))


# ---- refusals


def one(prompt: tuple[int, ...], tokens: list[int]) -> list[TokenTree]:
    n = len(tokens) + 1
    return [tree_of(prompt, [-1, *tokens], list(range(-1, n - 1)))]


def test_refusals_come_before_any_forward(teacher: HFTeacher) -> None:
    with pytest.raises(TeacherError, match="at least one prompt token"):
        teacher.stream(one((), [1]))
    with pytest.raises(TeacherError, match="at least one prompt token"):
        teacher.rows([(1,), ()])
    with pytest.raises(TeacherError, match="513 tokens: the model has 512"):
        teacher.stream(one((1,), [1] * 512))
    with pytest.raises(TeacherError, match="513 tokens"):
        teacher.rows([(1,) * 513])
    with pytest.raises(TeacherError, match="token id 101: the model has 101"):
        teacher.stream(one((1,), [100, 101]))
    with pytest.raises(TeacherError, match="token id -1"):
        teacher.rows([(1, -1)])
    assert collect(teacher.stream(one((1,), [1] * 511)), one((1,), [1] * 511))
    assert list(teacher.stream([])) == []


def test_padded_head_and_short_head() -> None:
    model = make("llama", vocab_size=128)
    assert HFTeacher(model).vocab_size == 128
    model.model.embed_tokens = torch.nn.Embedding(90, 32)  # fewer embeddings than logits
    with pytest.raises(TeacherError, match="token id 90"):
        HFTeacher(model).stream(one((1,), [90]))


def test_other_attention_is_refused() -> None:
    model = make("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(TeacherError, match="flash_attention_2"):
        HFTeacher(model)


def test_bad_arguments() -> None:
    with pytest.raises(TeacherError, match="batch_tokens"):
        HFTeacher(make("llama"), batch_tokens=0)
    with pytest.raises(TeacherError, match="not a transformers model"):
        HFTeacher(object())


def test_nan_weights_are_refused(llama: Any) -> None:
    model = copy.deepcopy(llama)
    teacher = HFTeacher(model)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(TeacherError, match="NaN"):
        list(teacher.stream(forest(1)))
    with pytest.raises(TeacherError, match="NaN"):
        teacher.rows([(1, 2)])
    with pytest.raises(TeacherError, match="NaN"):
        HFTeacher(model)


def test_failing_plain_forward_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    model.lm_head = torch.nn.Linear(7, 3)
    with pytest.raises(TeacherError, match="plain forward failed"):
        HFTeacher(model)


# ---- fallbacks


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
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = transformers.Phi3Config(
        **{k: v for k, v in SIZE.items() if k != "head_dim"},
        pad_token_id=0,
        sliding_window=None,
        rope_parameters=rope,
    )
    model = transformers.Phi3ForCausalLM(config).eval()
    teacher = HFTeacher(model)
    assert teacher.packed, teacher.packed_reason
    trees = forest(1, nodes=8) + forest(2, nodes=40)  # depths on both sides of 24
    depths = [len(t.prompt) + int(t.depths().max()) for t in trees]
    assert min(depths) <= 24 < max(depths)
    assert gap(collect(teacher.stream(trees), trees), reference(model, trees)) <= 2e-5


# ---- masks, trees, tables


def test_mask_rules() -> None:
    config = transformers.PretrainedConfig
    assert mask_rule(make("llama").config) == MaskRule()
    assert mask_rule(make("gemma3").config) == MaskRule(5, True)
    assert mask_rule(make("mistral").config) == MaskRule(5, False)
    assert mask_rule(make("qwen2").config) == MaskRule()
    assert mask_rule(config(sliding_window=7, use_sliding_window=False)) == MaskRule()
    for values in ({"layer_types": ["linear_attention"]}, {"window_size": 256}, {"attention_chunk_size": 64}):
        with pytest.raises(UnpackableError, match=next(iter(values))):
            mask_rule(config(**values))


def test_pack_against_ancestors() -> None:
    """Intervals, depths and masks against a walk up each path."""
    trees = forest(12)
    pack = build_pack(trees, range(len(trees)))
    paths: dict[int, tuple[int, ...]] = {}  # column -> path
    for tree, node, column in zip(pack.row_tree, pack.row_node, pack.row_col, strict=True):
        path = trees[tree].path(int(node))
        assert paths.setdefault(int(column), path) == path
        assert pack.depth[column] == len(path) - 1
    for window in (None, 4):
        end, depth = torch.from_numpy(pack.end), torch.from_numpy(pack.depth)
        mask = ancestor_mask(end, depth, 0, len(pack), torch.float32, window)[0, 0]
        for column, path in paths.items():
            seen = (mask[column] == 0).nonzero()[:, 0].numpy()
            assert tuple(pack.ids[seen].tolist()) == (path[-window:] if window else path)
    assert len(pack) == len({t.prompt[:i] for t in trees for i in range(1, len(t.prompt) + 1)}) + sum(
        len(t) - 1 for t in trees
    )


def test_token_tree_checks() -> None:
    for token, parent in (([-1, 1], [-1]), ([], []), ([0], [-1]), ([-1, 1], [-1, 1]), ([-1, 1], [-1, -1])):
        with pytest.raises(PlanError, match="token tree"):
            tree_of((1,), token, parent)
    tree = tree_of((9,), [-1, 1, 2, 3], [-1, 0, 1, 0])
    assert [tree.path(n) for n in range(4)] == [(9,), (9, 1), (9, 1, 2), (9, 3)]
    assert tree.depths().tolist() == [0, 1, 2, 1]


def test_table_teacher() -> None:
    calls = []

    def fn(path: tuple[int, ...]) -> Any:
        calls.append(path)
        return [-1.0 - len(path), -float("inf"), 0.5]

    teacher = TableTeacher(fn)
    rows = teacher.rows([(1,), (), (1,)])
    assert rows.dtype == torch.float64
    assert rows[:, 0].tolist() == [-2.0, -1.0, -2.0]
    assert calls == [(1,), (), (1,)]
    assert teacher.vocab_size == 3
    assert len(calls) == 3
    tree = tree_of((), [-1, 0, 2], [-1, 0, 0])
    (block,) = stream_rows(teacher, [tree, tree])
    assert block.tree.tolist() == [0, 0, 0, 1, 1, 1]
    assert block.node.tolist() == [0, 1, 2, 0, 1, 2]
    assert block.logits[:, 0].tolist() == [-1, -2, -2, -1, -2, -2]


def test_table_teacher_refusals() -> None:
    def always(row: object) -> TableTeacher:
        return TableTeacher(lambda _: row)

    for bad, match in (
        ([0.0, float("nan")], "NaN"),
        ([float("inf"), 0.0], "inf"),
        ([[0.0]], "shape"),
        ([], "shape"),
    ):
        with pytest.raises(TeacherError, match=match):
            always(bad).rows([(1,)])
    with pytest.raises(TeacherError, match="shape"):
        TableTeacher(lambda path: [0.0] * (1 + len(path))).rows([(), (1,)])
    with pytest.raises(TeacherError, match="pass vocab_size"):
        TableTeacher(lambda path: [float(path[0])]).vocab_size  # noqa: B018
    assert TableTeacher(lambda path: torch.zeros(4), vocab_size=4).rows([]).shape == (0, 4)


def test_stream_rows_checks_other_teachers() -> None:
    class Short:
        vocab_size = 3

        def rows(self, paths: list[tuple[int, ...]]) -> Any:
            return torch.zeros(len(paths), 2)

    with pytest.raises(TeacherError, match="Short: rows have shape"):
        list(stream_rows(Short(), one((1,), [1])))


def test_no_warning_for_supported_models(llama: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HFTeacher(llama)
