"""How far a method's numbers are from the truth, on a user's own texts: scored again to a tight tolerance.

`verify` (run.py) compares labels, and whole distributions position by position (comparison.py); `Verification`
(verification.py) is what it finds. The truth is only known to the reference's own bounds; where these stay wide a
position is listed, not dropped.
"""

from crosstok.verify.run import draw, verify
from crosstok.verify.verification import Rows, Seconds, Spread, Verification

__all__ = ["Rows", "Seconds", "Spread", "Verification", "draw", "verify"]
