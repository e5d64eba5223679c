"""Random tiny `tokenizer.json` files.

Each kind sets one family of traps of edge_cases.md: a pretokenizer that looks ahead, byte fallback, several
derivations a token, whole-pretoken look-up, and so on. A toy is small enough that all its texts of five or
six characters can be enumerated (`brute`), and its list of characters is *closed*: every character that the
vocabulary can spell is in the list, so that an enumeration over the list misses no text. Closedness is why
the multi-byte characters below repeat their continuation byte (佽 is E4 BD BD): the bytes of 你 alone would
spell four characters, those of 🙂 eighteen.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

Spec = dict[str, Any]

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)

KINDS = (
    "plain",
    "gpt2",
    "qwen",
    "llama3",
    "sentencepiece",
    "sentencepiece_fallback",
    "derivations",
    "ignore_merges",
    "improper",
    "added",
    "nfc",
    "digits_sequence",
    "deepseek",
)

MAX_TOKEN_CHARS = 3
"""No token touches more characters than this. It bounds how far a token reaches past a prefix, and with it
how many characters an enumeration must add (`Toy.look` says how many more the pretokenizer can ask for)."""

CEDILLA, ACUTE = "\u0327", "\u0301"

# Alphabets that make the branches of the patterns matter. One is drawn, then sometimes a character is
# swapped.
_BRANCHY = (
    ("a", " ", "1"),
    ("a", " ", "\n"),
    ("a", " ", "!"),
    ("'", "s", "a"),
    ("'", "l", " "),
    ("'", "s", " ", "1"),
    ("a", " ", "1", "\n"),
    ("a", " ", "!", "\n"),
    ("a", "\n", "!"),
    ("1", " ", "!"),
    (" ", "\n", "é"),
    ("a", " ", "\u3000"),
    ("a", " ", "\u00a0"),
    ("a", "1", "½"),
    ("é", " ", "佽"),
    ("a", "𝝝", " "),
    ("é", "½", " "),
    ("a", " ", "\r", "\n"),
)
_LETTERS = (
    ("a", "b", "é"),
    ("a", "b"),
    ("a", "b", " "),
    ("a", "佽"),
    ("a", "b", "c"),
    ("é", "½"),
    ("a", "𝝝"),
)
_CJK = (
    ("佽", "a", " "),
    ("佽", "1", " "),
    ("佽", "ぁ", "a"),
    ("佽", "!", "a"),
    ("1", " ", "a"),
    ("!", "a", "\n"),
    ("佽", " ", "\n"),
    ("ぁ", "!", " "),
    ("1", "佽", "½"),
)
_DIGITS = (
    ("1", " ", "a"),
    ("1", "2", " "),
    ("1", "½", "a"),
    ("1", " ", "\n"),
    ("1", "'", "s"),
    ("½", " ", "!"),
    ("1", " ", "'", "l"),
)
_COMBINING = (
    ("a", CEDILLA, ACUTE),
    ("a", "e", CEDILLA, ACUTE),
    ("e", "é", ACUTE),
    ("e", ACUTE, " "),
    ("c", CEDILLA, ACUTE),
)


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
    notes: list[str] = field(default_factory=list)

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


def byte_alphabet() -> dict[int, str]:
    """The visible character that byte-level BPE writes for each byte (GPT-2's `bytes_to_unicode`)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in visible}
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(256 + len(alphabet) - len(visible))
    return alphabet


def pretokenizers(spec: Spec) -> Iterator[Spec]:
    """All pretokenizers of a spec, Sequences flattened."""

    def walk(node: Spec | None) -> Iterator[Spec]:
        if node is not None:
            if node["type"] == "Sequence":
                for part in node["pretokenizers"]:
                    yield from walk(part)
            else:
                yield node

    yield from walk(spec.get("pre_tokenizer"))


def normalizers(spec: Spec) -> Iterator[Spec]:
    """All normalizers of a spec, Sequences flattened."""

    def walk(node: Spec | None) -> Iterator[Spec]:
        if node is not None:
            if node["type"] == "Sequence":
                for part in node["normalizers"]:
                    yield from walk(part)
            else:
                yield node

    yield from walk(spec.get("normalizer"))


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
    spec = json.loads(json.dumps(spec))
    kept = [part for part in normalizers(spec) if part["type"] != "Prepend"]
    spec["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for part in pretokenizers(spec):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
    return spec


def token_bytes(spec: Spec) -> dict[int, bytes]:
    """The bytes of every id, from the strings of the vocabulary (never from the file's decoder, which strips
    spaces).
    """
    inverse = {char: byte for byte, char in byte_alphabet().items()}
    byte_level = is_byte_level(spec)
    fallback = bool(spec["model"].get("byte_fallback"))
    table: dict[int, bytes] = {}
    for piece, token in spec["model"]["vocab"].items():
        if byte_level and all(char in inverse for char in piece):
            table[token] = bytes(inverse[char] for char in piece)
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


# --- building blocks
# ---------------------------------------------------------------------------------------------------


def _added(content: str, *, special: bool, normalized: bool = False) -> Spec:
    """An added token, its id still open."""
    return {
        "id": -1,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": special,
    }


def _split(pattern: str) -> Spec:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _byte_level(use_regex: bool) -> Spec:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _sequence(*parts: Spec) -> Spec:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def _metaspace(scheme: str, split: bool) -> Spec:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def _replace() -> Spec:
    return {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def _spec(
    pieces: Iterable[str], pre_tokenizer: Spec | None, normalizer: Spec | None = None, **model: Any
) -> Spec:
    """A spec without merges; ids in the order of `pieces`."""
    base: Spec = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {piece: index for index, piece in enumerate(pieces)},
        "merges": [],
    }
    base.update(model)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": base,
    }


def _pieces(spec: Spec, chars: list[str], rng: random.Random, count: int = 60) -> list[list[str]]:
    """Random pretokens, each as the list of its symbols. What merges are drawn from, so that most of them
    can ever apply.
    """
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    vocab = spec["model"]["vocab"]
    found: list[list[str]] = []
    for _ in range(count):
        text = "".join(rng.choice(chars) for _ in range(rng.randint(2, 6)))
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        pieces = [text]
        if tokenizer.pre_tokenizer is not None:
            pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        found.extend(list(piece) for piece in pieces if all(char in vocab for char in piece))
    return found


def _apply(symbols: list[str], left: str, right: str) -> list[str]:
    """Merges every occurrence of a pair, left to right."""
    out: list[str] = []
    for symbol in symbols:
        if out and out[-1] == left and symbol == right:
            out[-1] = left + right
        else:
            out.append(symbol)
    return out


def _span(piece: str, byte_level: bool) -> int:
    """Characters that a piece of the vocabulary touches."""
    if not byte_level:
        return len(piece)
    inverse = {char: byte for byte, char in byte_alphabet().items()}
    return touched_chars(bytes(inverse[char] for char in piece))


def _add_merges(spec: Spec, chars: list[str], rng: random.Random, count: int, wild: float = 0.25) -> None:
    """Appends up to `count` random merges.

    Most are pairs that stand side by side in random pretokens (the most frequent ones in half of the toys,
    as training would take them); a share of `wild` joins any two tokens, whether or not they ever meet.
    """
    model, byte_level = spec["model"], is_byte_level(spec)
    vocab, merges = model["vocab"], model["merges"]
    corpus = _pieces(spec, chars, rng)
    trained = rng.random() < 0.5
    alphabet = [piece for piece in vocab if len(piece) == 1]
    tokens = list(alphabet)
    for _ in range(count * 3):
        if len(merges) >= count:
            return
        pairs = Counter(pair for symbols in corpus for pair in pairwise(symbols))
        pairs = Counter(
            {pair: n for pair, n in pairs.items() if _span("".join(pair), byte_level) <= MAX_TOKEN_CHARS}
        )
        if rng.random() < wild or not pairs:
            left, right = rng.choice(tokens), rng.choice(tokens)
        elif trained:
            (left, right), _ = pairs.most_common(1)[0]
        else:
            left, right = rng.choice(sorted(pairs))
        product = left + right
        if [left, right] in merges or _span(product, byte_level) > MAX_TOKEN_CHARS or product.startswith("<"):
            continue
        merges.append([left, right])
        if product not in vocab:
            vocab[product] = len(vocab)
            tokens.append(product)
        corpus = [_apply(symbols, left, right) for symbols in corpus]


def _add_derivations(spec: Spec, rng: random.Random, count: int) -> int:
    """Adds further merges that make tokens that are there already. Returns how many it found."""
    model = spec["model"]
    vocab, merges = model["vocab"], model["merges"]
    options = [
        [piece[:cut], piece[cut:]]
        for piece in vocab
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab and [piece[:cut], piece[cut:]] not in merges
    ]
    rng.shuffle(options)
    for pair in options[:count]:
        merges.insert(rng.randint(0, len(merges)), pair)
    return len(options[:count])


def _add_unreachable(spec: Spec, chars: list[str], rng: random.Random, count: int) -> None:
    """Adds tokens that no merge makes: runs of symbols of random pretokens, whole pretokens among them."""
    vocab = spec["model"]["vocab"]
    runs = sorted(
        {
            "".join(symbols[:n])
            for symbols in _pieces(spec, chars, rng)
            for n in range(2, len(symbols) + 1)
            if _span("".join(symbols[:n]), True) <= MAX_TOKEN_CHARS
        }
        - set(vocab)
    )
    for piece in rng.sample(runs, min(count, len(runs))):
        vocab[piece] = len(vocab)


def _finish(kind: str, spec: Spec, chars: list[str], rng: random.Random, look: int, notes: list[str]) -> Toy:
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
    added = [*spec["added_tokens"], _added("<e>", special=True)]
    if unknown is not None:
        added.append(_added(unknown, special=True))
    # Hugging Face hands out ids beyond the vocabulary in the order of the list.
    new = len(pieces)
    for token in added:
        if token["content"] in model["vocab"]:
            token["id"] = model["vocab"][token["content"]]
        else:
            token["id"], new = new, new + 1
    spec["added_tokens"] = sorted(added, key=lambda token: token["id"])
    eos = next(token["id"] for token in added if token["content"] == "<e>")
    return Toy(kind, spec, chars, eos, look, notes)


def _byte_pieces(chars: Iterable[str], rng: random.Random, drop: float = 0.2) -> tuple[list[str], list[str]]:
    """The byte alphabet of `chars` and the closed list of characters.

    With probability `drop` one byte is left out of the vocabulary: the characters that need it stay in the
    list, cannot be spelled, and so can never be the witness of a prefix.
    """
    wanted = list(chars)
    pool = {byte for char in wanted for byte in char.encode()}
    if len(wanted) > 2 and rng.random() < drop:
        pool.discard(rng.choice(sorted(pool)))
    closed = wanted + [char for char in spellable(pool) if char not in wanted]
    alphabet = byte_alphabet()
    return [alphabet[byte] for byte in sorted(pool)], closed


def _draw(pool: tuple[tuple[str, ...], ...], rng: random.Random) -> list[str]:
    """An alphabet, sometimes with one more character; never more than five once closed."""
    while True:
        chars = list(rng.choice(pool))
        if rng.random() < 0.3:
            extra = rng.choice(("b", " ", "\n", "1", "!", "é", "佽", "s"))
            chars += [extra] if extra not in chars else []
        if len(spellable({byte for char in chars for byte in char.encode()})) <= 5 and len(chars) <= 4:
            return chars


# --- the kinds
# ---------------------------------------------------------------------------------------------------------


def _byte_toy(
    kind: str,
    rng: random.Random,
    pool: tuple[tuple[str, ...], ...],
    pre_tokenizer: Spec,
    normalizer: Spec | None = None,
    look: int = 2,
) -> Toy:
    """A byte-level toy with random merges and nothing else."""
    pieces, chars = _byte_pieces(_draw(pool, rng), rng)
    spec = _spec(pieces, pre_tokenizer, normalizer)
    _add_merges(spec, chars, rng, rng.randint(3, 12))
    return _finish(kind, spec, chars, rng, look, [])


def _plain(rng: random.Random) -> Toy:
    return _byte_toy("plain", rng, _LETTERS + _BRANCHY, _byte_level(False), look=1)


def _gpt2(rng: random.Random) -> Toy:
    return _byte_toy("gpt2", rng, _BRANCHY, _byte_level(True))


def _qwen(rng: random.Random) -> Toy:
    return _byte_toy("qwen", rng, _BRANCHY, _sequence(_split(QWEN), _byte_level(False)))


def _llama3(rng: random.Random) -> Toy:
    return _byte_toy("llama3", rng, _BRANCHY + _DIGITS, _sequence(_split(LLAMA3), _byte_level(False)))


def _digits_sequence(rng: random.Random) -> Toy:
    digits = {"type": "Digits", "individual_digits": rng.random() < 0.5}
    return _byte_toy("digits_sequence", rng, _DIGITS, _sequence(digits, _byte_level(True)))


def _deepseek(rng: random.Random) -> Toy:
    return _byte_toy("deepseek", rng, _CJK, _sequence(*map(_split, DEEPSEEK), _byte_level(False)))


def _nfc(rng: random.Random) -> Toy:
    pre_tokenizer = rng.choice([_byte_level(False), _sequence(_split(QWEN), _byte_level(False))])
    return _byte_toy("nfc", rng, _COMBINING, pre_tokenizer, {"type": "NFC"})


def _some_byte_pretokenizer(rng: random.Random) -> Spec:
    split = [
        _byte_level(True),
        _sequence(_split(QWEN), _byte_level(False)),
        _sequence(_split(LLAMA3), _byte_level(False)),
    ]
    return rng.choice([_byte_level(False), *split])


def _derivations(rng: random.Random) -> Toy:
    while True:
        pieces, chars = _byte_pieces(_draw(_LETTERS, rng), rng, drop=0.1)
        spec = _spec(pieces, _some_byte_pretokenizer(rng))
        _add_merges(spec, chars, rng, rng.randint(5, 10))
        if _add_derivations(spec, rng, rng.randint(1, 4)):
            return _finish("derivations", spec, chars, rng, 2, [])


def _improper(rng: random.Random) -> Toy:
    while True:
        pieces, chars = _byte_pieces(_draw(_LETTERS, rng), rng, drop=0.1)
        spec = _spec(pieces, _some_byte_pretokenizer(rng))
        _add_merges(spec, chars, rng, rng.randint(5, 12), wild=0.1)
        if rng.random() < 0.3:
            _add_derivations(spec, rng, 2)
        merges = spec["model"]["merges"]
        rng.shuffle(merges)
        ranks: dict[str, int] = {}
        for rank, (left, right) in enumerate(merges):
            ranks.setdefault(left + right, rank)
        if any(ranks.get(part, -1) > rank for rank, pair in enumerate(merges) for part in pair):
            return _finish("improper", spec, chars, rng, 2, [])


def _ignore_merges(rng: random.Random) -> Toy:
    pattern = rng.choice([_byte_level(True), _sequence(_split(QWEN), _byte_level(False)), None])
    pre_tokenizer = pattern or _sequence(_split(LLAMA3), _byte_level(False))
    pieces, chars = _byte_pieces(_draw(_LETTERS + _BRANCHY, rng), rng, drop=0.1)
    spec = _spec(pieces, pre_tokenizer)
    _add_merges(spec, chars, rng, rng.randint(3, 8))
    if rng.random() < 0.3:
        rng.shuffle(spec["model"]["merges"])
    _add_unreachable(spec, chars, rng, rng.randint(1, 4))
    spec["model"]["ignore_merges"] = True
    return _finish("ignore_merges", spec, chars, rng, 3, [])


def _added_kind(rng: random.Random) -> Toy:
    """Non-special added tokens, nested and overlapping, and special ones that overlap them.

    Hugging Face finds special tokens in the text even where it is told to leave them alone, and only then
    skips them: a special token can hide a non-special one that starts later inside it or that is its
    beginning.
    """
    chars = list(
        rng.choice([("<", "a", ">", "b"), ("a", "b", " "), ("<", "a", ">"), ("a", "b", "é"), ("a", " ", "1")])
    )
    byte_level = rng.random() < 0.6
    if byte_level:
        pieces, chars = _byte_pieces(chars, rng, drop=0.1)
        normalizer = {"type": "NFC"} if rng.random() < 0.2 else None
        spec = _spec(pieces, _some_byte_pretokenizer(rng), normalizer)
    else:
        pieces = ["<unk>", *(char.replace(" ", "▁") for char in chars)]
        split = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        spec = _spec(pieces, rng.choice([None, split]), _replace(), unk_token="<unk>", fuse_unk=True)
    _add_merges(spec, chars, rng, rng.randint(3, 8))
    contents = ["<a>", "<a>b", "b<", "ab", "aa", "aba", ">b", "a>", "ba", "éa", "a1", "1", "bb"]
    if byte_level:
        contents += [" a", "a ", "  "]
    contents = [
        content for content in contents if set(content) <= set(chars) and len(content) <= MAX_TOKEN_CHARS + 1
    ]
    rng.shuffle(contents)
    plain, special = contents[: rng.randint(1, 3)], contents[3 : 3 + rng.randint(0, 2)]
    normalized = rng.random() < 0.4
    spec["added_tokens"] = [
        _added(c, special=False, normalized=normalized and rng.random() < 0.6) for c in plain
    ]
    # A special token may not be an ordinary token of the vocabulary too: its id would stand for both.
    spec["added_tokens"] += [_added(c, special=True) for c in special if c not in spec["model"]["vocab"]]
    notes = ["byte level" if byte_level else "▁"]
    return _finish("added", spec, chars, rng, 2, notes)


def _sentencepiece(rng: random.Random, fallback: bool = False) -> Toy:
    """Pieces are characters. What has none is unknown, or, with byte fallback, spelled by `<0xXX>` tokens."""
    pools = (
        ("a", "b", " "),
        ("a", " ", "é"),
        ("a", " ", "\n"),
        ("a", " ", "佽"),
        ("a", "b", " ", "1"),
        ("a", " ", "𝝝"),
    )
    wanted = list(rng.choice(pools))
    optional = [char for char in wanted if char != " "]
    missing = {char for char in optional if rng.random() < (0.6 if fallback and char > "z" else 0.15)}
    bytes_: set[int] = set()
    if fallback:
        missing = missing or {optional[-1]}
        bytes_ = {byte for char in missing for byte in char.encode()}
        if rng.random() < 0.4:  # Fallback bytes of a character that has a piece: never canonical.
            bytes_ |= set(rng.choice(optional).encode())
        if rng.random() < 0.15:
            bytes_.discard(rng.choice(sorted(bytes_)))
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in sorted(bytes_))]
    pieces += [char.replace(" ", "▁") for char in wanted if char not in missing]
    chars = wanted + [char for char in spellable(bytes_) if char not in wanted]
    choices: list[tuple[Spec | None, Spec | None]] = [
        (_replace(), None),
        (
            _replace(),
            {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        ),
        ({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, _replace()]}, None),
        (None, _metaspace(rng.choice(["always", "first", "never"]), rng.random() < 0.5)),
    ]
    normalizer, pre_tokenizer = rng.choice(choices)
    model = {"unk_token": "<unk>", "fuse_unk": rng.random() < 0.7, "byte_fallback": fallback}
    spec = _spec(pieces, pre_tokenizer, normalizer, **model)
    _add_merges(spec, chars, rng, rng.randint(3, 12), wild=0.15)
    if rng.random() < 0.3:
        _add_derivations(spec, rng, 2)
    return _finish("sentencepiece_fallback" if fallback else "sentencepiece", spec, chars, rng, 1, [])


def _sentencepiece_fallback(rng: random.Random) -> Toy:
    return _sentencepiece(rng, fallback=True)


_MAKERS = {
    "plain": _plain,
    "gpt2": _gpt2,
    "qwen": _qwen,
    "llama3": _llama3,
    "sentencepiece": _sentencepiece,
    "sentencepiece_fallback": _sentencepiece_fallback,
    "derivations": _derivations,
    "ignore_merges": _ignore_merges,
    "improper": _improper,
    "added": _added_kind,
    "nfc": _nfc,
    "digits_sequence": _digits_sequence,
    "deepseek": _deepseek,
}
assert tuple(_MAKERS) == KINDS


def make_toy(kind: str, rng: random.Random, max_texts: int | None = None) -> Toy:
    """A random toy of a kind. It loads in `tokenizers` with the ids that its spec states.

    With `max_texts` it is drawn again until the texts that an enumeration adds to a stem are no more than
    that: tests that ask about many stems stay quick with 1100.
    """
    while True:
        toy = _MAKERS[kind](rng)
        if max_texts is None or len(toy.chars) ** toy.ahead <= max_texts:
            break
    loaded = Tokenizer.from_str(toy.json())
    for added in toy.spec["added_tokens"]:
        assert loaded.token_to_id(added["content"]) == added["id"], (kind, added)
    if kind == "nfc":
        assert all(unicodedata.is_normalized("NFC", char) for char in toy.chars)
    return toy
