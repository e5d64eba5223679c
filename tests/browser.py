"""A headless Chromium for tests: what it makes of a page, as elements and as pixels."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Bytes = npt.NDArray[np.uint8]

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
# A sandboxed frame would otherwise be drawn by a process of its own, which a screenshot does not wait for.
ONE_PROCESS = "--disable-features=IsolateSandboxedIframes"
LOG = ("--enable-logging=stderr", "--v=0")


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded screenshot. pixels: uint8 [height, width, 3]."""

    pixels: npt.NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def colours(self) -> Counter[str]:
        """How many pixels have each colour, as #rrggbb."""
        packed = self.pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        values, counts = np.unique(packed, return_counts=True)
        return Counter({f"#{value:06x}": int(n) for value, n in zip(values.tolist(), counts, strict=True)})


class Browser:
    """Opens pages from files, without network. Fails the test where a page's script throws."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        self._dom = ""

    @classmethod
    def find(cls, folder: Path) -> Browser:
        """The first that is on PATH; the test is skipped where there is none."""
        for name in NAMES:
            if program := shutil.which(name):
                return cls(program, folder)
        pytest.skip(f"needs a Chromium: none of {', '.join(NAMES)} is on PATH")

    def dom(self, source: str) -> str:
        """The document after its scripts have run."""
        self._dom = self._run(source, "--dump-dom")
        return self._dom

    def title(self) -> Any:
        """What a script has left in the title of the last document, as JSON."""
        found = re.search(r"<title>(.*?)</title>", self._dom, re.S)
        assert found is not None
        return json.loads(unescape(found[1]))

    def picture(self, source: str, width: int, height: int, dark: bool | None = None) -> Picture:
        """A screenshot. dark: the reader's preference."""
        target = self.folder / "picture.png"
        target.unlink(missing_ok=True)
        size = (f"--screenshot={target}", f"--window-size={width},{height}")
        prefers = () if dark is None else (f"--blink-settings=preferredColorScheme={0 if dark else 1}",)
        self._run(source, *size, *prefers)
        return decode_png(target.read_bytes())

    def _run(self, source: str, *switches: str) -> str:
        path = self.folder / "page.html"
        path.write_text(source, encoding="utf-8")
        profile = f"--user-data-dir={self.folder / 'profile'}"
        command = [self.program, *SWITCHES, ONE_PROCESS, *LOG, profile, *switches, path.as_uri()]
        run = subprocess.run(command, capture_output=True, timeout=120)
        log = run.stderr.decode(errors="replace")
        assert run.returncode == 0, log[-2000:]
        told = [line for line in log.splitlines() if "CONSOLE" in line or "Uncaught" in line]
        assert not told, "\n".join(told)
        return run.stdout.decode()


def decode_png(data: bytes) -> Picture:
    """Decode 8-bit RGB or RGBA without interlace, as Chromium writes it (RFC 2083)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, head = 8, b"", b""
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        head = body if kind == b"IHDR" else head
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", head)
    assert (depth, interlace) == (8, 0) and colour in (2, 6)
    channels = 3 if colour == 2 else 4
    raw, stride = zlib.decompress(packed), width * channels + 1
    assert len(raw) == stride * height
    rows = []
    above = np.zeros(stride - 1, dtype=np.uint8)
    for y in range(height):
        line = np.frombuffer(raw, np.uint8, stride - 1, y * stride + 1)
        above = _unfilter(raw[y * stride], line, above, channels)
        rows.append(above)
    return Picture(np.stack(rows).reshape(height, width, channels)[:, :, :3])


def _unfilter(kind: int, line: Bytes, above: Bytes, step: int) -> Bytes:
    """One row of bytes from what the file has of it and the row above (RFC 2083, section 6)."""
    if kind == 0:
        return line
    if kind == 1:
        sums: Bytes = np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
        return sums
    if kind == 2:
        return line + above
    out, up = bytearray(line.tobytes()), above.tobytes()
    for at in range(len(out)):
        left, corner = (out[at - step], up[at - step]) if at >= step else (0, 0)
        guess = (left + up[at]) // 2 if kind == 3 else _paeth(left, up[at], corner)
        out[at] = (out[at] + guess) & 255
    return np.frombuffer(out, np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))
