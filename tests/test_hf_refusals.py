"""HFTeacher: what it refuses, and when."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch")

from crosstok.errors import TeacherError
from crosstok.teacher import HFTeacher
from hf_models import collect, forest, make, one, torch

pytestmark = pytest.mark.usefixtures("one_thread")


def test_refusals_come_before_any_forward(llama_teacher: HFTeacher) -> None:
    with pytest.raises(TeacherError, match="at least one prompt token"):
        llama_teacher.stream(one((), [1]))
    with pytest.raises(TeacherError, match="at least one prompt token"):
        llama_teacher.rows([(1,), ()])
    with pytest.raises(TeacherError, match="513 tokens, 1 of them the prompt's: the model has 512"):
        llama_teacher.stream(one((1,), [1] * 512))
    with pytest.raises(TeacherError, match="513 tokens"):
        llama_teacher.rows([(1,) * 513])
    with pytest.raises(TeacherError, match="token id 101: the model has 101"):
        llama_teacher.stream(one((1,), [100, 101]))
    with pytest.raises(TeacherError, match="token id -1"):
        llama_teacher.rows([(1, -1)])
    assert collect(llama_teacher.stream(one((1,), [1] * 511)), one((1,), [1] * 511))
    assert list(llama_teacher.stream([])) == []


def test_padded_head_and_short_head() -> None:
    model = make("llama", vocab_size=128)
    assert HFTeacher(model).vocab_size == 128
    model.model.embed_tokens = torch.nn.Embedding(90, 32)  # fewer embeddings than logits
    with pytest.raises(TeacherError, match="token id 90"):
        HFTeacher(model).stream(one((1,), [90]))


def test_other_attention_is_refused() -> None:
    model = make("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(TeacherError, match="flash_attention_2"):
        HFTeacher(model)


def test_bad_arguments() -> None:
    for wrong in (0, 10.5, True):
        with pytest.raises(ValueError, match="batch_tokens must be a whole number, 1 at least, not"):
            HFTeacher(make("llama"), batch_tokens=wrong)  # type: ignore[arg-type]
    for dtype in ("float33", "int8", torch.int8, "nn"):
        with pytest.raises(
            ValueError, match="dtype must be a floating dtype of torch, its name or 'auto', not"
        ):
            HFTeacher(make("llama"), dtype=dtype)
    with pytest.raises(TeacherError, match="cannot move the model to device nowhere, dtype None: "):
        HFTeacher(make("llama"), device="nowhere")
    assert HFTeacher(make("llama"), dtype="bfloat16").model.dtype == torch.bfloat16
    assert HFTeacher(make("llama"), dtype="auto").model.dtype == torch.float32
    with pytest.raises(TeacherError, match="not a transformers model"):
        HFTeacher(object())


def test_nan_weights_are_refused(llama: Any) -> None:
    model = copy.deepcopy(llama)
    teacher = HFTeacher(model)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(TeacherError, match="NaN"):
        list(teacher.stream(forest(1)))
    with pytest.raises(TeacherError, match="NaN"):
        teacher.rows([(1, 2)])
    with pytest.raises(TeacherError, match="NaN"):
        HFTeacher(model)


def test_failing_plain_forward_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    model.lm_head = torch.nn.Linear(7, 3)
    with pytest.raises(TeacherError, match="plain forward failed"):
        HFTeacher(model)
