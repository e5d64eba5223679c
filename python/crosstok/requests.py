"""What a `Scorer` is asked: texts with their prompts, one by one or in batches.

Batches are formed from consecutive texts, by a budget of tokens, and never look ahead: the same texts fall into the
same batches wherever a run begins (with a batch), so that an interrupted run can go on and give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import repeat
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, TypeVar, cast

import numpy as np

from crosstok.ragged import IntArray, ids_array

Texts = Iterable[str | bytes]
Prompts = Iterable[Sequence[int] | IntArray | None] | None
Ended = bool | Iterable[bool]
T = TypeVar("T")

# Bytes of text that are taken for one token: fewer than most tokenizers pack into one, so that budgets hold.
BYTES_PER_TOKEN = 3
# Seconds that whoever leaves a stream waits for its thread: more than a plan takes. Lazy texts may block for ever.
GRACE = 5.0


@dataclass(frozen=True, eq=False)
class Request:
    """One text to score.

    prompt: teacher ids before the text; None: the text starts a document. ended: whether end-of-text follows; False
    for a completion that was cut off.
    """

    text: str | bytes
    prompt: Sequence[int] | IntArray | None = None
    ended: bool = True

    @property
    def cost(self) -> int:
        """About how many tokens a teacher reads for it: prompt, text and one end, at least 1."""
        prompt = 0 if self.prompt is None else len(self.prompt)
        return prompt + self.size // BYTES_PER_TOKEN + 1

    @property
    def size(self) -> int:
        """The text's length in bytes."""
        text = self.text
        return len(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))


def requests_of(texts: Texts, prompts: Prompts, ended: Ended) -> Iterator[Request]:
    """Put texts, prompts and flags together, lazily.

    Raises TypeError for a single text instead of several, and for a text, a prompt and flags that are none; ValueError
    where the numbers differ: at once where all have a length, otherwise at the end of the shorter one; prompts and
    flags without a length may be more, or endless.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError("texts must be a list of texts, not one text")
    if isinstance(ended, str) or not isinstance(ended, (bool, np.bool_, Iterable)):
        raise TypeError(f"ended must be True, False or one of these for each text, not {ended!r}")
    if isinstance(prompts, Mapping):
        raise TypeError(
            f"prompts must be token ids for each text, not a {type(prompts).__name__}: pass its input_ids"
        )
    for name, given in (("prompts", prompts), ("ended", ended)):
        if isinstance(given, Sized) and isinstance(texts, Sized) and len(given) != len(texts):
            raise ValueError(f"{name}: {len(given)} for {len(texts)} texts")
    prompts = repeat(None) if prompts is None else prompts
    flags = repeat(bool(ended)) if isinstance(ended, (bool, np.bool_)) else ended
    return _zipped(texts, prompts, flags)


def _zipped(
    texts: Texts, prompts: Iterable[Sequence[int] | IntArray | None], flags: Iterable[bool]
) -> Iterator[Request]:
    coming, flag_of, end, number = iter(prompts), iter(flags), object(), -1
    for number, text in enumerate(texts):
        prompt, flag = next(coming, end), next(flag_of, end)
        if prompt is end or flag is end:
            raise ValueError(f"prompts or ended: only {number}, but there are more texts")
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"text {number} must be a str or bytes, not {type(text).__name__}")
        yield Request(text, _ids(prompt, number), bool(flag))
    # Lazy ones may be endless; what has a length must have this one, or it belongs to other texts.
    for name, given in (("prompts", prompts), ("ended", flags)):
        if isinstance(given, Sized) and len(given) != number + 1:
            raise ValueError(f"{name}: {len(given)} for {number + 1} texts")


def _ids(prompt: object, number: int) -> Sequence[int] | IntArray | None:
    """A prompt, if it is token ids."""
    if prompt is None:
        return None
    kind = type(prompt).__name__
    if isinstance(prompt, Mapping):  # what transformers' tokenizers and chat templates return
        raise TypeError(f"the prompt of text {number} must be token ids, not a {kind}: pass its input_ids")
    if isinstance(prompt, (str, bytes)) or not isinstance(prompt, Sized):
        raise TypeError(f"the prompt of text {number} must be token ids, not {kind}")
    try:
        ids_array(cast("Sequence[int]", prompt))
    except (TypeError, ValueError) as error:  # numpy's own, for ragged lists
        raise TypeError(f"the prompt of text {number}: {error}") from None
    return cast("Sequence[int]", prompt)


def form_batches(
    requests: Iterable[Request], budget: int, cost: Callable[[Request], float] = lambda request: request.cost
) -> Iterator[list[Request]]:
    """Cut requests into batches that cost at most ``budget`` in all (tokens); a larger one goes alone."""
    batch: list[Request] = []
    spent = 0.0
    for request in requests:
        more = cost(request)
        if batch and spent + more > budget:
            yield batch
            batch, spent = [], 0.0
        batch.append(request)
        spent += more
    if batch:
        yield batch


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each computed in a background thread while the one before it is in use.

    An exception comes when its item is asked for, after all items before it. Whoever leaves early waits for the item
    that is being computed, but no longer than `GRACE`: what it is computed from may never come.
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    thread = Thread(target=_make, args=(items, wanted, made), name="crosstok-plan", daemon=True)
    del items  # let go of in the thread that used them
    thread.start()
    try:
        wanted.put(True)
        while (taken := made.get()) is not None:
            if isinstance(taken, BaseException):
                raise taken
            wanted.put(True)
            yield taken[0]
    finally:
        wanted.put(False)
        if thread is not current_thread():  # where the garbage collector ends us
            thread.join(GRACE)


def _make(items: Iterator[T], wanted: SimpleQueue[bool], made: SimpleQueue[Any]) -> None:
    while wanted.get():
        try:
            made.put(_take(items))
        except BaseException as error:  # noqa: PERF203 - raised where the item is asked for
            made.put(error)


def _take(items: Iterator[T]) -> tuple[T] | None:
    """The next item in a tuple (it may be anything), None at the end."""
    for item in items:
        return (item,)
    return None
