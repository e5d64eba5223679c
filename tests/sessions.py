"""What the tests of sessions share: random extensions of trees, and rows of a session against plain forwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from crosstok.teacher import Session, TokenTree
from hf_models import VOCAB, collect, gap, reference

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


def extension(*nodes: tuple[int, int, int]) -> Round:
    """A round of nodes (tree, parent, token)."""
    tree, parent, token = np.array(nodes, dtype=np.int64).T
    return tree, parent, token


def hashed(path: tuple[int, ...]) -> Any:
    """A row for each path that no other path has."""
    return np.random.default_rng([len(path), *path]).standard_normal(VOCAB)
