"""Sessions of packed models: rows of nodes that are appended to trees, against plain forwards over whole paths.

Other teachers: `test_session_teachers.py`. What is refused: `test_session_refusals.py`.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.teacher import HFTeacher, open_session, packed, runner, stream_rows
from hf_models import CASES, MODELS, VOCAB, collect, forest, gap, make, random_tree, reference, torch, tree_of
from sessions import blocks_of, draw_rounds, extension, grown, worst_gap

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_rows_equal_one_forward_per_path(name: str, attention: str) -> None:
    """All architectures; windows of 5 tokens under paths of up to 40; one new node, many, one again."""
    model = make(name, attention)
    trees = forest(1)
    rounds = draw_rounds(np.random.default_rng(1), trees, (1, 60, 25, 1))
    teacher = HFTeacher(model)
    assert teacher.packed, teacher.packed_reason
    assert worst_gap(model, open_session(teacher, trees), trees, rounds) <= 2e-5


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral", "gpt2"])
def test_runs_and_blocks_change_nothing(name: str) -> None:
    """One text a run, pairs, all; blocks by columns and by rows, down to one."""
    model = make(name, MODELS[name][2][0])
    trees = forest(2)
    rounds = draw_rounds(np.random.default_rng(2), trees, (30, 7, 12))
    whole = grown(trees, rounds)
    want = reference(model, whole)
    for batch_tokens in (1, 40, 70, 1000):
        teacher = HFTeacher(model, batch_tokens=batch_tokens)
        for columns, rows in ((512, 10**6), (7, 10**6), (512, 3), (1, 1)):
            teacher._runner.block_columns = columns
            teacher._runner.forward_bytes = rows * 4 * VOCAB
            session = open_session(teacher, trees)
            assert gap(collect(blocks_of(session, rounds), whole), want) <= 2e-5


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_float64_leaves_no_room_for_a_wrong_key(name: str) -> None:
    teacher = HFTeacher(make(name), dtype=torch.float64, batch_tokens=60)
    trees = forest(3)
    rounds = draw_rounds(np.random.default_rng(3), trees, (40, 40, 40))
    assert worst_gap(teacher.model, open_session(teacher, trees), trees, rounds) <= 1e-11


def test_bfloat16_is_as_good_as_streaming_the_whole_tree() -> None:
    model = make("llama", initializer_range=0.1).to(torch.bfloat16)
    exact = make("llama", initializer_range=0.1).to(torch.bfloat16).float()
    trees = forest(4)
    rounds = draw_rounds(np.random.default_rng(4), trees, (30, 30))
    whole = grown(trees, rounds)
    teacher, want = HFTeacher(model), reference(exact, whole)
    once = gap(collect(teacher.stream(whole), whole), want)
    assert gap(collect(blocks_of(open_session(teacher, trees), rounds), whole), want) <= 2 * once + 0.01


def test_a_long_chain_grows_node_by_node() -> None:
    """One node a call, each below the one before, far beyond the window."""
    model = make("gemma3")
    tree = tree_of((3, 4, 5), [-1, 6], [-1, 0])
    rounds = [extension((0, n, n % VOCAB)) for n in range(1, 31)]
    assert worst_gap(model, open_session(HFTeacher(model), [tree]), [tree], rounds) <= 2e-5


@pytest.mark.parametrize("batch_tokens", [1, 60, 1000])
def test_stream_gives_what_stream_rows_gives(llama: Any, batch_tokens: int) -> None:
    """Bit for bit, block for block."""
    teacher, trees = HFTeacher(llama, batch_tokens=batch_tokens), forest(5)
    found, want = list(open_session(teacher, trees).stream()), list(stream_rows(teacher, trees))
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        assert a.tree.tolist() == b.tree.tolist() and a.node.tolist() == b.node.tolist()
        assert torch.equal(a.logits, b.logits)


def test_streams_beside_a_session_do_not_disturb_it(llama: Any) -> None:
    teacher, trees = HFTeacher(llama, batch_tokens=50), forest(6)
    rounds = draw_rounds(np.random.default_rng(6), trees, (20, 20))
    whole = grown(trees, rounds)
    one, two = open_session(teacher, trees), open_session(teacher, trees)
    first = iter(zip(blocks_of(one, rounds), blocks_of(two, rounds), strict=True))
    pairs = []
    for pair in first:
        list(teacher.stream(trees[:2]))
        pairs.append(pair)
    want = reference(llama, whole)
    for side in (0, 1):
        assert gap(collect([pair[side] for pair in pairs], whole), want) <= 2e-5


def test_a_call_is_one_forward_for_each_run(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = forest(7)
    teacher = HFTeacher(llama, batch_tokens=60)
    session = open_session(teacher, trees)
    list(session.stream())
    runs = len(list(packed.packs(trees, range(len(trees)), 60)))
    assert 1 < runs < len(trees)
    columns = []
    forward = runner.Runner._forward

    def counted(self: runner.Runner, inputs: dict[str, Any], keep: Any) -> Any:
        columns.append(inputs["input_ids"].shape[1])
        return forward(self, inputs, keep)

    monkeypatch.setattr(runner.Runner, "_forward", counted)
    tree = np.array([*range(len(trees)), *range(len(trees))])
    parent = np.array([*([0] * len(trees)), *map(len, trees)])
    list(session.extend(tree, parent, np.ones_like(tree)))
    assert len(columns) == runs and sum(columns) == tree.size
    columns.clear()
    list(session.extend(*(np.array([x]) for x in (3, 2, 1))))
    assert columns == [1]
    teacher._runner.block_columns = 4
    list(session.extend(*(np.full(9, x) for x in (3, 2, 1))))
    assert columns == [1, 4, 4, 1]


def test_a_forward_sees_no_columns_of_other_branches(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a row costs the same however many were read before it."""
    tree = tree_of((3, 4, 5), [-1, 6], [-1, 0])
    session = open_session(HFTeacher(llama), [tree])
    list(session.stream())
    keys = []
    forward = runner.Runner._forward

    def counted(self: runner.Runner, inputs: dict[str, Any], keep: Any) -> Any:
        keys.append(inputs[runner.cache_argument(self.model)].get_seq_length())
        return forward(self, inputs, keep)

    monkeypatch.setattr(runner.Runner, "_forward", counted)
    packed_columns, root = 3 + len(tree) - 1, 1
    for parent, above in ((root, 0), (root, 0), (2, 1), (3, 1), (4, 2), (root, 0), (6, 3)):
        list(session.extend(*(np.array([x]) for x in (0, parent, 1))))
        assert keys.pop() == packed_columns + above, parent
    nothing = np.zeros(9, dtype=np.int64)
    list(session.extend(nothing, nothing + 1, nothing))
    assert keys == [packed_columns]


def test_prompts_that_runs_share_are_kept_once_and_freed(llama: Any) -> None:
    rng = np.random.default_rng(8)
    prompt = tuple(rng.integers(0, VOCAB, 50).tolist())
    trees = [random_tree(rng, prompt + extra, 10) for extra in ((), (1, 2), (3,), (3, 4), ())]
    session = open_session(HFTeacher(llama, batch_tokens=1), trees)
    list(blocks_of(session, draw_rounds(rng, trees, (12, 12))))
    keys = kept_keys(session)
    # What the prompts have in common, what each adds, and the end of the first, which the fifth run reads again.
    prompts = 50 + 2 + 1 + 1 + 1
    assert sum(k.untyped_storage().nbytes() for k in keys) == (prompts + 5 * 9 + 24) * 2 * 8 * 4
    gone = [weakref.ref(k) for k in keys]
    del keys
    session.close()
    assert all(ref() is None for ref in gone)


def kept_keys(session: Any) -> list[Any]:
    """The keys of layer 0 of all runs, one tensor for each piece of memory."""
    runs = set(session._run_of.values())
    keys = [s.layers[0][0] for run in runs for part in (run._kept, run._appended) for s in part._segments]
    return list({k.untyped_storage().data_ptr(): k for k in keys}.values())
