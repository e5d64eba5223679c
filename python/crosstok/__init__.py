"""What a teacher language model thinks of a student's tokens, across tokenizers.

Tokenizers, pairs, plans and covers need nothing but numpy. What runs a model needs torch (``crosstok[torch]``) and is
imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crosstok._core import __version__
from crosstok.covers import CoverBatch, enumerate_covers
from crosstok.errors import (
    CrosstokError,
    NotCanonicalError,
    PlanError,
    TargetsError,
    TeacherError,
    TextError,
    UnsupportedTokenizerError,
    ZeroProbabilityError,
)
from crosstok.pair import Pair, Plan
from crosstok.ragged import Ragged
from crosstok.requests import Request
from crosstok.tokenizer import Tokenizer

if TYPE_CHECKING:
    from crosstok.results import Distributions, NextToken, Score, Status
    from crosstok.scorer import Scorer
    from crosstok.targets import SparseTargets
    from crosstok.teacher import HFTeacher, TableTeacher, Teacher

# Names that need torch, and where they are.
_LAZY = {
    "Distributions": "crosstok.results",
    "HFTeacher": "crosstok.teacher",
    "NextToken": "crosstok.results",
    "Score": "crosstok.results",
    "Scorer": "crosstok.scorer",
    "SparseTargets": "crosstok.targets",
    "Status": "crosstok.results",
    "TableTeacher": "crosstok.teacher",
    "Teacher": "crosstok.teacher",
}

# Modules that need torch, too: `crosstok.losses` after `import crosstok`.
_MODULES = ("losses", "verify")

__all__ = [
    "CoverBatch",
    "CrosstokError",
    "Distributions",
    "HFTeacher",
    "NextToken",
    "NotCanonicalError",
    "Pair",
    "Plan",
    "PlanError",
    "Ragged",
    "Request",
    "Score",
    "Scorer",
    "SparseTargets",
    "Status",
    "TableTeacher",
    "TargetsError",
    "Teacher",
    "TeacherError",
    "TextError",
    "Tokenizer",
    "UnsupportedTokenizerError",
    "ZeroProbabilityError",
    "__version__",
    "enumerate_covers",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY and name not in _MODULES:
        raise AttributeError(f"module 'crosstok' has no attribute {name!r}")
    from importlib import import_module

    try:
        if name in _MODULES:
            return import_module(f"crosstok.{name}")
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        raise ImportError(f"crosstok.{name} needs {error.name}: pip install 'crosstok[torch]'") from error


def __dir__() -> list[str]:
    return __all__
