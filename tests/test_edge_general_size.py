"""edge_cases.md, Numbers and size, for unrelated tokenizers: items 26 to 28."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import WORDS, byte_level, ct, random_teacher, uniform
from made_pairs import general
from oracle import toys
from oracle.brute import Ids

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

STUDENT = byte_level("ab \né", "b a", "␣ b", "␣b a", "\n a", pre_tokenizer=toys.byte_level(True))
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"tolerance": 0.01, "max_rows": 4},
    {"tolerance": 0.0, "max_rows": 50},
)


@pytest.mark.parametrize("options", OPTIONS)
def test_26_extreme_probabilities(options: dict[str, Any]) -> None:
    """Letters of probability e^-100: their logarithms stay what they are."""
    width = WORDS.tok.vocab_size
    (a,) = WORDS.ids("a")

    def row(path: Ids) -> np.ndarray:
        out = np.full(width, -np.inf)
        out[a], out[WORDS.eos] = -100.0, np.log1p(-np.exp(-100.0))
        return out

    scorer = ct.Scorer(ct.TableTeacher(row, width), general(WORDS, STUDENT), **options)
    (score,) = scorer.score(["aaa"])
    assert score.total == pytest.approx(-300, abs=1e-9)
    assert (score.lower <= score.logprobs).all() and (score.logprobs <= score.upper).all()
    assert (score.prefix_upper[:3] >= -100 * np.arange(1, 4) - 1e-9).all()
    (rows,) = scorer.distributions(["aaa"])
    (cut,) = scorer.distributions(["aaa"], top_k=2)
    assert not torch.isnan(rows.logprobs).any() and not torch.isnan(rows.undecided_mass).any()
    assert rows.logprobs[:, STUDENT.eos].tolist() == pytest.approx([0] * 4, abs=1e-6)
    cut.validate()


@pytest.mark.parametrize("options", OPTIONS)
def test_26_rows_without_any_mass(options: dict[str, Any]) -> None:
    """At once, and after the first token: -inf, unsupported, never NaN."""
    width = WORDS.tok.vocab_size
    nothing, some = np.full(width, -np.inf), np.full(width, -np.log(width))
    for fn in (lambda path: nothing, lambda path: nothing if len(path) > 1 else some):
        scorer = ct.Scorer(ct.TableTeacher(fn, width), general(WORDS, STUDENT), **options)
        (score,) = scorer.score(["ba ab"])
        assert np.isneginf(score.logprobs[1:]).all() and not np.isnan(score.noncanonical_mass).any()
        assert (score.status[1:] == ct.Status.UNSUPPORTED).all()
        (rows,) = scorer.distributions(["ba ab"])
        assert not torch.isnan(rows.logprobs).any() and not torch.isnan(rows.undecided_mass).any()
        (cut,) = scorer.distributions(["ba ab"], top_k=3)
        cut.validate()
        with pytest.raises(ct.ZeroProbabilityError):
            scorer.next_token(STUDENT.tok.encode("ba ab"))


def test_26_gradients_are_finite() -> None:
    """Of a loss on targets with rows of probability zero and tokens that the teacher rules out."""
    from crosstok.losses import collate, forward_kl, partial_kl

    width = WORDS.tok.vocab_size
    teacher = random_teacher(width)

    def row(path: Ids) -> Any:
        out = teacher.rows([path])[0].numpy().copy()
        out[: width // 2 if len(path) < 3 else width] = -np.inf
        return out

    scorer = ct.Scorer(ct.TableTeacher(row, width), general(WORDS, STUDENT))
    for targets in (scorer.distributions(["ab ab"]), scorer.distributions(["ab ab"], top_k=2)):
        batch = collate(targets, starts=[0])
        logits = torch.randn(1, batch.steps, STUDENT.tok.vocab_size).mul(50).requires_grad_()
        for loss in (forward_kl(logits, batch), partial_kl(logits, batch)):
            (grad,) = torch.autograd.grad(loss, logits)
            assert torch.isfinite(loss) and torch.isfinite(grad).all()


def test_26_long_texts_do_not_underflow() -> None:
    scorer = ct.Scorer(uniform(WORDS.tok.vocab_size), general(WORDS, STUDENT))
    (score,) = scorer.score(["ab é\n" * 500])
    assert len(score.logprobs) > 2000 and np.isfinite(score.logprobs).all()
    assert score.total < -1000 and (score.prefix_upper <= 0).all()
    (rows,) = scorer.distributions(["ab é\n" * 100])
    assert float((rows.logprobs.double().exp().sum(dim=1) - 1).abs().max()) < 1e-5


@pytest.mark.parametrize("piece", ["a", " ", "\n", "ab", "é"])
def test_27_plans_of_long_runs(piece: str) -> None:
    """As many nodes and ranges a byte in a long run as in a short one; that it comes back tells the rest."""
    pair = general(WORDS, STUDENT)
    sizes = []
    for count in (1_000, 10_000):
        plan = pair.plan([piece * count])
        assert np.diff(plan.student_ptr)[0] == len(STUDENT.tok.encode(piece * count))
        sizes.append((len(plan.node_token) + len(plan.range_node)) / count)
    assert sizes[1] <= 1.2 * sizes[0]


def test_28_threads_share_a_pair() -> None:
    """Bounds of threads are those of a pair by itself."""
    texts = ["ab é\n ab" * 10, "  ab\n\n", "bab a"]
    teacher = random_teacher(WORDS.tok.vocab_size)
    shared, alone = (ct.Scorer(teacher, general(WORDS, STUDENT), tolerance=0.05) for _ in range(2))
    wanted, results = bounds(alone, texts), list[bool]()
    threads = [
        threading.Thread(target=lambda: results.append(bounds(shared, texts) == wanted)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [True] * 4


def bounds(scorer: Any, texts: list[str]) -> list[bytes]:
    """All that could differ."""
    return [value.tobytes() for score in scorer.score(texts) for value in (score.lower, score.upper)]


def test_28_children_forked_while_threads_are_busy() -> None:
    """They decide as the parent does, from caches that were locked when the fork came."""
    script = f"""
        import os, signal, sys, threading
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from handmade import WORDS
        from made_pairs import general
        from test_edge_general_size import STUDENT

        def answer(pair):
            plan = pair.plan(["ab é\\n ab  b" * 9, "  ab\\n\\n", "bab a"] * 3, every_node=True)
            return plan.node_token.tobytes(), plan.range_last.tobytes()

        shared, wanted = general(WORDS, STUDENT), answer(general(WORDS, STUDENT))
        done = threading.Event()

        def work():
            global shared
            while not done.is_set():
                shared = general(WORDS, STUDENT)
                answer(shared)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        failed = 0
        for _ in range(15):
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(0 if answer(shared) == wanted else 1)
            failed += os.waitpid(child, 0)[1] != 0
        done.set()
        for thread in threads:
            thread.join()
        raise SystemExit(failed)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{done.returncode} of 15 children hung or erred: {done.stderr[-2000:]}"
