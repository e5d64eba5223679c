"""Forks, threads and Ctrl-C (edge_cases.md, 28): no hang and no wrong answer."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time

import crosstok as ct
import pytest
from crosstok.demo import __path__ as DEMO

SECONDS = 60


def python(script: str) -> list[str]:
    """The command that runs a script in a process of its own; DEMO is the folder of the demo's teacher."""
    return [sys.executable, "-W", "ignore", "-c", f"DEMO = {DEMO[0]!r}\n" + textwrap.dedent(script)]


def test_children_forked_while_threads_are_busy_answer_as_the_parent() -> None:
    script = """
        import os, signal, threading
        import numpy as np
        import crosstok as ct

        def fresh():
            tok = ct.Tokenizer.from_pretrained(DEMO)
            return ct.Pair(tok, tok.first_merges(150))

        def answer(pair):
            plan = pair.plan(["Return a copy of the string.  x\\n\\n y", "If 1 + 2 is not found"] * 3)
            masks = plan.masks(np.arange(len(plan.node_token)), pair.teacher.vocab_size)
            return plan.node_token.tolist(), plan.range_last.tolist(), masks.tobytes()

        shared, wanted = fresh(), answer(fresh())
        done = threading.Event()

        def work():
            global shared
            while not done.is_set():
                shared = fresh()  # its tables are being made, and its caches locked, when the fork comes
                answer(shared)
                answer(shared)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        failed = 0
        for _ in range(40):
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
    done = subprocess.run(python(script), capture_output=True, text=True, timeout=5 * SECONDS)
    assert done.returncode == 0, f"{done.returncode} of 40 children hung or erred: {done.stderr}"


def test_the_interpreter_is_free_while_rust_works() -> None:
    tok = ct.Tokenizer.from_pretrained(DEMO[0])
    text = "a" * 2_000_000  # one pretoken: about a second of merging
    worker = threading.Thread(target=tok.encode, args=(text,))
    worker.start()
    steps = 0
    while worker.is_alive():
        time.sleep(0.001)
        steps += 1
    assert steps > 5  # a call that kept the interpreter would have left us one


def test_threads_that_share_a_pair_agree() -> None:
    tok = ct.Tokenizer.from_pretrained(DEMO[0])
    pair = ct.Pair(tok, tok.first_merges(150))
    texts = [f"Return the string {n}, or None.\n" for n in range(40)]
    found: list[list[int]] = [[] for _ in range(4)]

    def plan(into: list[int]) -> None:
        into.extend(pair.plan(texts).range_last.tolist())

    threads = [threading.Thread(target=plan, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] and all(other == found[0] for other in found)


STREAMS = {
    "subset": ("tok.first_merges(150)", {}, "iter_scores(texts)"),
    "general": ("reversed_merges(tok)", {"tolerance": 0.01, "max_rows": 8}, "iter_scores(texts)"),
    "general, distributions": (
        "reversed_merges(tok)",
        {"tolerance": 0.01, "max_rows": 8},
        "iter_distributions(texts, top_k=4)",
    ),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_ctrl_c_ends_a_stream(stream: str) -> None:
    pytest.importorskip("transformers")
    student, options, call = STREAMS[stream]
    # A child of a background job begins with SIGINT ignored, and Python leaves that as it is.
    script = f"""
        import itertools, json, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        import crosstok as ct

        def reversed_merges(tok):
            file = json.loads(tok.to_json())
            file["model"]["merges"].reverse()
            return ct.Tokenizer.from_json(json.dumps(file))

        tok = ct.Tokenizer.from_pretrained(DEMO)
        student = {student}
        pair = ct.Pair(tok, student, tok.eos_ids, student.special_ids[:1].tolist())
        assert pair.regime == {stream.partition(",")[0]!r}
        scorer = ct.Scorer(ct.HFTeacher(DEMO, device="cpu"), pair, **{options})
        texts = itertools.cycle(["Return a copy of the string.", "x = 1"])
        for found in scorer.{call}:
            print("found", flush=True)
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(python(script), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "found\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors


@pytest.mark.parametrize("workers", [1, 2])
def test_in_the_workers_of_a_data_loader(workers: int) -> None:
    torch = pytest.importorskip("torch")
    tok = ct.Tokenizer.from_pretrained(DEMO[0])
    pair = ct.Pair(tok, tok.first_merges(150))
    texts = [f"Return {n} strings." for n in range(12)]

    class Plans(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(texts)

        def __getitem__(self, at: int) -> list[int]:
            ids: list[int] = pair.plan([texts[at]]).node_token.tolist()
            return ids

    loader = torch.utils.data.DataLoader(
        Plans(), batch_size=None, num_workers=workers, multiprocessing_context="fork"
    )
    assert list(loader) == [pair.plan([text]).node_token.tolist() for text in texts]
