"""The paper's merge recursion, exact where it holds: an independent check (docs/mathematics.md, "The merge recursion").

`merges` writes P(s) as a signed sum over byte strings, `scoring` reads it off a teacher.
"""

from crosstok.recursion.merges import check_symbols
from crosstok.recursion.scoring import BUDGET, Recursed, recursion, recursions

__all__ = ["BUDGET", "Recursed", "check_symbols", "recursion", "recursions"]
