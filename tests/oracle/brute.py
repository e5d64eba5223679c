"""Canonical prefixes and covers of one tokenizer, by enumeration of texts.

Design.md, section 2, word by word. A question about a byte string `x` (the *stem*) is answered from all
texts that start with `x` and go on for at most `max_chars` characters: every continuation is written out,
encoded by Hugging Face, dropped if it is not admissible, and the definition is read off the encodings that
are left.

How far to go on. A prefix is canonical if *some* text yields it, and that text may be longer than the
prefix. The answer is right when the enumeration passes the end of the prefix by the characters a witness
needs (`Toy.look`: what the pretokenizer looks at, plus what whole-pretoken look-up needs); `canonical_next`
and `covers` reach one token further than their stem. So `max_chars` must be at least the longest token plus
`look`, which is `Toy.ahead`. Counted from the empty text instead, as `texts` does: among the texts of at
most `max_chars` characters, answers are right for the prefixes of at most `max_chars - ahead` characters,
which `safe_prefixes` lists.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Sequence

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer

from . import toys

Ids = tuple[int, ...]


@functools.lru_cache(maxsize=8)
def _loaded(spec: str) -> tuple[Tokenizer, dict[str, Ids | None]]:
    """Hugging Face's tokenizer of a file, and what `encode_all` has found so far: a file is often asked twice."""
    tokenizer = Tokenizer.from_str(spec)
    tokenizer.encode_special_tokens = True
    return tokenizer, {}


class BruteTokenizer:
    """One tokenizer, known only through what Hugging Face makes of whole texts.

    `start=True` encodes texts as the beginning of a document, with the dummy prefix where the tokenizer has
    one. Stems are then still texts: the dummy prefix is part of ids and `decode`, never of a stem
    (`text_bytes` takes it off).
    """

    def __init__(self, spec: toys.Spec, chars: Sequence[str], max_chars: int, start: bool = False) -> None:
        self.spec = spec
        self.chars = list(chars)
        self.max_chars = max_chars
        self.dummy = start and toys.dummy_prefix(spec)
        self.vocab_size = toys.vocab_size(spec)
        self.token_bytes = toys.token_bytes(spec)
        self.special = toys.special_ids(spec)
        self._spaces = any(part["type"] == "Replace" for part in toys.normalizers(spec)) or any(
            part["type"] == "Metaspace" for part in toys.pretokenizers(spec)
        )
        self._forms = [part["type"] for part in toys.normalizers(spec) if part["type"].startswith("NF")]
        self._hf, self._encoded = _loaded(json.dumps(spec if self.dummy else toys.without_dummy_prefix(spec)))
        self._stems: dict[bytes, dict[str, Ids]] = {}

    # --- texts ---

    def decode(self, ids: Sequence[int]) -> bytes:
        """Concatenation of the tokens' bytes, dummy prefix included."""
        return b"".join(map(self.token_bytes.__getitem__, ids))

    def text_bytes(self, ids: Sequence[int]) -> bytes | None:
        """The part of a text that `ids` spell: `decode` without the dummy prefix. None if that prefix is
        wrong.
        """
        data = self.decode(ids)
        if self.dummy and data:
            return data[1:] if data.startswith(b" ") else None
        return data

    def _judge(self, text: str, ids: Ids) -> Ids | None:
        """`ids` if the text is admissible, else None."""
        if self._spaces and "▁" in text:
            return None
        if self._forms and self._hf.normalizer.normalize_str(text) != text:
            return None
        if not self.special.isdisjoint(ids):
            return None
        # An empty text has no dummy prefix in Hugging Face. A text whose own space was taken for the dummy
        # prefix (Metaspace) decodes to itself without one, and is not admissible: its ids are those of the
        # text without that space.
        expected = (b" " if self.dummy and text else b"") + text.encode()
        return ids if self.decode(ids) == expected else None

    def encode_all(self, texts: Sequence[str]) -> dict[str, Ids | None]:
        """The encodings of many texts; None for those that are not admissible."""
        new = [text for text in dict.fromkeys(texts) if text not in self._encoded]
        for text, encoding in zip(
            new, self._hf.encode_batch_fast(new, add_special_tokens=False), strict=True
        ):
            self._encoded[text] = self._judge(text, tuple(encoding.ids))
        return {text: self._encoded[text] for text in texts}

    def encode(self, text: str) -> Ids | None:
        """The encoding of an admissible text; None if the text is not admissible."""
        if text not in self._encoded:
            self.encode_all([text])
        return self._encoded[text]

    def reaching(self, encoding: Ids, size: int) -> int:
        """How many tokens of an admissible encoding it takes to spell the first `size` bytes of its text."""
        wanted = size + self.dummy if size else 0
        count = spelled = 0
        while spelled < wanted:
            spelled += len(self.token_bytes[encoding[count]])
            count += 1
        return count

    def raw_encode(self, text: str) -> Ids:
        """What Hugging Face gives, admissible or not."""
        return tuple(self._hf.encode(text, add_special_tokens=False).ids)

    def texts_from(self, stem: bytes) -> dict[str, Ids]:
        """All admissible texts that start with `stem` and have at most `max_chars` further characters,
        encoded.

        A stem that ends inside a character is completed in every way that `chars` allows (the completed
        character is not counted). A stem that no character completes, or that is not UTF-8, starts no text.
        """
        if stem not in self._stems:
            texts = [
                head + "".join(tail)
                for head in complete(stem, self.chars)
                for length in range(self.max_chars + 1)
                for tail in itertools.product(self.chars, repeat=length)
            ]
            encoded = self.encode_all(texts)
            self._stems[stem] = {text: ids for text, ids in encoded.items() if ids is not None}
        return self._stems[stem]

    @property
    def texts(self) -> dict[str, Ids]:
        """All admissible texts of at most `max_chars` characters, encoded."""
        return self.texts_from(b"")

    def safe_prefixes(self, ahead: int) -> list[bytes]:
        """Byte prefixes of `texts` that are short enough to be judged from `texts` alone (see the module's
        docstring).
        """
        longest = max(0, self.max_chars - ahead)
        heads = (text.encode() for text in self.texts if len(text) <= longest)
        return sorted({head[:cut] for head in heads for cut in range(len(head) + 1)})

    # --- definitions ---

    def _texts_of(self, ids: Ids) -> dict[str, Ids]:
        """The enumerated texts that could have an encoding starting with `ids`."""
        stem = self.text_bytes(ids)
        return {} if stem is None or any(token in self.special for token in ids) else self.texts_from(stem)

    def is_canonical(self, ids: Sequence[int], complete: bool = False) -> bool:
        """Prefix: some admissible text has an encoding that starts with `ids`. Complete: some has just that
        encoding.
        """
        ids = tuple(ids)
        encodings = self._texts_of(ids).values()
        if complete:
            return any(encoding == ids for encoding in encodings)
        return any(encoding[: len(ids)] == ids for encoding in encodings)

    def canonical_next(self, ids: Sequence[int]) -> tuple[set[int], bool]:
        """The tokens u for which ids·u is a canonical prefix, and whether `ids` is canonical as a complete
        sequence.
        """
        ids = tuple(ids)
        longer = [encoding for encoding in self._texts_of(ids).values() if encoding[: len(ids)] == ids]
        return {encoding[len(ids)] for encoding in longer if len(encoding) > len(ids)}, ids in longer

    def covers(self, prefix: bytes) -> set[Ids]:
        """Covers of a byte string: canonical e with `prefix` a prefix of e's bytes, and of no shorter e's.

        Every text that starts with `prefix` has exactly one cover among the prefixes of its encoding: the
        shortest one whose bytes reach the end of `prefix`. The covers are all that occur. (With start=True
        the dummy prefix does not count, so that `covers(b"")` is `{()}` there too.)
        """
        encodings = self.texts_from(prefix).values()
        return {encoding[: self.reaching(encoding, len(prefix))] for encoding in encodings}


def complete(stem: bytes, chars: Sequence[str]) -> list[str]:
    """The stem as text; if it ends inside a character, once with each character of `chars` that fits."""
    for cut in range(min(3, len(stem)) + 1):
        head, tail = stem[: len(stem) - cut], stem[len(stem) - cut :]
        try:
            text = head.decode()
        except UnicodeDecodeError:
            continue
        return [text] if not tail else [text + char for char in chars if char.encode().startswith(tail)]
    return []
