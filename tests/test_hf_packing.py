"""Token trees as one sequence: mask rules of configs, intervals, depths and masks."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from crosstok.teacher.packed import MaskRule, UnpackableError, ancestor_mask, build_pack, mask_rule
from hf_models import forest, make, torch, transformers


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
