"""Memory of this process as Linux counts it, in bytes."""

from __future__ import annotations

from pathlib import Path

from .row import Unavailable

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def check() -> None:
    """Raise Unavailable where the system does not tell."""
    if not (_STATUS.exists() and _CLEAR.exists()):
        raise Unavailable("needs /proc/self/status and /proc/self/clear_refs")


def now() -> int:
    """Resident memory."""
    return _field("VmRSS")


def peak() -> int:
    """The most resident memory since the process began, or since `reset_peak`."""
    return _field("VmHWM")


def reset_peak() -> None:
    """Let `peak` start from what is resident now."""
    _CLEAR.write_text("5")


def _field(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
