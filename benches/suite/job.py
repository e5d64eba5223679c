"""A teacher with the answers that it is to score, each after its question as chat prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crosstok as ct
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from .inputs import Chat


@dataclass
class Job:
    """The teacher with texts and prompts (teacher ids)."""

    model: Any
    teacher: ct.HFTeacher
    tokenizer: ct.Tokenizer
    texts: list[str]
    prompts: list[list[int]]

    @classmethod
    def load(cls, folder: Path, chats: Sequence[Chat], device: str, dtype: str) -> Job:
        """Read model and tokenizer of a model directory; its chat template renders the questions."""
        model = load_model(folder, dtype)
        model.to(device)
        template: Any = AutoTokenizer.from_pretrained(folder)
        prompts = [
            template.apply_chat_template(chat[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
            for chat in chats
        ]
        tokenizer = ct.Tokenizer.from_pretrained(folder)
        return cls(model, ct.HFTeacher(model), tokenizer, [chat[-1]["content"] for chat in chats], prompts)

    def student(self, merges: int | None) -> ct.Tokenizer:
        """The student of the first ``merges`` merges; None: of all."""
        return self.tokenizer.first_merges(1 << 30 if merges is None else merges)

    def scorer(self, merges: int | None) -> ct.Scorer:
        """A scorer for that student."""
        return ct.Scorer(self.teacher, ct.Pair(self.tokenizer, self.student(merges)))


def load_model(folder: Path, dtype: str) -> Any:
    """The model of a directory, on the CPU; ``dtype`` is a name of torch's. No progress bar among the figures."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
