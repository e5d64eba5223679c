"""`Tokenizer`: a tokenizer.json and what follows from it about texts and token sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosstok import _core
from crosstok.errors import TextError
from crosstok.pretrained import Source, find, write
from crosstok.ragged import IntArray, Ragged, ids_array, one_id, whole_number


class Tokenizer:
    """A BPE tokenizer, byte-level or SentencePiece-style: immutable, picklable, safe to share between threads.

    ``start`` in its methods: the text starts a document, so that a tokenizer with a dummy prefix (Llama 2) puts
    its space there. Without it the text continues something, without a space. Other tokenizers do not care.
    """

    __slots__ = ("_bos_id", "_core", "_eos_ids")

    def __init__(self, core: _core.Tokenizer, eos_ids: Sequence[int] = (), bos_id: int | None = None) -> None:
        """For internal use; see `from_file`, `from_json` and `from_pretrained`."""
        self._core = core
        self._eos_ids = tuple(int(id) for id in eos_ids)
        self._bos_id = core.bos if bos_id is None else int(bos_id)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json.

        Raises UnsupportedTokenizerError, naming the field, for what is not supported, ValueError for a malformed
        file, OSError where it cannot be read.
        """
        return cls(_core.Tokenizer(Path(path).read_bytes()))

    @classmethod
    def from_json(cls, text: str | bytes) -> Tokenizer:
        """Read the content of a tokenizer.json. Raises UnsupportedTokenizerError and ValueError as `from_file`."""
        return cls(_core.Tokenizer(text.encode() if isinstance(text, str) else text))

    @classmethod
    def from_pretrained(cls, source: Any) -> Tokenizer:
        """Read a directory, a hub id, or a transformers tokenizer.

        A directory (or hub id) means its tokenizer.json as it stands; a transformers tokenizer means its
        ``backend_tokenizer``, which need not be the same (transformers rebuilds some). The ids that end a text
        are, in this order, the chat template's end-of-turn token, the ``eos_token``, and those of
        generation_config.json (which a transformers tokenizer does not know).

        Raises UnsupportedTokenizerError where there is no tokenizer.json, or one that is not supported, ValueError
        where it is malformed.
        """
        found: Source = find(source)
        core = _core.Tokenizer(found.tokenizer_json)
        table = _special_ids(core)
        eos = [id for name in found.eos_tokens if (id := table.get(name.encode())) is not None]
        special = set(table.values())
        eos += [id for id in found.eos_ids if id in special]
        bos = None if found.bos_token is None else table.get(found.bos_token.encode())
        return cls(core, list(dict.fromkeys(eos)), bos)

    @property
    def vocab_size(self) -> int:
        """Highest id + 1, added tokens included."""
        return self._core.vocab_size

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that affects encoding, and of nothing else."""
        return self._core.fingerprint

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a text, as far as `from_pretrained` saw any; the first stands for the event."""
        return self._eos_ids

    @property
    def bos_id(self) -> int | None:
        """The id that a text without prompt begins with; None: it begins with an end-of-text id instead."""
        return self._bos_id

    @property
    def special_ids(self) -> IntArray:
        """int64: ids of the special tokens, ascending."""
        return self._core.special_ids

    def encode(self, text: str | bytes, start: bool = False) -> IntArray:
        """Ids of a text, int64 [n], equal to Hugging Face's for completion text (docs/mathematics.md, 1).

        No special token is added, and text that spells one is ordinary text: this is for completions, and prompts are
        what the model's own tokenizer makes of them. Raises TextError for invalid UTF-8 and for text that the
        vocabulary cannot spell.
        """
        return self._core.encode(to_text(text), start)

    def encode_batch(self, texts: Sequence[str | bytes], start: bool = False, num_threads: int = 0) -> Ragged:
        """Ids of several texts, int64, in order.

        On ``num_threads`` threads (0: as many as the machine has) where the texts have 64 KiB or more together.
        Raises TextError, as `encode` does, with the index of the first text that is to blame, and TypeError for a
        single text.
        """
        if isinstance(texts, (str, bytes)):
            raise TypeError("texts must be a list of texts, not one text")
        decoded = [to_text(text, index) for index, text in enumerate(texts)]
        return Ragged(*self._core.encode_batch(decoded, start, num_threads))

    def decode(self, ids: Sequence[int] | IntArray) -> bytes:
        """Concatenate the tokens' bytes. A dummy prefix is included; no decoder of tokenizer.json is run.

        Raises ValueError for an id that no token has.
        """
        return self._core.decode(ids_array(ids))

    def token_bytes(self, id: int) -> bytes:
        """Bytes of one token; of a special token, its content. An unused id has none.

        Raises ValueError for an id that is not one of the vocabulary's.
        """
        return self._core.token_bytes(one_id(id))

    def normalize(self, text: str) -> str:
        """What the normalizer makes of a text, without dummy prefix; admissible texts come back unchanged.

        Raises TextError for a text that has no UTF-8 encoding.
        """
        return self._core.normalize(to_text(text))

    def check_admissible(self, text: str | bytes, start: bool = False) -> None:
        """Raise TextError, with byte offset and reason, unless the text is admissible (docs/mathematics.md, 1)."""
        self._core.check_admissible(to_text(text), start)

    def is_canonical(
        self, ids: Sequence[int] | IntArray, complete: bool = False, start: bool = False
    ) -> bool:
        """Whether some admissible text has an encoding that starts with ``ids`` (``complete``: that is ``ids``).

        False for ids that stand in no encoding, special ones and those beyond the vocabulary among them; raises
        ValueError for a negative id. docs/mathematics.md, 4.
        """
        return self._core.is_canonical(ids_array(ids), complete, start)

    def canonical_next(self, ids: Sequence[int] | IntArray, start: bool = False) -> npt.NDArray[np.bool_]:
        """bool [vocab_size]: tokens with which ``ids`` is still a canonical prefix; special tokens never.

        Raises NotCanonicalError if ``ids`` is none itself, ValueError for a negative id. End-of-text is not told
        here: it may follow where ``is_canonical(ids, complete=True)``.
        """
        return self._core.canonical_next(ids_array(ids), start)

    def merge_dag(self, id: int) -> list[tuple[int, int, int]]:
        """(token, left, right) of a token's own derivation: root first, each token once, leaves omitted.

        Empty for a token that no merge reaches. Raises ValueError for an id that is not one of the vocabulary's.
        docs/mathematics.md, 2.
        """
        return self._core.merge_dag(one_id(id))

    def covers(self, prefix: bytes) -> list[IntArray]:
        """Every byte cover of ``prefix``: the canonical e that spell it, but not without their last token.

        Each int64 [tokens], for texts that continue something (``start=False``); none where no text starts with
        ``prefix``, and the empty sequence alone for the empty prefix. Explicit, so for people, tests and tiny
        cases: a short prefix of a real vocabulary has thousands. docs/mathematics.md, 5.
        """
        return self._core.covers(bytes(prefix))

    def first_merges(self, n: int) -> Tokenizer:
        """The tokenizer with the first ``n`` merges only (docs/mathematics.md, fact 16); ids are renumbered.

        Kept are the tokens that no merge makes and the n, or all, that merging reaches by the merges of lowest rank.
        Added and special tokens stay, ``ignore_merges`` is switched off, and the ids that begin and end a text
        are carried over. With ``n`` of all merges it encodes as this one does, ``ignore_merges`` aside. Raises
        ValueError for a negative ``n``.
        """
        whole_number("n", n, 0)
        core, new_ids = self._core.first_merges(n)  # special tokens are always kept
        bos = None if self._bos_id is None else int(new_ids[self._bos_id])
        return Tokenizer(core, new_ids[list(self._eos_ids)].tolist(), bos)

    def to_json(self) -> bytes:
        """The tokenizer.json."""
        return self._core.to_json()

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json that Hugging Face loads.

        A path that ends in .json is that file, any other a directory, made where there is none. There what tells which
        tokens begin and end a text is written too (tokenizer_config.json, generation_config.json; what else these hold
        stays), so that `from_pretrained` and transformers' AutoTokenizer find them again.
        """
        path = Path(path)
        if path.suffix == ".json":
            path.write_bytes(self.to_json())
        else:
            path.mkdir(parents=True, exist_ok=True)
            write(path, self.to_json(), self._eos_ids, self._bos_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by content."""
        return _unpickle, (self.to_json(), self._eos_ids, self._bos_id)

    def __eq__(self, other: object) -> bool:
        """Equal encodings and equal ids that begin and end a text."""
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, tuple[int, ...], int | None]:
        return self.fingerprint, self._eos_ids, self._bos_id

    def __repr__(self) -> str:
        """Short description."""
        return f"Tokenizer(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]}…)"


def _unpickle(json: bytes, eos_ids: tuple[int, ...], bos_id: int | None) -> Tokenizer:
    return Tokenizer(_core.Tokenizer(json), eos_ids, bos_id)


def _special_ids(core: _core.Tokenizer) -> dict[bytes, int]:
    return {core.token_bytes(int(id)): int(id) for id in core.special_ids}


def to_text(text: str | bytes, index: int | None = None) -> str:
    """The text as a str that has a UTF-8 encoding. Raises TextError where there is none, TypeError for another type."""
    if not isinstance(text, (str, bytes)):
        which = "a text" if index is None else f"text {index}"
        raise TypeError(f"{which} must be a str or bytes, not {type(text).__name__}")
    if isinstance(text, bytes):
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise TextError("invalid UTF-8", index, error.start) from None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        offset = len(text[: error.start].encode())
        raise TextError("a surrogate, which UTF-8 does not have", index, offset) from None
    return text
