"""Whole distributions on pairs small enough to do by hand: each shows one thing that random pairs show rarely."""

from __future__ import annotations

from typing import Any

import crosstok as ct
import numpy as np
import pytest
from crosstok import scorer as scorers
from oracle import toys
from test_toys_general_by_hand import _file, _pair

torch = pytest.importorskip("torch")


def _teacher(row: list[float]) -> ct.TableTeacher:
    """The same row everywhere."""
    with np.errstate(divide="ignore"):
        logs = np.log(row)
    return ct.TableTeacher(lambda ids: logs)


@pytest.mark.parametrize(("mode", "found"), [("renormalize", (3 / 7, 1 / 7)), ("mask", (0.3, 0.1))])
def test_what_the_student_cannot_spell_is_lost_before_the_first_token(
    mode: str, found: tuple[float, float]
) -> None:
    """The root of a teacher with a dummy prefix ends before the text begins: all is in after it, and c is lost."""
    metaspace = toys.metaspace("first", False)
    teacher = _file("<unk> a c ▁ ▁a ▁c", "▁+a ▁+c", pre_tokenizer=metaspace, unk_token="<unk>")
    pair = _pair(teacher, _file("a b Ġ", ""))
    scorer = ct.Scorer(_teacher([0, 0.1, 0.1, 0.1, 0.3, 0.3, 0.1]), pair, mode, tolerance=0.0)
    for text in ("", "a"):
        (rows,) = scorer.distributions([text])
        row = rows.logprobs[0].exp().numpy()
        np.testing.assert_allclose(row[row > 0], found, rtol=1e-6)
        assert rows.undecided_mass[0] < 1e-6
        following = scorer.next_token([]).logprobs.exp().numpy()
        np.testing.assert_allclose(row, following, atol=1e-6)


def test_light_children_of_the_last_node_are_drawn() -> None:
    """The correction of "a", after which "b" is too light to be looked up, but a node of the tree."""
    pair = _pair(_file("a b c", ""), _file("a b ab", "a+b"))
    corrected = []
    for row_share in (0.1, 0.0):
        options: dict[str, Any] = {"draws": 4000, "row_share": row_share}
        teacher = _teacher([0.3, 0.05, 0.6, 0.05])
        scorer = ct.Scorer(teacher, pair, method="unbiased", method_options=options)
        (rows,) = scorer.distributions(["aa"], [()])
        assert rows.correction is not None
        scale = rows.correction.scale.exp()[:, None]
        corrected.append(rows.correction.apply(rows.logprobs).numpy() * scale.numpy())
    np.testing.assert_allclose(corrected[0], corrected[1], atol=0.002)
    np.testing.assert_allclose(corrected[1][0], [0.105, 0.05, 0.015, 0.05], atol=0.002)


@pytest.mark.parametrize("options", [{}, {"top_k": 1}])
def test_errors_name_their_text_in_later_batches(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Rows are computed when they are asked for, one text after the other."""

    class Broken:
        vocab_size = 3

        def rows(self, paths: list[tuple[int, ...]]) -> Any:
            broken, fine = [np.nan, 0.0, 0.0], np.log([0.5, 0.3, 0.2]).tolist()
            return torch.tensor([broken if path[:2] == (1, 1) else fine for path in paths])

    monkeypatch.setattr(scorers, "DENSE_BYTES", 8 * 3 * 3)
    monkeypatch.setattr(scorers, "BATCH_TOKENS", 1)
    monkeypatch.setattr(scorers, "TEACHER_BATCHES", 2)
    scorer = ct.Scorer(Broken(), _pair(_file("a b", ""), _file("a b ab", "a+b")))
    found = scorer.iter_distributions(["ab", "aa", "bbb"], [(), (), ()], **options)
    assert next(found) is not None and next(found) is not None
    with pytest.raises(ct.TeacherError) as error:
        next(found)
    assert error.value.index == 2
