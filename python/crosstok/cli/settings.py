"""What a run of `crosstok score` was asked to do, and everything in it that determines the output."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crosstok as ct
from crosstok.cli import tolerance
from crosstok.cli.journal import journal_path
from crosstok.cli.load import first_line
from crosstok.cli.resume import BATCH_TOKENS
from crosstok.errors import CrosstokError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Files of a model that have a say in what comes out; a directory may hold logs and checkpoints beside them.
MODEL_FILES = ("*config.json", "tokenizer.json", "chat_template.*", "*.safetensors", "pytorch_model*.bin")
# Of each file this much is read, in evenly spaced blocks: training changes all of a file of weights.
BLOCK, BLOCKS = 4096, 256


@dataclass(frozen=True)
class Job:
    """The options of `crosstok score`; see `app.score`."""

    teacher: str
    student: str
    input: Path
    output: Path
    dtype: str = "float32"
    device: str | None = None
    canonical: str = "renormalize"
    tolerance: float | None = None
    max_rows: int | None = None
    limit: int | None = None
    num_shards: int = 1
    shard: int | None = None
    batch_tokens: int | None = None
    teacher_eos: Sequence[int] | None = None
    student_eos: Sequence[int] | None = None
    overwrite: bool = False
    summary: Path | None = None

    def check(self) -> None:
        """Raise CrosstokError for options that do not go together, and for outputs that cannot be written."""
        if self.num_shards > 1 and self.shard is None:
            raise CrosstokError(f"--num-shards {self.num_shards} needs --shard, which of them to score")
        if self.shard is not None and not 0 <= self.shard < self.num_shards:
            raise CrosstokError(
                f"--shard {self.shard}: not below --num-shards {self.num_shards}, they count from 0"
            )
        tolerance.check_options(self.tolerance, self.max_rows)
        for path in (self.output, *filter(None, [self.summary])):
            check_writable(path)
        written = (self.output, journal_path(self.output), *filter(None, [self.summary]))
        paths = [path.resolve() for path in (self.input, *written)]
        for later, path in enumerate(paths[1:], 1):
            if path in paths[:later]:
                what = "input" if path == paths[0] else "output"
                raise CrosstokError(f"{path}: is the {what} too")

    def check_pair(self, pair: ct.Pair) -> None:
        """Raise CrosstokError for a tolerance that a model would be asked for rows without end to meet."""
        tolerance.check_pair(pair, self.tolerance, self.max_rows)

    def span(self, records: int) -> tuple[int, int]:
        """First index and the one after the last of this shard: runs of neighbours, whose sizes differ by one at most.

        Neighbours, not every n-th line: outputs can be put one behind the other, and lines that share a prompt
        mostly stand together, which a packed forward makes use of.
        """
        shard = self.shard or 0
        return records * shard // self.num_shards, records * (shard + 1) // self.num_shards


def describe(job: Job, pair: ct.Pair, device: str) -> dict[str, Any]:
    """Return everything that determines an output but its input, by names for people; values of JSON.

    Without batch tokens, unless asked for: where they were not, they are known when the model is.
    """
    settings: dict[str, Any] = {
        "crosstok": ct.__version__,
        **{name: version(name) for name in ("torch", "transformers")},
        "teacher": model_identity(job.teacher),
        "teacher tokenizer": pair.teacher.fingerprint,
        "teacher begin-of-text": pair.teacher.bos_id,
        "teacher end-of-text": list(pair.teacher_eos),
        "student tokenizer": pair.student.fingerprint,
        "student end-of-text": list(pair.student_eos),
        "dtype": job.dtype,
        "device": device.partition(":")[0],
        "canonical": job.canonical,
        "tolerance": job.tolerance,
        "max rows": job.max_rows,
        "limit": job.limit,
        "shard": None if job.num_shards == 1 else f"{job.shard} of {job.num_shards}",
    }
    return settings if job.batch_tokens is None else {**settings, BATCH_TOKENS: job.batch_tokens}


def model_identity(name: str) -> str:
    """Return a digest of a directory's model, or the revision of a hub id: a path may hold another model tomorrow.

    Raises CrosstokError for what is neither.
    """
    folder = Path(name)
    if not folder.is_dir():
        return f"{name} at {_revision(name)}"
    digest = hashlib.sha256()
    for path in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for place in range(0, size, max(BLOCK, size // BLOCKS)):
                file.seek(place)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def _revision(hub_id: str) -> str:
    """Return the commit of a hub id's files, which are kept in a folder of that name."""
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(hub_id, "config.json")
    except (OSError, ValueError) as error:
        raise CrosstokError(f"cannot load a model from {hub_id}: {first_line(error)}") from error
    return Path(str(found)).parent.name


def check_writable(path: Path) -> None:
    """Refuse, before a model is loaded for it, a path that cannot be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CrosstokError(
            f"{path}: {folder} is no directory" if folder.exists() else f"{path}: No such directory"
        )
    if path.exists() and not path.is_file():
        raise CrosstokError(f"{path}: not a regular file")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise CrosstokError(f"{path}: Permission denied")
