"""The README's code, run as it stands."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


def test_worked_example() -> None:
    pytest.importorskip("torch")
    source = "".join(blocks("pycon"))
    example = doctest.DocTestParser().get_doctest(source, {}, "README.md", str(README), 0)
    assert len(example.examples) > 20
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(example, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_real_model_block(capsys: pytest.CaptureFixture[str]) -> None:
    """With the embedded teacher in place of the hub's."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import crosstok.demo

    (source,) = blocks("python")
    source, replaced = re.subn(r'"HuggingFaceTB/[^"]*"', repr(crosstok.demo.__path__[0]), source)
    source, cut = re.subn(r"24_000", "300", source)
    assert (replaced, cut) == (1, 1)
    names: dict[str, Any] = {}
    exec(compile(source, str(README), "exec"), names)
    pieces = [names["student"].token_bytes(int(id)) for id in names["score"].student_ids]
    assert b"".join(pieces) == b" Paris."
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"torch.Size([{len(pieces) + 1}, {names['student'].vocab_size}])"


def test_training_loop(one_thread: None) -> None:
    """With the embedded teacher and a tiny model, which learns faster: its loss falls to a fraction."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import crosstok as ct
    import crosstok.demo

    (source,) = (block for block in blocks("py") if "forward_kl(" in block)
    source, replaced = re.subn(r"lr=1e-5", "lr=1e-2", source)
    assert replaced == 1
    home = crosstok.demo.__path__[0]
    tokenizer, student = ct.Tokenizer.from_pretrained(home), ct.Tokenizer.from_pretrained(f"{home}/student")
    scorer = ct.Scorer(ct.HFTeacher(home), ct.Pair(tokenizer, student))
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=scorer.width + 3, **size))
    names: dict[str, Any] = {"torch": torch, "teacher_name": home, "student_name": f"{home}/student"}
    losses: list[float] = []

    def batches() -> Iterator[tuple[list[str], list[str]]]:
        """Two texts after prompts of different lengths, again and again; the loss of each round is kept."""
        for _ in range(40):
            yield ["The list is", "Returns the value"], [" sorted in place.", " of the first item"]
            losses.append(names["loss"].item())

    names |= {"scorer": scorer, "model": model, "batches": batches()}
    exec(compile(source, str(README), "exec"), names)
    assert losses[-1] < 0.2 * losses[0]


def test_demo_output_is_the_real_one() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("rich")
    from crosstok.cli.demo import TEXT, run_demo

    pasted = next(block for block in blocks("text") if "naive alignment" in block.lower())
    demo = run_demo(TEXT)
    for name, total in (("exact", demo.exact_total), ("naive", demo.naive_total)):
        found = re.search(rf"{name} total, (\d+) student tokens +(-[\d.]+)", pasted)
        assert found is not None
        assert int(found[1]) == len(demo.steps)
        assert float(found[2]) == pytest.approx(total, abs=2e-3)
