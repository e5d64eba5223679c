"""Train the teacher and write the two tokenizers that ``crosstok demo`` ships.

    python scripts/train_demo.py            # four to six minutes on one core, writes python/crosstok/demo/

The text is Python's own language documentation as every CPython carries it (``pydoc_data.topics``,
under the PSF licence), cleaned a little: wrapped lines are joined, emphasis marks are dropped, grammar
rules, interpreter sessions and headings are left out, every paragraph is kept once. One paragraph is one
text: the model reads ``<|endoftext|> paragraph <|endoftext|>``, so that the end of a text has a
probability that means something.

The result is the same from run to run on one machine with one version of Python and torch; another
version of Python has other documentation. It is a toy: it exists so that the demo needs no download.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import random
import re
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

END = "<|endoftext|>"
VOCAB_SIZE = 1500
STUDENT_MERGES = 400
MAX_TOKENS = 160
NOISE = 0.1
SEED = 20251214
OUT = Path(__file__).resolve().parent.parent / "python" / "crosstok" / "demo"

# Each turn is "role: text", the assistant's ended as every text is: enough to show `crosstok score` on chats.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def paragraphs() -> list[str]:
    """Return the cleaned paragraphs of the documentation, each once, in a fixed order."""
    seen: dict[str, None] = {}
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            if "::=" in block or ">>>" in block or "(Pdb)" in block or re.search(r"[*=~^-]{4,}", block):
                continue
            text = re.sub(r"(?<!\w)(\*{1,2})([A-Za-z_][^*]*?)\1(?!\w)", r"\2", " ".join(block.split()))
            text = re.sub(r"^(\* |[0-9IVX]+\. )", "", text)
            if 30 <= len(text) <= 600 and re.match(r'["(\w]', text) and text[-1] in ".:?!)":
                seen.setdefault(text)
    return list(seen)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's pattern; id 0 is the end of a text, then the 256 bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def cut_merges(tokenizer_json: dict[str, Any], merges: int) -> dict[str, Any]:
    """Return the tokenizer that stops after the first ``merges`` merges, ids renumbered from 0.

    A plain cut is enough for a trained BPE whose every token comes from one merge and whose merges are in
    id order, as here; for any other tokenizer use ``crosstok.Tokenizer.first_merges``.
    """
    cut: dict[str, Any] = json.loads(json.dumps(tokenizer_json))
    model = cut["model"]
    products = {"".join(pair) for pair in model["merges"]}
    model["merges"] = model["merges"][:merges]
    kept = {"".join(pair) for pair in model["merges"]}
    by_id = sorted(model["vocab"], key=model["vocab"].__getitem__)
    model["vocab"] = {
        token: index for index, token in enumerate(t for t in by_id if t in kept or t not in products)
    }
    for added in cut["added_tokens"]:
        added["id"] = model["vocab"][added["content"]]
    return cut


def batches(rows: list[list[int]], size: int, rng: random.Random) -> list[torch.Tensor]:
    """Group rows of like length into batches [rows, length], padded with -1, in random order."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), rng.random()))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(groups)
    out = []
    for group in groups:
        width = max(len(rows[i]) for i in group)
        out.append(torch.tensor([rows[i] + [-1] * (width - len(rows[i])) for i in group]))
    return out


def loss_sum(model: LlamaForCausalLM, batch: torch.Tensor, noise: float = 0.0) -> tuple[torch.Tensor, int]:
    """Return the summed next-token loss in nats, and the number of tokens predicted.

    ``noise``: the share of input tokens that are replaced at random, against learning the text by heart.
    """
    # Padding is on the right and attention causal, so no mask is needed: padded positions have no loss.
    seen = batch.clamp(min=0)[:, :-1]
    seen = torch.where(
        torch.rand(seen.shape) < noise, torch.randint(model.config.vocab_size, seen.shape), seen
    )
    logits = model(input_ids=seen, use_cache=False).logits
    target = batch[:, 1:].reshape(-1)
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(len(target), -1).float(), target, ignore_index=-1, reduction="sum"
    )
    return loss, int((target >= 0).sum())


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Return the mean loss in nats a token."""
    model.train(False)
    sums = [loss_sum(model, batch) for batch in batches(rows, 32, random.Random(0))]
    model.train()
    return sum(loss.item() for loss, _ in sums) / sum(count for _, count in sums)


def new_model(vocab_size: int) -> LlamaForCausalLM:
    """Return the untrained teacher: about a million weights, embeddings tied."""
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=144, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, attention_dropout=0.1,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, rows: list[list[int]], held_out: list[list[int]], epochs: int) -> None:
    """Train in place with AdamW and one cosine; keep the weights that do best on ``held_out``."""
    rng = random.Random(SEED)
    steps = epochs * math.ceil(len(rows) / 8)
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, 0.02 + 0.98 * (1 + math.cos(math.pi * s / steps)) / 2)
    )
    best: tuple[float, dict[str, torch.Tensor]] = (math.inf, {})
    start = time.perf_counter()
    for epoch in range(epochs):
        total, count = 0.0, 0
        for batch in batches(rows, 8, rng):
            loss, tokens = loss_sum(model, batch, noise=NOISE)
            torch.autograd.backward(loss / tokens)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total, count = total + loss.item(), count + tokens
        valid = evaluate(model, held_out)
        if valid < best[0]:
            best = (valid, {name: value.clone() for name, value in model.state_dict().items()})
        print(f"epoch {epoch + 1}: train {total / count:.3f}, held out {valid:.3f},", end=" ")
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    model.load_state_dict(best[1])


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as JSON, one line a field, non-ASCII kept."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizers(tokenizer: Tokenizer, out: Path) -> None:
    """Write the teacher's tokenizer to ``out`` and the student's, its first merges, to ``out/student``."""
    full = json.loads(tokenizer.to_str())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": None, "pad_token": END,
        "clean_up_tokenization_spaces": False, "model_max_length": 1024, "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    for folder, value in ((out, full), (out / "student", cut_merges(full, STUDENT_MERGES))):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "generation_config.json", {"eos_token_id": 0})


def write_model(model: LlamaForCausalLM, out: Path) -> None:
    """Write the weights as float16 and a config.json that loads them as float32."""
    torch.nn.Module.to(model, torch.float16)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # written for its owner alone; packages keep the mode
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    config["attention_dropout"] = 0.0
    config.pop("_name_or_path", None)
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", {"eos_token_id": 0})


def write_licence(texts: list[str], out: Path, report: str) -> None:
    """Say where the text comes from, and give its licence."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    licence = Path(
        sys.base_prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "LICENSE.txt"
    )
    body = licence.read_text(encoding="utf-8")
    start = body.index("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2")
    end = body.index("BEOPEN.COM LICENSE AGREEMENT", start)
    (out / "LICENSE-TEXT").write_text(
        f"""\
The model and the tokenizers in this folder were trained by scripts/train_demo.py on the documentation
that CPython {platform.python_version()} carries in its standard library (module
pydoc_data.topics), cleaned: wrapped lines joined, emphasis marks, grammar rules, interpreter sessions and
headings left out, every paragraph kept once.
{len(texts)} paragraphs, {sum(map(len, texts))} characters, SHA-256 of the paragraphs joined by newlines:
{digest}
{report}

That documentation is Copyright (c) Python Software Foundation, All Rights Reserved, and is used under the
licence below. Nothing here is endorsed by the Python Software Foundation.

{body[start:end].rstrip().rstrip("-=").rstrip()}
""",
        encoding="utf-8",
    )


def main() -> None:
    """Train, write, and print the sizes and the losses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    texts = paragraphs()
    tokenizer = train_tokenizer(texts)
    rows = [[0, *tokenizer.encode(text).ids, 0] for text in texts]
    rows = [row for row in rows if len(row) <= MAX_TOKENS]
    random.Random(SEED).shuffle(rows)
    held_out, rest = rows[: len(rows) // 20], rows[len(rows) // 20 :]
    print(f"{len(texts)} paragraphs, {len(rest)} for training, {sum(map(len, rest))} tokens")
    model = new_model(tokenizer.get_vocab_size())
    print(f"{sum(p.numel() for p in model.parameters())} weights")
    train(model, rest, held_out, options.epochs)
    write_tokenizers(tokenizer, options.out)
    write_model(model, options.out)
    torch.nn.Module.to(model, torch.float32)
    report = (
        f"Loss of the model as stored, in nats a token: {evaluate(model, rest):.3f} on the\n"
        f"paragraphs it was trained on, {evaluate(model, held_out):.3f} on the {len(held_out)} held out."
    )
    write_licence(texts, options.out, report)
    print(report)
    for path in sorted(options.out.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:>9}  {path.relative_to(options.out)}")


if __name__ == "__main__":
    main()
