"""Fixtures that several files share. torch is imported where it is needed: some files run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker, and what it starts, has a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the files that run without torch run without it, too
    pass
else:  # how fast examples are made says something about the machine, nothing about what is tested
    settings.register_profile(
        "crosstok", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("crosstok")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, for tests with tiny models.

    Their matrices are too small for a second thread to help, and threads spin while they wait for one another: beside
    other processes on two cores such tests took more than ten times as long on two threads as on one.
    """
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def llama() -> Any:
    """A tiny random Llama in float32. Tests that change it take a copy."""
    import hf_models

    return hf_models.make("llama")


@pytest.fixture(scope="module")
def llama_teacher(one_thread: None, llama: Any) -> Any:
    """`HFTeacher(llama)`."""
    from crosstok.teacher import HFTeacher

    return HFTeacher(llama)
