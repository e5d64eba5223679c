"""`crosstok inspect`: two tokenizers and what scoring with them will be like, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import crosstok as ct
from crosstok.cli.load import load_student, load_tokenizer, make_pair
from crosstok.cli.prompts import PromptEncoder
from crosstok.cli.records import InputError, Row, prompt_ids
from crosstok.cli.source import Source
from crosstok.errors import PlanError, TextError, UnsupportedTokenizerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crosstok.pair import Plan

# Texts that are planned together, on all cores.
TEXTS = 64


@dataclass
class Side:
    """One of the two tokenizers, or why it cannot be used. ``pieces``: the bytes of its tokens but special ones."""

    tokenizer: ct.Tokenizer | None = None
    problem: str | None = None
    eos: tuple[int, ...] = ()
    pieces: frozenset[bytes] = frozenset()


@dataclass
class Sample:
    """Sums over the texts of a sample; ``nodes``, of the teacher's trees, is None where covers cannot be planned.

    ``refused`` texts, of which ``first_refused`` is the first, are in no other number. Tokens are those of the texts,
    without end-of-text; ``ends`` counts these. ``prompt``: columns before the texts, BOS included. ``undecided``: how
    many student tokens end a prefix that some teacher prefixes leave undecided.
    """

    texts: int = 0
    refused: int = 0
    first_refused: str = ""
    size: int = 0
    student_tokens: int = 0
    known_tokens: int = 0
    teacher_tokens: int = 0
    ends: int = 0
    prompt: int = 0
    nodes: int | None = 0
    undecided: int = 0

    @property
    def rows_per_token(self) -> float | None:
        """Teacher rows for every canonical teacher token, end-of-text included; plain scoring needs 1."""
        tokens = self.teacher_tokens + self.ends
        return self.nodes / tokens if self.nodes is not None and tokens else None

    @property
    def cost(self) -> float | None:
        """Columns that the teacher reads, over those of a plain forward of prompt and canonical tokens.

        A tree's root is the last column of the prompt. Prompts that begin alike are shared when scored: not here.
        """
        columns = self.prompt + self.teacher_tokens
        return (
            (self.prompt + self.nodes - self.texts) / columns if self.nodes is not None and columns else None
        )


@dataclass
class Inspection:
    """What two tokenizers are together; ``common`` pieces of both.

    problem: why there is no ``pair`` of two tokenizers that are fine. not_yet: why the pair cannot be scored.
    """

    teacher: Side
    student: Side
    pair: ct.Pair | None = None
    problem: str | None = None
    not_yet: str | None = None
    common: int = 0


def inspect(
    teacher: str, student: str, teacher_eos: Sequence[int] | None, student_eos: Sequence[int] | None
) -> Inspection:
    """Read two tokenizers. What is unsupported about one of them is said beside what is known of the other."""
    found = Inspection(side(lambda: load_tokenizer(teacher)), Side(problem="needs the teacher's"))
    one = found.teacher.tokenizer
    if not student.startswith("merges:"):
        found.student = side(lambda: load_tokenizer(student))
    elif one is not None:
        found.student = side(lambda: load_student(student, one))
    other = found.student.tokenizer
    if one is None or other is None:
        return found
    found.common = len(found.teacher.pieces & found.student.pieces)
    try:
        found.pair = make_pair(one, other, teacher_eos, student_eos)
        found.teacher.eos, found.student.eos = found.pair.teacher_eos, found.pair.student_eos
    except UnsupportedTokenizerError as error:
        found.problem = str(error)
        return found
    try:
        found.pair.plan([""])
    except PlanError as error:
        found.not_yet = str(error)
    return found


def side(load: Callable[[], ct.Tokenizer]) -> Side:
    """Load a tokenizer; a field that is not supported becomes the side's problem."""
    try:
        tokenizer = load()
    except UnsupportedTokenizerError as error:
        return Side(problem=str(error))
    special = set(tokenizer.special_ids.tolist())
    pieces = {tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size) if id not in special}
    return Side(tokenizer, eos=tokenizer.eos_ids, pieces=frozenset(pieces - {b""}))


def read_sample(
    found: Inspection, teacher: str, path: Path, limit: int | None, report: Callable[[str, int, int], None]
) -> Sample:
    """Count what the texts of a file need. Raises InputError for a line that is no record."""
    pair = found.pair
    assert pair is not None, "only a pair has samples"
    prompts = PromptEncoder(str(Path(teacher).parent) if Path(teacher).is_file() else teacher)
    sample = Sample(nodes=0 if found.not_yet is None else None)
    with Source(path) as source:
        survey = source.survey(limit)
        rows = (row for row, _ in source.rows(source.find(0), survey.records))
        for batch in _batches(rows):
            good = [row for row in batch if _count(sample, found, path, row, prompts)]
            if sample.nodes is not None:
                plan = _plan(pair, good)
                sample.nodes += int(plan.node_ptr[-1])
                sample.undecided += undecided(plan)
            report("sample", sample.texts + sample.refused, survey.records)
    return sample


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == TEXTS:
            yield batch
            batch = []
    if batch:
        yield batch


def _count(sample: Sample, found: Inspection, path: Path, row: Row, prompts: PromptEncoder) -> bool:
    """Add a row to the sums; False if it cannot be scored."""
    pair = found.pair
    assert pair is not None
    try:
        ids = pair.encode(row.text, start=row.start)
        prompt = prompt_ids(path, row, prompts)
    except (TextError, InputError) as error:
        sample.refused += 1
        where = "" if isinstance(error, InputError) else f"{path}, line {row.line}: "
        sample.first_refused = sample.first_refused or f"{where}{error}"
        return False
    sample.texts += 1
    sample.size += row.size
    sample.student_tokens += len(ids)
    sample.known_tokens += sum(pair.student.token_bytes(id) in found.teacher.pieces for id in ids.tolist())
    sample.teacher_tokens += len(pair.teacher.encode(row.text, start=row.start))
    sample.ends += row.ended
    # A text without prompt follows one id, BOS or end-of-text.
    sample.prompt += 1 if prompt is None else len(prompt)
    return True


def undecided(plan: Plan) -> int:
    """How many prefixes s_1..s_i of a plan's texts, i = 1..n, something is undecided of."""
    open_ones = plan.range_kind != 0
    node = np.concatenate([plan.range_node[open_ones], plan.whole_node])
    depth = np.concatenate([plan.range_depth[open_ones], plan.whole_depth])
    return len(np.unique(plan.student_ptr[plan.node_text[node]] + depth))


def _plan(pair: ct.Pair, rows: list[Row]) -> Plan:
    """The rows' trees."""
    start, ended = [row.start for row in rows], [row.ended for row in rows]
    return pair.plan([row.text for row in rows], start=start, ended=ended)
