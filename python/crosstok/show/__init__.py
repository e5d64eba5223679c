"""One scored text to look at: its student tokens, the teacher's probabilities, and the covers they are sums over.

`Scorer.show` and `Score.show` make one. What is here needs no torch; only `explain`, which makes an explanation, does.
"""

from crosstok.show.explanation import Cover, Explanation, Position, Token
from crosstok.show.page import page
from crosstok.show.shown import Shown

__all__ = ["Cover", "Explanation", "Position", "Shown", "Token", "page"]
