"""Sessions: rows of nodes that are appended to trees, against plain forwards over whole paths."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from crosstok.errors import PlanError, TeacherError
from crosstok.teacher import (
    HFTeacher,
    Session,
    TableTeacher,
    TokenTree,
    open_session,
    packed,
    probe,
    runner,
    stream_rows,
)
from hf_models import (
    CASES,
    MODELS,
    SIZE,
    VOCAB,
    collect,
    forest,
    gap,
    make,
    random_tree,
    reference,
    torch,
    transformers,
    tree_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")

Round = tuple[Any, Any, Any]  # tree, parent, token: int64 [k]


def draw_rounds(rng: np.random.Generator, trees: Sequence[TokenTree], sizes: Sequence[int]) -> list[Round]:
    """Extensions of random trees; half of the parents are among the last nodes of their tree, so chains grow."""
    length = [len(tree) for tree in trees]
    rounds = []
    for size in sizes:
        entries = []
        for _ in range(size):
            t = int(rng.integers(len(trees)))
            low = length[t] - 3 if rng.integers(2) else 0
            entries.append((t, int(rng.integers(max(0, low), length[t])), int(rng.integers(VOCAB))))
            length[t] += 1
        tree, parent, token = np.array(entries, dtype=np.int64).T
        rounds.append((tree, parent, token))
    return rounds


def grown(trees: Sequence[TokenTree], rounds: Sequence[Round]) -> list[TokenTree]:
    """The trees with all their new nodes."""
    tree, parent, token = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    return [
        TokenTree(
            old.prompt,
            np.concatenate([old.token, token[tree == t]]),
            np.concatenate([old.parent, parent[tree == t]]),
        )
        for t, old in enumerate(trees)
    ]


def blocks_of(session: Session, rounds: Sequence[Round]) -> Iterator[Any]:
    """All blocks of a session; each round must give exactly its own nodes."""
    yield from session.stream()
    done = [len(grown.tree) for grown in session.trees]
    for tree, parent, token in rounds:
        want = []
        for t in tree.tolist():
            want.append((t, done[t]))
            done[t] += 1
        found = list(session.extend(tree, parent, token))
        assert sorted((int(t), int(n)) for b in found for t, n in zip(b.tree, b.node, strict=True)) == sorted(
            want
        )
        yield from found


def worst_gap(model: Any, session: Session, trees: Sequence[TokenTree], rounds: Sequence[Round]) -> float:
    """Largest difference of log-probabilities between a session and plain forwards, over all rows."""
    whole = grown(trees, rounds)
    return gap(collect(blocks_of(session, rounds), whole), reference(model, whole))


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
    keys = [s.layers[0][0] for run in set(session._run_of.values()) for s in run._kept._segments]
    return list({k.untyped_storage().data_ptr(): k for k in keys}.values())


def phi3_with_switch(positions: int) -> Any:
    """Phi 3 with other rotary frequencies from `positions` on. Its config ignores the number in rope_parameters."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    values = {k: v for k, v in SIZE.items() if k != "head_dim"} | {"pad_token_id": 0, "sliding_window": None}
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        **values,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters=rope,
        original_max_position_embeddings=positions,
    )
    return transformers.Phi3ForCausalLM(config).eval()


def test_longrope_beyond_its_switch_goes_path_by_path() -> None:
    """New nodes on both sides of position 24, below packed trees and below one that was beyond it already."""
    model = phi3_with_switch(24)
    with torch.no_grad():
        short, long = (model(torch.arange(n)[None]).logits[0, 10] for n in (24, 25))
    assert float((short - long).abs().max()) > 0.1
    trees = [*forest(9, nodes=18)[:3], forest(10, nodes=40)[0]]
    depths = [len(t.prompt) + int(t.depths().max()) for t in trees]
    assert max(depths[:3]) <= 24 < depths[3]
    rounds = draw_rounds(np.random.default_rng(9), trees, (60, 60, 60))
    assert any(len(t.prompt) + t.depths().max() > 24 for t in grown(trees, rounds)[:3])
    teacher = HFTeacher(model)
    assert teacher.packed, teacher.packed_reason
    assert worst_gap(model, open_session(teacher, trees), trees, rounds) <= 2e-5


def test_a_model_that_cannot_pack(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "mismatch", lambda *_: "told so")
    with pytest.warns(RuntimeWarning, match="told so"):
        teacher = HFTeacher(llama)
    trees = forest(11)
    rounds = draw_rounds(np.random.default_rng(11), trees, (20, 5))
    assert worst_gap(llama, open_session(teacher, trees), trees, rounds) <= 2e-5
    check_model_refusals(open_session(teacher, trees[:2]))


def hashed(path: tuple[int, ...]) -> Any:
    """A row for each path that no other path has."""
    return np.random.default_rng([len(path), *path]).standard_normal(VOCAB)


def test_table_teacher_reads_each_node_once() -> None:
    calls = []

    def fn(path: tuple[int, ...]) -> Any:
        calls.append(path)
        return hashed(path)

    trees = [*forest(12), tree_of((), [-1], [-1])]
    rounds = draw_rounds(np.random.default_rng(12), trees, (30, 1, 30))
    whole = grown(trees, rounds)
    found = {
        (int(t), int(n)): row
        for b in blocks_of(open_session(TableTeacher(fn, VOCAB), trees), rounds)
        for t, n, row in zip(b.tree, b.node, b.logits, strict=True)
    }
    paths = {(t, n): tree.path(n) for t, tree in enumerate(whole) for n in range(len(tree))}
    assert sorted(calls) == sorted(paths.values())
    assert found.keys() == paths.keys()
    for node, row in found.items():
        assert row.dtype == torch.float64
        assert row.tolist() == hashed(paths[node]).tolist()


def test_a_teacher_with_rows_only(llama: Any, llama_teacher: HFTeacher) -> None:
    asked = []

    class Rows:
        vocab_size = VOCAB

        def rows(self, paths: list[tuple[int, ...]]) -> Any:
            asked.append(len(paths))
            return llama_teacher.rows(paths)

    trees = forest(13)[:3]
    rounds = draw_rounds(np.random.default_rng(13), trees, (20, 3))
    assert worst_gap(llama, open_session(Rows(), trees), trees, rounds) <= 2e-5
    assert asked == [sum(map(len, trees)), 20, 3]


def test_a_teacher_with_its_own_session() -> None:
    class Own(TableTeacher):
        def open_session(self, trees: Sequence[TokenTree]) -> Any:
            return list(trees)

    trees: Any = forest(1)
    assert open_session(Own(hashed), trees) == trees


def extension(*nodes: tuple[int, int, int]) -> Round:
    tree, parent, token = np.array(nodes, dtype=np.int64).T
    return tree, parent, token


def check_model_refusals(session: Session) -> None:
    """What the model cannot read is refused with the tree's number, before any forward; nothing stays appended."""
    list(session.stream())
    before = [len(grown) for grown in session.trees]
    deep = [(1, before[1] - 1, 5)] + [(1, before[1] + i, 5) for i in range(600)]
    with pytest.raises(
        TeacherError, match="text 1: 513 tokens, 7 of them the prompt's: the model has 512 positions"
    ):
        session.extend(*extension((0, 0, 1), *deep))
    with pytest.raises(TeacherError, match="text 0: token id 101: the model has 101 embeddings") as caught:
        session.extend(*extension((1, 0, 1), (0, 0, 101)))
    assert caught.value.index == 0
    with pytest.raises(TeacherError, match="token id -1"):
        session.extend(*extension((0, 0, -1)))
    assert [len(grown) for grown in session.trees] == before
    (block,) = session.extend(*extension((1, 0, 1)))
    assert block.tree.tolist() == [1] and block.node.tolist() == [before[1]]


def test_model_refusals(llama_teacher: HFTeacher) -> None:
    check_model_refusals(open_session(llama_teacher, forest(14)[:2]))
    with pytest.raises(TeacherError, match="text 1: a language model needs at least one prompt token"):
        open_session(llama_teacher, [*forest(14)[:1], tree_of((), [-1], [-1])])


@pytest.mark.parametrize("kind", ["table", "model"])
def test_extensions_that_are_none(kind: str, llama_teacher: HFTeacher) -> None:
    teacher = TableTeacher(hashed, VOCAB) if kind == "table" else llama_teacher
    with open_session(teacher, [tree_of((1,), [-1, 2], [-1, 0])]) as session:
        list(session.stream())
        for nodes, match in (
            ([(0, 2, 1)], "parent 2 of a tree with 2 nodes"),
            ([(0, -1, 1)], "parent -1"),
            ([(0, 0, 1), (0, 3, 1)], "parent 3 of a tree with 3 nodes"),
            ([(1, 0, 1)], "tree 1 of 1"),
            ([(-1, 0, 1)], "tree -1"),
        ):
            with pytest.raises(PlanError, match=match):
                session.extend(*extension(*nodes))
        with pytest.raises(PlanError, match=r"tree \(1,\), parent \(2,\)"):
            session.extend(np.zeros(1, int), np.zeros(2, int), np.zeros(1, int))
        nothing = np.zeros(0, dtype=np.int64)
        assert list(session.extend(nothing, nothing, nothing)) == []
        (block,) = session.extend(*extension((0, 1, 3), (0, 2, 4), (0, 2, 4)))
        assert sorted(block.node.tolist()) == [2, 3, 4]
        assert torch.allclose(block.logits[1], block.logits[2], atol=1e-5)  # the same path twice


@pytest.mark.parametrize("kind", ["table", "model"])
def test_calls_out_of_order(kind: str, llama_teacher: HFTeacher) -> None:
    teacher = TableTeacher(hashed, VOCAB) if kind == "table" else llama_teacher
    trees, more = [tree_of((1,), [-1, 2], [-1, 0])], extension((0, 0, 1))
    session = open_session(teacher, trees)
    with pytest.raises(TeacherError, match=r"read the rows of stream\(\) first"):
        session.extend(*more)
    found = session.stream()
    next(found)
    with pytest.raises(TeacherError, match="not read to their end"):
        session.extend(*more)
    assert list(found) == []
    with pytest.raises(TeacherError, match="was read before"):
        session.stream()
    session.extend(*more)
    with pytest.raises(TeacherError, match="not read to their end"):
        session.extend(*more)
    session.close()
    with pytest.raises(TeacherError, match="closed"):
        session.extend(*more)
    early = open_session(teacher, trees)
    found = early.stream()
    next(found)
    early.close()
    with pytest.raises(TeacherError, match="closed"):
        next(found)


def test_no_trees(llama_teacher: HFTeacher) -> None:
    session = open_session(llama_teacher, [])
    assert list(session.stream()) == []
    with pytest.raises(PlanError, match="tree 0 of 0"):
        session.extend(*extension((0, 0, 1)))


def test_nan_is_refused_with_its_tree(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(HFTeacher(llama), forest(15)[:2])
    list(session.stream())
    forward = runner.Runner._forward

    def broken(self: runner.Runner, inputs: dict[str, Any], keep: Any) -> Any:
        logits = forward(self, inputs, keep).clone()
        logits[1, 7] = float("nan")
        return logits

    monkeypatch.setattr(runner.Runner, "_forward", broken)
    with pytest.raises(TeacherError, match="NaN") as caught:
        list(session.extend(*extension((0, 0, 1), (1, 0, 1))))
    assert caught.value.index == 1
    with pytest.raises(TeacherError, match="not read to their end"):
        session.extend(*extension((0, 0, 1)))
