"""The fixed texts of `compare.py`: answers, Python sources and sentences in many scripts, each after a prompt."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import crosstok as ct

from ..job import Job
from ..pairs.texts import MULTILINGUAL, Text, admissible
from ..pairs.texts import answers as after_questions
from ..row import Unavailable

PYTHON = Path(__file__).resolve().parents[2] / "texts" / "python.json"
# All positions of a text count, but many short texts differ more than a few long ones.
LONGEST = 60
# Sentences are listed script by script: with every seventh the first few are in as many scripts.
STRIDE = 7


def candidates(job: Job, pair: ct.Pair) -> Iterator[Text]:
    """How answers begin, how Python and sentences go on, in turn; always the same ones."""
    sentences = [entry["text"] for entry in json.loads(MULTILINGUAL.read_text(encoding="utf-8"))]
    spread = [sentence for first in range(STRIDE) for sentence in sentences[first::STRIDE]]
    sources = json.loads(PYTHON.read_text(encoding="utf-8"))
    beginnings = [shortened(answer, LONGEST) for answer in job.texts]
    kinds = [
        after_questions("answers", beginnings, job.prompts),
        continued("python", sources, pair),
        continued("texts", spread, pair),
    ]
    for some in zip_longest(*kinds):
        yield from (text for text in some if text is not None)


def continued(kind: str, texts: Sequence[str], pair: ct.Pair) -> Iterator[Text]:
    """The second half of each text, after the first as the teacher reads it; without those that it cannot spell."""
    for text in texts:
        head, rest = halves(text)
        for begun in admissible([Text(kind, head)], pair.teacher):
            ids = pair.teacher.encode(begun.text, start=True).tolist()
            yield Text(kind, shortened(rest, LONGEST), (*pair.prompt_ids(None), *ids))


def halves(text: str) -> tuple[str, str]:
    """A text in two where a word begins with the space before it, in its middle half, else between whole characters.

    Prompts that end with a space are read unlike the same text in one, by most tokenizers.
    """
    places = range(1, len(text))
    words = [
        at
        for at in places
        if text[at].isspace() and not text[at - 1].isspace() and len(text) <= 4 * at <= 3 * len(text)
    ]
    cut = min(
        words or [at for at in places if not _joined(text[at - 1], text[at])],
        key=lambda at: abs(2 * at - len(text)),
    )
    return text[:cut], text[cut:]


def _joined(before: str, after: str) -> bool:
    """Whether two characters are shown as one: marks, what joins emoji and what changes them."""
    return (
        unicodedata.category(after) in ("Mn", "Mc", "Me", "Cf", "Sk") or unicodedata.category(before) == "Cf"
    )


def shortened(text: str, size: int) -> str:
    """At most ``size`` bytes of a text: whole characters, and whole words where there is a space in the second half."""
    if len(text.encode()) <= size:
        return text
    cut = text.encode()[:size].decode(errors="ignore")
    space = cut.rfind(" ")
    return cut[:space] if len(cut[:space].encode()) >= size // 2 else cut


def chosen(job: Job, pair: ct.Pair, count: int) -> list[Text]:
    """The first texts that both tokenizers can spell and that have ``count`` positions, or a few more, together.

    Raises Unavailable where the texts do not suffice.
    """
    found: list[Text] = []
    positions = 0
    for text in candidates(job, pair):
        if positions >= count:
            break
        if not all(any(admissible([text], tokenizer)) for tokenizer in (pair.teacher, pair.student)):
            continue
        found.append(text)
        positions += len(pair.student.encode(text.text, start=False)) + 1
    if positions < count:
        raise Unavailable(f"{count} positions are wanted, the texts have {positions}")
    return found
