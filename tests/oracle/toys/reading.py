"""Questions about a tokenizer.json, answered from its fields alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

Spec = dict[str, Any]


@cache
def byte_alphabet() -> Mapping[int, str]:
    """The visible character that byte-level BPE writes for each byte (GPT-2's `bytes_to_unicode`)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in visible}
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(256 + len(alphabet) - len(visible))
    return MappingProxyType(alphabet)


@cache
def byte_of() -> Mapping[str, int]:
    """The byte that each character of `byte_alphabet` stands for."""
    return MappingProxyType({char: byte for byte, char in byte_alphabet().items()})


def pretokenizers(spec: Spec) -> Iterator[Spec]:
    """All pretokenizers of a spec, Sequences flattened."""
    return _flattened(spec.get("pre_tokenizer"), "pretokenizers")


def normalizers(spec: Spec) -> Iterator[Spec]:
    """All normalizers of a spec, Sequences flattened."""
    return _flattened(spec.get("normalizer"), "normalizers")


def _flattened(node: Spec | None, parts: str) -> Iterator[Spec]:
    """A node, or what its Sequence holds in the field `parts`."""
    if node is not None:
        if node["type"] == "Sequence":
            for part in node[parts]:
                yield from _flattened(part, parts)
        else:
            yield node


def is_byte_level(spec: Spec) -> bool:
    """Whether the vocabulary is written in GPT-2's byte alphabet."""
    return any(part["type"] == "ByteLevel" for part in pretokenizers(spec))


def dummy_prefix(spec: Spec) -> bool:
    """Whether a text that starts a document gets a space in front of it."""
    prepends = any(part["type"] == "Prepend" for part in normalizers(spec))
    schemes = [
        part.get("prepend_scheme", "always") for part in pretokenizers(spec) if part["type"] == "Metaspace"
    ]
    return prepends or any(scheme != "never" for scheme in schemes)


def without_dummy_prefix(spec: Spec) -> Spec:
    """A copy of the spec that encodes a text as one that continues another."""
    copied: Spec = json.loads(json.dumps(spec))
    kept = [part for part in normalizers(copied) if part["type"] != "Prepend"]
    copied["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for part in pretokenizers(copied):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
    return copied


def token_bytes(spec: Spec) -> dict[int, bytes]:
    """The bytes of every id, from the strings of the vocabulary (never from the file's decoder, which strips
    spaces).
    """
    inverse = byte_of()
    byte_level = is_byte_level(spec)
    fallback = bool(spec["model"].get("byte_fallback"))
    table: dict[int, bytes] = {}
    for piece, token in spec["model"]["vocab"].items():
        if byte_level and all(map(inverse.__contains__, piece)):
            table[token] = bytes(map(inverse.__getitem__, piece))
        elif fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            table[token] = bytes([int(piece[3:5], 16)])
        else:
            table[token] = piece.replace("▁", " ").encode()
    for added in spec["added_tokens"]:
        table[added["id"]] = added["content"].encode()
    return table


def special_ids(spec: Spec) -> set[int]:
    """Ids that no admissible text may use: special added tokens and the unknown token."""
    ids = {added["id"] for added in spec["added_tokens"] if added["special"]}
    unknown = spec["model"].get("unk_token")
    if unknown is not None:
        ids.add(spec["model"]["vocab"][unknown])
    return ids


def vocab_size(spec: Spec) -> int:
    """Highest id + 1, added tokens included."""
    return int(1 + max([*spec["model"]["vocab"].values(), *(added["id"] for added in spec["added_tokens"])]))


def touched_chars(data: bytes) -> int:
    """Number of characters that a byte string has a part of."""
    return sum(byte & 0xC0 != 0x80 for byte in data) + (bool(data) and data[0] & 0xC0 == 0x80)


def longest_token(spec: Spec) -> int:
    """The most characters that an ordinary token touches."""
    special = special_ids(spec)
    return max(touched_chars(data) for token, data in token_bytes(spec).items() if token not in special)


def spellable(pool: set[int]) -> list[str]:
    """All characters whose UTF-8 bytes are all in `pool`."""

    def grow(done: bytes) -> Iterator[str]:
        need = 1 if done[0] < 0x80 else 2 if done[0] < 0xE0 else 3 if done[0] < 0xF0 else 4
        if len(done) == need:
            try:
                yield done.decode()
            except UnicodeDecodeError:
                return
        else:
            for byte in sorted(byte for byte in pool if byte & 0xC0 == 0x80):
                yield from grow(done + bytes([byte]))

    leads = sorted(byte for byte in pool if byte < 0x80 or 0xC2 <= byte < 0xF5)
    return [char for byte in leads for char in grow(bytes([byte]))]
