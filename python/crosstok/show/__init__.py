"""One scored text to look at: its student tokens, the teacher's probabilities, and the covers they are sums over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crosstok.show.explanation import Cover, Explanation, Position, Token
from crosstok.show.page import page
from crosstok.show.shown import Shown

if TYPE_CHECKING:
    from crosstok.scorer import Scorer

__all__ = ["Cover", "Explanation", "Position", "Shown", "Token", "page", "show"]


def show(
    scorer: Scorer,
    text: str | bytes,
    prompt: Sequence[int] | None = None,
    ended: bool = True,
    max_covers: int = 12,
) -> Shown:
    """Score a text, with the ``max_covers`` largest covers of each student prefix, to be looked at.

    prompt: None (the text starts a document) or teacher ids. ended: end-of-text follows. Raises what
    `crosstok.show.explain.explain` does.
    """
    from crosstok.show.explain import explain  # needs torch, which looking at an explanation does not

    return Shown(explain(scorer, text, prompt, ended, max_covers))
