"""Tokenizers and teachers written down by hand, for the tests of edge_cases.md (`test_edge_*.py`)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import tokenizers
from oracle import scores, toys
from oracle.brute import BruteTokenizer, Ids

ct = pytest.importorskip("crosstok")

EOS = "<eos>"


class Made:
    """A tokenizer from its specification, in crosstok and in Hugging Face."""

    def __init__(self, spec: toys.Spec) -> None:
        self.spec = spec
        self.tok = ct.Tokenizer.from_json(json.dumps(spec))
        self.token_bytes = toys.token_bytes(spec)
        self.eos = next(token["id"] for token in spec["added_tokens"] if token["content"] == EOS)
        self._hf = tokenizers.Tokenizer.from_str(json.dumps(spec))
        self._hf.encode_special_tokens = True

    def hf(self, text: str) -> list[int]:
        """What Hugging Face gives, admissible or not."""
        return self._hf.encode(text, add_special_tokens=False).ids

    def ids(self, *tokens: str | bytes) -> list[int]:
        """The ids of tokens, by their bytes."""
        by_bytes = {data: token for token, data in self.token_bytes.items()}
        return [by_bytes[token.encode() if isinstance(token, str) else token] for token in tokens]

    def pieces(self, text: str) -> list[bytes]:
        """The tokens of a text, as bytes. Checks that both libraries agree."""
        ids = self.tok.encode(text).tolist()
        assert ids == self.hf(text), text
        return [self.token_bytes[token] for token in ids]

    def canonical(self, *tokens: str | bytes, complete: bool = False) -> bool:
        """Whether tokens, given by their bytes, are a canonical prefix or sequence."""
        return bool(self.tok.is_canonical(self.ids(*tokens), complete=complete))

    def covers(self, prefix: str | bytes) -> set[Ids]:
        """The covers of a byte string."""
        data = prefix.encode() if isinstance(prefix, str) else prefix
        return {tuple(cover.tolist()) for cover in self.tok.covers(data)}

    def check_covers(self, *texts: str) -> None:
        """Covers at every byte of the texts, and what may follow each cover, equal brute force."""
        characters = self._characters()
        brute = BruteTokenizer(self.spec, characters, toys.longest_token(self.spec) + 2)
        for data in dict.fromkeys(
            text.encode()[:cut] for text in texts for cut in range(len(text.encode()) + 1)
        ):
            expected = brute.covers(data)
            assert self.covers(data) == expected, data
            for ids in sorted(expected)[:3]:
                following, complete = brute.canonical_next(ids)
                assert set(np.flatnonzero(self.tok.canonical_next(ids)).tolist()) == following, (data, ids)
                assert self.tok.is_canonical(ids, complete=True) == complete, (data, ids)

    def _characters(self) -> list[str]:
        """All characters that the vocabulary can spell."""
        single = {
            data for token, data in self.token_bytes.items() if token not in toys.special_ids(self.spec)
        }
        if toys.is_byte_level(self.spec):
            return toys.spellable({data[0] for data in single if len(data) == 1})
        return sorted(data.decode() for data in single if len(data.decode(errors="ignore")) == 1)


# --- tokenizers ---


def plain_spec(
    pieces: Iterable[str], merges: Sequence[tuple[str, str]], added: Sequence[toys.Spec] = (), **fields: Any
) -> toys.Spec:
    """A specification with the vocabulary in order of appearance; `fields` of the model or of the file.

    Fields that are not given are absent from the model, unlike in `toys.bare_spec`.
    """
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *(a + b for a, b in merges)]))}
    tokens = [{**token} for token in [*added, toys.added_token(EOS, special=True)]]
    for token in tokens:
        token["id"] = vocab.get(token["content"], len(vocab) + sum(t["id"] >= len(vocab) for t in tokens))
    model = {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges]}
    outer = ("normalizer", "pre_tokenizer", "post_processor")
    model |= {key: value for key, value in fields.items() if key not in outer}
    return {"added_tokens": tokens, "model": model, **{key: fields.get(key) for key in outer}}


def visible(data: str | bytes) -> str:
    """Bytes in GPT-2's byte alphabet."""
    table = toys.byte_alphabet()
    return "".join(table[byte] for byte in (data.encode() if isinstance(data, str) else data))


def byte_level(
    alphabet: str | bytes,
    *merges: str,
    pre_tokenizer: toys.Spec | None = None,
    extra: Sequence[str] = (),
    **fields: Any,
) -> Made:
    """Byte-level: the bytes of `alphabet`, merges written "left right" with ␣ for a space, tokens without merge."""
    parts = [[visible(part.replace("␣", " ")) for part in merge.split(" ")] for merge in merges]
    pairs = [(left, right) for left, right in parts]
    # A merge of characters needs those characters: their bytes are merged first.
    characters = [char for merge in merges for char in merge.replace("␣", " ") if ord(char) > 0x7F]
    inside = [
        (visible(data[:cut]), visible(data[cut : cut + 1]))
        for data in dict.fromkeys(char.encode() for char in characters)
        for cut in range(1, len(data))
    ]
    data = alphabet.encode() if isinstance(alphabet, str) else alphabet
    pieces = [visible(bytes([byte])) for byte in dict.fromkeys(data)]
    merged = list(dict.fromkeys([*inside, *pairs]))
    spec = plain_spec([*pieces, *(a + b for a, b in merged), *map(visible, extra)], merged, **fields)
    spec["pre_tokenizer"] = pre_tokenizer or toys.byte_level(False)
    return Made(spec)


def byte_merges(alphabet: str | bytes, pairs: Sequence[tuple[bytes, bytes]]) -> Made:
    """Byte-level without pattern: the bytes of `alphabet`, and merges of any bytes, also of parts of characters."""
    data = alphabet.encode() if isinstance(alphabet, str) else alphabet
    pieces = [visible(bytes([byte])) for byte in dict.fromkeys(data)]
    merges = [(visible(left), visible(right)) for left, right in pairs]
    return Made(plain_spec(pieces, merges, pre_tokenizer=toys.byte_level(False)))


def sentencepiece(pieces: Sequence[str], *merges: str, **fields: Any) -> Made:
    """Pieces are characters; merges written "left right" with ▁ for a space."""
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    fields = {"normalizer": toys.replace(), "unk_token": "<unk>", "fuse_unk": True, **fields}
    return Made(plain_spec(["<unk>", *pieces], pairs, **fields))


def with_bos(made: Made) -> Made:
    """The tokenizer with `<s>` before each text, as id 0: every ordinary piece moves up by one."""
    spec = copy.deepcopy(made.spec)
    spec["model"]["vocab"] = {"<s>": 0} | {p: i + 1 for p, i in spec["model"]["vocab"].items()}
    for token in spec["added_tokens"]:
        token["id"] = 0 if token["content"] == "<s>" else len(spec["model"]["vocab"])
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
    processor = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}
    return Made({**spec, "post_processor": processor})


WORDS = byte_level("ab \né", "a b", "␣ a", "␣a b", "a \n", "ab é", pre_tokenizer=toys.byte_level(True))
QWEN_SPACES = byte_level("a1b \n", "␣ ␣", "␣ b", "␣␣ \n", pre_tokenizer=toys.patterns(toys.QWEN))


# --- pairs and teachers ---


def id_of(tok: Any, data: bytes) -> int:
    """The token with these bytes."""
    return next(token for token in range(tok.vocab_size) if tok.token_bytes(token) == data)


def pair_of(teacher: Made, student: Any, eos: int | None = None) -> Any:
    """A pair; a student from `first_merges` is found its end-of-text by content."""
    if eos is None:
        eos = id_of(student, EOS.encode())
    return ct.Pair(teacher.tok, student, teacher_eos=teacher.eos, student_eos=eos)


def uniform(width: int) -> Any:
    """A teacher with the same row everywhere."""
    return ct.TableTeacher(lambda path: np.full(width, -np.log(width)), width)


def random_teacher(width: int, seed: int = 0) -> Any:
    """A teacher with another row after every path."""
    return ct.TableTeacher(scores.random_teacher(width, seed, spread=2.0), width)
