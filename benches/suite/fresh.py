"""Calls in a process of their own: fresh caches, a memory of their own, a time limit, chosen cores and variables."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


# Seconds in which a process that has handed over its result may clean up.
PATIENCE = 10.0


class ChildError(Exception):
    """What was called in another process raised; the message is its traceback."""


@dataclass(frozen=True)
class Fresh:
    """How such a process runs.

    cores: it may use this many (where the system can tell it so; None: all). seconds: after these it is killed and the
    call raises TimeoutError. variables: added to its environment.
    """

    cores: int | None = None
    seconds: float | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(*args, **kwargs)``; function, arguments and result must be picklable."""
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(sender, self.cores, function, args, kwargs))
        with _environment(self.variables):
            process.start()
        sender.close()
        try:
            if not receiver.poll(self.seconds):
                raise TimeoutError(f"{function.__name__} took more than {self.seconds} s")
            done, result = receiver.recv()
            process.join(PATIENCE)
        except EOFError:
            process.join()
            raise ChildError(f"{function.__name__} ended with status {process.exitcode}") from None
        finally:
            process.kill()
            process.join()
        if not done:
            raise ChildError(result)
        value: T = result
        return value


def _child(
    sender: Connection, cores: int | None, function: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    try:
        sender.send((True, function(*args, **kwargs)))
    except BaseException:  # the parent raises it again
        sender.send((False, traceback.format_exc()))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for a process that is started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
        os.environ.update(before)
