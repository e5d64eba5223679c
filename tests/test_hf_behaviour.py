"""HFTeacher: what is read once, what is bounded, and what callers' modes do not change."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.errors import TeacherError
from crosstok.teacher import HFTeacher, protocol, runner, stream_rows
from hf_models import VOCAB, collect, forest, gap, random_tree, reference, torch, tree_of

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_rows_are_normalised_paths(llama: Any, llama_teacher: HFTeacher) -> None:
    tree = forest(6)[0]
    paths = [tree.path(n) for n in range(len(tree))]
    rows = llama_teacher.rows(paths)
    assert rows.dtype == torch.float32
    assert rows.shape == (len(paths), VOCAB)
    assert float((rows.double() - reference(llama, [tree])[0]).abs().max()) <= 2e-6
    assert llama_teacher.rows([]).shape == (0, VOCAB)
    assert not rows.is_inference()  # may be saved for a backward pass
    generic = collect(protocol.path_blocks(llama_teacher, [tree], [0]), [tree])
    assert gap(generic, collect(stream_rows(llama_teacher, [tree]), [tree])) <= 2e-5


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


def test_from_directory(tmp_path: Any, llama: Any) -> None:
    llama.save_pretrained(tmp_path)
    teacher = HFTeacher(str(tmp_path), device="cpu")
    assert torch.equal(teacher.rows([(4, 5)]), HFTeacher(llama).rows([(4, 5)]))
    with pytest.raises(TeacherError, match="cannot load"):
        HFTeacher(str(tmp_path / "nothing"))


def test_no_warning_for_supported_models(llama: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HFTeacher(llama)
