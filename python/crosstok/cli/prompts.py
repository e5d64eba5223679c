"""What the teacher sees before a completion: its own encoding of a prompt, or its own chat template."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from crosstok.errors import TextError

Message = dict[str, Any]


class PromptEncoder:
    """Encodes prompts as the teacher expects them, with the tokenizer that belongs to the model.

    The tokenizer of transformers is loaded when the first prompt asks for it: rows of ``text`` need none.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    @cached_property
    def tokenizer(self) -> Any:
        """The teacher's own tokenizer, from transformers."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model)

    def encode(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of ``prompt`` with the special tokens that the model wants before a text."""
        plain: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        full: list[int] = self.tokenizer(prompt)["input_ids"]
        # Some tokenizers also append an end-of-text id: the prompt goes on, so what follows it is dropped.
        for skip in range(len(full) - len(plain) + 1):
            if full[skip : skip + len(plain)] == plain:
                return tuple(full[: skip + len(plain)])
        return tuple(full)

    def chat(self, messages: list[Message]) -> tuple[tuple[int, ...], str]:
        """Return (ids of the rendered prompt, completion) of a conversation that the assistant ends.

        The completion is the last message's content. Raises TextError where the teacher's template does
        not render exactly those bytes after the prompt (it trims them, say, or puts something before).
        """
        prompt = self._render(messages[:-1], generate=True)
        completion: str = messages[-1]["content"]
        # A template may trim "yes\n" to "yes" and end the turn with "\n": the bytes would agree by accident.
        # With one more letter the end of the content is no longer white space, so what follows must be equal.
        tails = []
        for content in (completion, completion + "x"):
            whole = self._render([*messages[:-1], {**messages[-1], "content": content}], generate=False)
            if not whole.startswith(prompt):
                raise TextError(
                    "the chat template does not render the prompt as the start of the conversation"
                )
            if not whole.startswith(content, len(prompt)):
                raise TextError(
                    "the chat template does not render the completion as it is, right after the prompt"
                )
            tails.append(whole[len(prompt) + len(content) :])
        if tails[0] != tails[1]:
            raise TextError("the chat template changes the end of the completion (it trims white space)")
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return tuple(ids), completion

    def _render(self, messages: list[Message], generate: bool) -> str:
        """Return the conversation as text, special tokens included."""
        if not self.tokenizer.chat_template:
            raise TextError("the teacher has no chat template: use prompt and completion")
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # templates raise what they like, Jinja errors and others
            raise TextError(f"the chat template refuses the messages: {error}") from error
        return str(text)
