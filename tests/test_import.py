"""Tokenizers, pairs, plans and covers work without torch; what needs it says so."""

from __future__ import annotations

import subprocess
import sys
import textwrap

BLOCK = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])
        return None

sys.meta_path.insert(0, Blocker())
"""
HEAVY = ("torch", "transformers", "safetensors", "tokenizers", "typer", "rich")


def run(code: str, blocked: tuple[str, ...] = HEAVY) -> str:
    """What a fresh interpreter prints that cannot import the blocked packages."""
    source = BLOCK.format(blocked=blocked) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tokenizers_and_covers_without_torch() -> None:
    code = """
        from importlib import resources
        import crosstok as ct
        folder = resources.files("crosstok") / "demo"
        teacher = ct.Tokenizer.from_pretrained(folder)
        pair = ct.Pair(teacher, teacher.first_merges(100))
        ids = pair.encode("a copy of the list")
        covers = ct.enumerate_covers(pair, [ids])
        plan = pair.plan(["a copy of the list"])
        assert pair.regime == "subset" and len(covers.paths(1)) >= 1 and len(plan) == 1
        assert teacher.covers(b"li") and teacher.canonical_next([]).any()
        print(pair.student.decode(ids).decode())
    """
    assert run(code) == "a copy of the list"


def test_import_does_not_load_torch() -> None:
    code = """
        import sys, crosstok
        print(sorted(name for name in ("torch", "transformers", "tokenizers") if name in sys.modules))
    """
    assert run(code, blocked=()) == "[]"


def test_names_that_need_torch_say_so() -> None:
    code = """
        import crosstok as ct
        for name in ("Scorer", "HFTeacher", "TableTeacher", "Score"):
            try:
                getattr(ct, name)
            except ImportError as error:
                assert "pip install 'crosstok[torch]'" in str(error), error
            else:
                raise SystemExit(name)
        assert "Scorer" in dir(ct)
        print(hasattr(ct, "nothing"))
    """
    assert run(code) == "False"


def test_command_line_without_its_extra() -> None:
    code = """
        try:
            import crosstok.cli.app
        except SystemExit as error:
            print(error)
    """
    message = "crosstok: the command line needs typer: pip install 'crosstok[cli]'"
    assert run(code, blocked=("typer", "rich")) == message
