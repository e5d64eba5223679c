"""Random tiny `tokenizer.json` files.

Each kind sets one family of traps of edge_cases.md: a pretokenizer that looks ahead, byte fallback, several
derivations a token, whole-pretoken look-up, and so on. A toy is small enough that all its texts of five or
six characters can be enumerated (`brute`), and its list of characters is *closed*: every character that the
vocabulary can spell is in the list, so that an enumeration over the list misses no text. Closedness is why
the multi-byte characters in `alphabets` repeat their continuation byte (佽 is E4 BD BD): the bytes of 你 alone
would spell four characters, those of 🙂 eighteen.

* `reading`: questions about a tokenizer.json. `writing`: the parts of one.
* `alphabets`, `merges`: what is drawn at random. `toy`: a toy put together.
* `byte_kinds`, `sentencepiece_kinds`, `added_kind`: one maker a kind; `kinds` has them all.
"""

from .alphabets import ACUTE, CEDILLA
from .kinds import KINDS, alphabet_of, make_toy
from .merges import MAX_TOKEN_CHARS
from .reading import (
    Spec,
    byte_alphabet,
    dummy_prefix,
    is_byte_level,
    longest_token,
    normalizers,
    pretokenizers,
    special_ids,
    spellable,
    token_bytes,
    touched_chars,
    vocab_size,
    without_dummy_prefix,
)
from .toy import Toy
from .writing import (
    DEEPSEEK,
    LLAMA3,
    QWEN,
    added_token,
    bare_spec,
    byte_level,
    metaspace,
    patterns,
    prepend,
    replace,
    sequence,
    split,
)

__all__ = [
    "ACUTE",
    "CEDILLA",
    "DEEPSEEK",
    "KINDS",
    "LLAMA3",
    "MAX_TOKEN_CHARS",
    "QWEN",
    "Spec",
    "Toy",
    "added_token",
    "alphabet_of",
    "bare_spec",
    "byte_alphabet",
    "byte_level",
    "dummy_prefix",
    "is_byte_level",
    "longest_token",
    "make_toy",
    "metaspace",
    "normalizers",
    "patterns",
    "prepend",
    "pretokenizers",
    "replace",
    "sequence",
    "special_ids",
    "spellable",
    "split",
    "token_bytes",
    "touched_chars",
    "vocab_size",
    "without_dummy_prefix",
]
