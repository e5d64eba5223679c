"""A toy, and the last steps in making one."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from .reading import Spec, dummy_prefix, longest_token
from .writing import added_token


@dataclass
class Toy:
    """A tiny tokenizer.

    `chars` are the characters to spell texts with (every character that the vocabulary can spell, and now
    and then one that it cannot). `look` is how many characters past the last token a witness may need
    (measured: 0 to 2, see `test_oracle`); `ahead` the number of characters an enumeration past a stem must
    add for every answer of `brute` about that stem to be right.
    """

    kind: str
    spec: Spec
    chars: list[str]
    eos: int
    look: int = 2

    @property
    def ahead(self) -> int:
        """Characters past a stem that `BruteTokenizer(max_chars=...)` needs: one token's reach and the
        witness.
        """
        return longest_token(self.spec) + self.look

    @property
    def has_dummy_prefix(self) -> bool:
        """Whether `start=True` and `start=False` differ."""
        return dummy_prefix(self.spec)

    def json(self) -> str:
        """The text of its tokenizer.json."""
        return json.dumps(self.spec, ensure_ascii=False)

    def random_text(self, rng: random.Random, max_chars: int) -> str:
        """A random text, possibly empty, possibly not admissible."""
        return "".join(rng.choice(self.chars) for _ in range(rng.randint(0, max_chars)))


def finish(kind: str, spec: Spec, chars: list[str], rng: random.Random, look: int) -> Toy:
    """Renumbers the vocabulary at random (merges need not be in id order), adds '<e>' and gives added tokens
    their ids.
    """
    model = spec["model"]
    pieces = list(model["vocab"])
    unknown = model["unk_token"]
    if rng.random() < 0.5:
        rng.shuffle(pieces)
    if rng.random() < 0.5:
        pieces.insert(0, "<e>")  # Inside the vocabulary, as in SmolLM2; otherwise behind it, as in Qwen3.
    model["vocab"] = {piece: index for index, piece in enumerate(pieces)}
    added = [*spec["added_tokens"], added_token("<e>", special=True)]
    if unknown is not None:
        added.append(added_token(unknown, special=True))
    # Hugging Face hands out ids beyond the vocabulary in the order of the list.
    new = len(pieces)
    for token in added:
        if token["content"] in model["vocab"]:
            token["id"] = model["vocab"][token["content"]]
        else:
            token["id"], new = new, new + 1
    spec["added_tokens"] = sorted(added, key=lambda token: token["id"])
    eos = next(token["id"] for token in added if token["content"] == "<e>")
    return Toy(kind, spec, chars, eos, look)
