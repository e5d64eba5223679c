"""Teachers: from token trees to rows of log-probabilities.

protocol.py says what a teacher is, table.py is the float64 one for tests and oracles; hf.py is any causal
language model of transformers, whose parts are packed.py (many trees in one sequence), runner.py (the
forward passes) and probe.py (is the packed forward right for this model?). session.py reads trees that grow
after they were read, with kept.py for the keys and values of what was read.
"""

from crosstok.teacher.hf import HFTeacher
from crosstok.teacher.protocol import RowBlock, Teacher, TokenTree, TreeTeacher, stream_rows
from crosstok.teacher.session import Session, open_session
from crosstok.teacher.table import TableTeacher

__all__ = [
    "HFTeacher",
    "RowBlock",
    "Session",
    "TableTeacher",
    "Teacher",
    "TokenTree",
    "TreeTeacher",
    "open_session",
    "stream_rows",
]
