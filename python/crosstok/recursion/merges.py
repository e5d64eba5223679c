"""A student's merges as the merge recursion needs them, and `undo`, the recursion itself.

docs/mathematics.md, "The merge recursion", says why it is right, and what for. `student_merges` and the checks refuse
the rest. All is read off tokenizer.json in Python, on purpose: the recursion checks what the compiled core makes of it.
"""

from __future__ import annotations

import heapq
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from crosstok.errors import PlanError
from crosstok.tokenizer import Tokenizer

Ids = tuple[int, ...]
Spec = dict[str, Any]
Pieces = tuple[str, str]

# End-of-text, behind the tokens of a text.
END = -1
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


class Term(NamedTuple):
    """The texts that begin with some bytes; or, ended, the one that ends with them."""

    data: bytes
    ended: bool = False


@dataclass(frozen=True, eq=False)
class Merges:
    """The merges that a student's BPE executes, numbered from 1 by rank; none makes a part of an earlier one's product.

    symbols: the bytes of each token that no merge makes. byte_level: they are single bytes, else characters. steps:
    (left, right, product) of merge k at k − 1. made: the merge that makes a token. pairs: the merge of a pair. takes:
    the merges of which a token is the left part, ascending.
    """

    symbols: dict[int, bytes]
    byte_level: bool
    steps: list[tuple[int, int, int]]
    made: dict[int, int]
    pairs: dict[tuple[int, int], int]
    takes: dict[int, list[int]]

    def next(self, ids: Ids, last: int) -> int:
        """The highest of the first ``last`` merges that made one of ids or could take the last of them; 0 for none."""
        takes = self.takes.get(ids[-1], []) if ids else []
        place = bisect_right(takes, last)
        return max([self.made.get(id, 0) for id in ids] + takes[max(place - 1, 0) : place], default=0)

    def impossible(self, ids: Ids, last: int) -> bool:
        """Whether the first ``last`` merges leave no such neighbours: the pair (a, b) of one, or (a, aa)."""
        for left, right in pairwise(ids):
            if self.pairs.get((left, right), last + 1) <= last:
                return True
            if right in self.made and self.steps[self.made[right] - 1][:2] == (left, left):
                return True
        return False


def undo(merges: Merges, ids: Ids, budget: int) -> dict[Term, int]:
    """P(ids) as a sum: terms with their coefficients, none of them 0. ids may end with `END`.

    Empty where no text's encoding begins so. A sequence over V_k, the tokens that the first k merges make, becomes one
    or two over V_{k−1}, the highest k first, so that equal ones meet. Raises PlanError beyond ``budget`` sequences.
    """
    if any(id not in merges.symbols and id not in merges.made and id != END for id in ids):
        return {}
    waiting: dict[int, dict[Ids, int]] = {}
    levels: list[int] = []  # −k, a heap

    def put(sequence: Ids, last: int, factor: int) -> None:
        if factor and not merges.impossible(sequence, last):
            level = merges.next(sequence, last)
            if level not in waiting:
                waiting[level] = {}
                heapq.heappush(levels, -level)
            waiting[level][sequence] = waiting[level].get(sequence, 0) + factor

    put(ids, len(merges.steps), 1)
    count = 0
    while levels and (level := -heapq.heappop(levels)):
        left, right, product = merges.steps[level - 1]
        for sequence, factor in waiting.pop(level).items():
            count += 1
            if count > budget:
                raise PlanError(
                    f"more than {budget} steps of the recursion for a student prefix of length {len(ids)}"
                )
            whole = tuple(x for id in sequence for x in ((left, right) if id == product else (id,)))
            put(whole, level - 1, factor)
            if sequence[-1] == left:
                put((*whole, right), level - 1, -factor)
    return {_term(merges, ids): factor for ids, factor in waiting.get(0, {}).items() if factor}


def _term(merges: Merges, ids: Ids) -> Term:
    return Term(b"".join(merges.symbols[id] for id in ids if id != END), ids[-1:] == (END,))


@lru_cache(maxsize=8)
def student_merges(student: Tokenizer) -> Merges:
    """The merges of a student for which the recursion is right.

    Raises PlanError, naming what is in the way: a normalizer (other than the one that writes spaces as ▁), a
    pretokenizer that cuts, added tokens that are not special, byte fallback, ``ignore_merges`` with an effect, an
    improper token, and a special token that is a symbol or that merging makes.
    """
    spec: Spec = json.loads(student.to_json())
    byte_level = _check_layers(spec)
    model = spec["model"]
    vocab: dict[str, int] = model["vocab"]
    ranks = {_pair(line): rank for rank, line in enumerate(model["merges"])}
    last_steps = {piece: _last_step(piece, ranks, vocab) for piece in vocab if len(piece) > 1}
    if model.get("ignore_merges"):
        _check_look_up(last_steps, vocab)
    own = sorted((step for step in last_steps.values() if step is not None), key=ranks.__getitem__)
    steps = [(vocab[left], vocab[right], vocab[left + right]) for left, right in own]
    symbols = {id: student.token_bytes(id) for piece, id in vocab.items() if len(piece) == 1}
    if byte_level:  # other single characters are in no text
        symbols = {id: data for id, data in symbols.items() if len(data) == 1}
    _check_steps(student, steps, symbols)
    takes: dict[int, list[int]] = {}
    for level, (left, _, _) in enumerate(steps, 1):
        takes.setdefault(left, []).append(level)
    made = {product: level for level, (_, _, product) in enumerate(steps, 1)}
    pairs = {(left, right): level for level, (left, right, _) in enumerate(steps, 1)}
    return Merges(symbols, byte_level, steps, made, pairs, takes)


def _pair(line: str | Sequence[str]) -> Pieces:
    left, right = line.split(" ", 1) if isinstance(line, str) else line
    return left, right


def _last_step(piece: str, ranks: Mapping[Pieces, int], vocab: Mapping[str, int]) -> Pieces | None:
    """The last merge of BPE on the symbols of a piece, if that makes the piece of them (its own merge)."""
    symbols = list(piece)
    if not all(symbol in vocab for symbol in symbols):
        return None
    while True:
        rank, place = min((ranks.get(pair, inf), place) for place, pair in enumerate(pairwise(symbols)))
        if rank == inf:
            return None
        left, right = symbols[place : place + 2]
        symbols[place : place + 2] = [left + right]
        if len(symbols) == 1:
            return left, right


# --- what the recursion asks of a student and of a pair ---


def _refusal(whose: str, why: str) -> PlanError:
    return PlanError(f"the recursion does not hold for a {whose} {why}")


def _check_layers(spec: Spec) -> bool:
    """Refuse what rewrites, cuts, matches or replaces text before BPE. Returns whether symbols are bytes."""
    normalizers, pretokenizers = _layers(spec)
    for part in normalizers:
        if part != _SPACES and part["type"] != "Prepend":
            raise _refusal("student", f"with the normalizer {part['type']}")
    for part in pretokenizers:
        no_spaces = part.get("pattern") == _SPACES["pattern"] and _SPACES in normalizers
        switch = {"ByteLevel": "use_regex", "Metaspace": "split"}.get(part["type"], "")
        if part.get(switch) is not False and not (part["type"] == "Split" and no_spaces):
            raise _refusal("student", f"with a pretokenizer that cuts, {part['type']}")
    for token in spec.get("added_tokens") or []:
        if not token["special"]:
            raise _refusal("student", f"with the added token {token['content']!r}, which is not special")
    byte_level = any(part["type"] == "ByteLevel" for part in pretokenizers)
    if byte_level and normalizers:
        raise _refusal("student", f"of bytes with the normalizer {normalizers[0]['type']}")
    model = spec["model"]
    if model.get("byte_fallback") and any(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256)):
        raise _refusal("student", "with byte fallback")
    return byte_level


def _check_look_up(last_steps: Mapping[str, Pieces | None], vocab: Mapping[str, int]) -> None:
    """Refuse ``ignore_merges`` where some text is a token that merging does not make of it."""
    for piece, step in last_steps.items():
        if step is None and all(symbol in vocab for symbol in piece):
            raise _refusal("student", f"with ignore_merges and {piece!r}, which merging does not make")


def _check_steps(
    student: Tokenizer, steps: Iterable[tuple[int, int, int]], symbols: Mapping[int, bytes]
) -> None:
    """Refuse improper tokens, and special ones that stand in encodings of text."""
    special, known = set(student.special_ids.tolist()), set(symbols)
    for left, right, product in steps:
        for part in {left, right} - known:
            name, late = student.token_bytes(product), student.token_bytes(part)
            raise _refusal(
                "student", f"with the improper token {name!r}: a later merge makes its part {late!r}"
            )
        known.add(product)
    for id in sorted(special & known):
        raise _refusal("student", f"that spells text with the special token {student.token_bytes(id)!r}")


@lru_cache(maxsize=8)
def check_symbols(teacher: Tokenizer, student: Tokenizer) -> None:
    """Raise PlanError for a teacher with a token that the student cannot spell, and what `student_merges` raises."""
    merges = student_merges(student)
    known = set(merges.symbols.values())
    unknown = json.loads(teacher.to_json())["model"].get("unk_token")
    special = set(teacher.special_ids.tolist())
    for id in set(range(teacher.vocab_size)) - special:
        data = teacher.token_bytes(id)
        if unknown is not None and data == unknown.encode():
            continue
        for part in _symbols(data, merges.byte_level):
            if part not in known:
                raise _refusal("student", f"that cannot spell {part!r} of the teacher's token {data!r}")


def _symbols(data: bytes, byte_level: bool) -> list[bytes]:
    """Bytes taken apart into bytes or characters; not at all if there are no characters."""
    if byte_level:
        return [bytes([byte]) for byte in data]
    try:
        return [char.encode() for char in data.decode()]
    except UnicodeDecodeError:
        return [data]


@lru_cache(maxsize=8)
def check_start(whose: str, tokenizer: Tokenizer) -> None:
    """Raise PlanError for a tokenizer with a dummy prefix, which stands where a text starts a document."""
    normalizers, pretokenizers = _layers(json.loads(tokenizer.to_json()))
    dummy = any(part["type"] == "Prepend" for part in normalizers)
    for part in pretokenizers:
        dummy |= part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        dummy |= part["type"] == "ByteLevel" and bool(part.get("add_prefix_space", True))
    if dummy:
        raise _refusal(whose, "with a dummy prefix where a text starts a document: pass a prompt")


def _layers(spec: Spec) -> tuple[list[Spec], list[Spec]]:
    """The normalizers and the pretokenizers, Sequences taken apart."""
    return _flat(spec.get("normalizer"), "normalizers"), _flat(spec.get("pre_tokenizer"), "pretokenizers")


def _flat(part: Spec | None, inner: str) -> list[Spec]:
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [flat for one in part[inner] for flat in _flat(one, inner)]
