"""What the teacher sees before a completion: its own encoding of a prompt, or its own chat template."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from crosstok.errors import CrosstokError, TextError

Message = dict[str, Any]


class PromptEncoder:
    """Encodes prompts as the teacher expects them, with the tokenizer that belongs to the model.

    The tokenizer of transformers is loaded when the first prompt asks for it: rows of ``text`` need none.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    @cached_property
    def tokenizer(self) -> Any:
        """The teacher's own tokenizer, from transformers. Raises CrosstokError where it cannot be loaded."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.model)
        except (OSError, ValueError) as error:
            cause = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CrosstokError(f"{self.model}: no tokenizer for the prompts: {cause}") from error

    def load(self) -> None:
        """Load the tokenizer now, so that what is wrong with it is found before anything is scored."""
        _ = self.tokenizer

    def need_template(self) -> None:
        """Raise TextError if the teacher has no chat template."""
        if not self.tokenizer.chat_template:
            raise TextError("the teacher has no chat template: use prompt and completion")

    def encode(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of ``prompt`` with the special tokens that the model wants before a text."""
        plain, full = self._ids(prompt, special=False), self._ids(prompt, special=True)
        # Some tokenizers also append an end-of-text id: the prompt goes on, so what follows it is dropped.
        for skip in range(len(full) - len(plain) + 1):
            if full[skip : skip + len(plain)] == plain:
                return tuple(full[: skip + len(plain)])
        return tuple(full)

    def chat(self, messages: list[Message]) -> tuple[int, ...]:
        """Return the ids of the rendered prompt of a conversation that the assistant ends.

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
        return tuple(self._ids(prompt, special=False))

    def _render(self, messages: list[Message], generate: bool) -> str:
        """Return the conversation as text, special tokens included."""
        self.need_template()
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # templates raise what they like, Jinja errors and others
            raise TextError(f"the chat template refuses the messages: {error}") from error
        return str(text)

    def _ids(self, text: str, special: bool) -> list[int]:
        """Encode without a warning about the length: the model says by itself what does not fit."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids
