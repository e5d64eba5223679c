"""What a `Scorer` can be made of: arguments that make no sense are refused before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from crosstok.pair import Pair
from crosstok.ragged import whole_number
from crosstok.teacher.protocol import Teacher
from crosstok.teacher.table import TableTeacher


def check_kinds(teacher: object, pair: object, method_options: object) -> None:
    """Raise TypeError for arguments of another kind; a model itself is no teacher."""
    if not isinstance(pair, Pair):
        raise TypeError(f"pair must be a Pair, not {type(pair).__name__}")
    if not callable(getattr(teacher, "rows", None)):  # a table may not know its width yet
        raise TypeError(f"teacher must be a Teacher (HFTeacher for a model), not {type(teacher).__name__}")
    if method_options is not None and not isinstance(method_options, Mapping):
        raise TypeError(f"method_options must be a mapping, not {type(method_options).__name__}")


def check_options(canonical: str, tolerance: float | None, max_rows: int | None, temperature: float) -> None:
    """Raise TypeError or ValueError for what makes no sense whatever teacher and pair are."""
    if canonical not in ("renormalize", "mask"):
        raise ValueError(f"canonical must be 'renormalize' or 'mask', not {canonical!r}")
    for name, value in (("temperature", temperature), ("tolerance", tolerance)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive and finite, not {temperature}")
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is a share of mass, not {tolerance}")
    whole_number("max_rows", max_rows, 0)
    if max_rows is not None and tolerance is None:
        raise ValueError("max_rows needs tolerance, which says when fewer rows are enough (0: never)")


def check_width(pair: Pair, width: int | None) -> None:
    """Raise ValueError for a width that is none, or that lacks a column which a distribution may need."""
    whole_number("width", width, 1)
    if width is None:
        return
    ordinary = np.setdiff1d(np.arange(pair.student.vocab_size), pair.student.special_ids)
    last = int(max([*pair.student_eos, *ordinary[-1:]]))
    if width <= last:
        token = pair.student.token_bytes(last)
        raise ValueError(f"width {width} has no column for the student's token {last} ({token!r})")


def check_tolerance(teacher: Teacher, method: str, tolerance: float, max_rows: int | None) -> None:
    """Raise ValueError where further rows would be asked for in vain, or without end."""
    if method != "auto":
        from crosstok import methods

        methods.check_name(method)
        raise ValueError(f"method {method!r} reads no further rows: leave out tolerance")
    if tolerance == 0 and max_rows is None and not isinstance(teacher, TableTeacher):
        raise ValueError("tolerance 0 needs max_rows: only a TableTeacher is read until nothing is undecided")
