"""Rows at the edge of what numbers hold, and tokenizers at the edge of what regimes allow. Each case was a bug once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import crosstok as ct
import numpy as np
import pytest

torch = pytest.importorskip("torch")


def tokenizer(pieces: str, merges: Sequence[str] = (), added: Sequence[tuple[str, bool]] = ()) -> Any:
    """Byte-level without pretokenizer; `<end>` is id 0. added: content, special."""
    names = list(dict.fromkeys(["<end>", *pieces, *(merge.replace(" ", "") for merge in merges)]))
    ids = {name: id for id, name in enumerate(names)}
    flags = {"normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
    tokens: list[dict[str, Any]] = [{"id": 0, "content": "<end>", "special": True, **flags}]
    for content, special in added:
        known = ids.get(content)
        id = len(names) + sum(a["id"] >= len(names) for a in tokens) if known is None else known
        tokens.append({"id": id, "content": content, "special": special, **flags})
    return ct.Tokenizer.from_json(
        json.dumps(
            {
                "added_tokens": tokens,
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
                "model": {"type": "BPE", "vocab": ids, "merges": [m.split(" ") for m in merges]},
            }
        )
    )


def normalised(logits: Sequence[float], dtype: Any = None) -> Any:
    """Log-probabilities of one row."""
    return torch.tensor(logits, dtype=dtype or torch.float64).log_softmax(-1)


class Rows:
    """A teacher of one row, in any dtype."""

    def __init__(self, logits: Sequence[float], dtype: Any) -> None:
        self.row, self.vocab_size = normalised(logits, dtype), len(logits)

    def rows(self, paths: list[tuple[int, ...]]) -> Any:
        """The same row after each path."""
        return self.row.expand(len(paths), -1)


@pytest.mark.parametrize("gap", [-800.0, -1e9])
def test_a_label_far_below_its_row_keeps_its_probability(gap: float) -> None:
    tok = tokenizer("abc", ["a b"])
    logits = [0.0, 0.0, 0.0, gap, 0.0]  # c
    scorer = ct.Scorer(ct.TableTeacher(lambda ids: normalised(logits)), ct.Pair(tok, tok, 0, 0))
    score = scorer.score(["cac"], prompts=[(1,)])[0]
    assert score.logprobs[0] == pytest.approx(gap, rel=1e-2)
    assert score.logprobs[[1, 3]] == pytest.approx([-np.log(4)] * 2)
    assert np.isfinite(score.inadmissible_mass).all()
    dense = scorer.distributions(["cac"], prompts=[(1,)])[0].logprobs
    assert dense[0, 3] == pytest.approx(score.logprobs[0], rel=1e-6)
    assert scorer.next_token([3], prompt=(1,)).logprobs[3] == pytest.approx(score.logprobs[0])


def test_float32_rows_at_a_low_temperature() -> None:
    tok = tokenizer("ab")
    scorer = ct.Scorer(Rows([0.0, 0.0, -40.0], torch.float32), ct.Pair(tok, tok, 0, 0), temperature=0.05)
    score = scorer.score(["b"], prompts=[(1,)])[0]
    assert score.logprobs[0] == pytest.approx(-800 - np.log(2), rel=1e-5)
    assert scorer.next_token([], prompt=(1,)).logprobs[2] == pytest.approx(score.logprobs[0])
    cold = ct.Scorer(Rows([0.0, 1.0, -40.0], torch.float32), ct.Pair(tok, tok, 0, 0), temperature=1e-30)
    assert cold.score(["a"], prompts=[(1,)], ended=False)[0].total == pytest.approx(0.0)
    with pytest.raises(ValueError, match="finite"):
        ct.Scorer(Rows([0.0, 0.0, 0.0], torch.float32), ct.Pair(tok, tok, 0, 0), temperature=float("inf"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_with_next_to_no_canonical_mass(dtype: Any) -> None:
    tok = tokenizer("ab", added=[("<pad>", True)])
    teacher = Rows([-800.0, -800.0, -800.0, 0.0], dtype)
    pair = ct.Pair(tok, tok, 0, 0)
    score = ct.Scorer(teacher, pair).score(["ab"], prompts=[(1,)])[0]
    assert score.logprobs == pytest.approx([-np.log(3)] * 3)
    assert score.inadmissible_mass.tolist() == [0, 0, 0]
    assert score.status.tolist() == [ct.Status.UNSUPPORTED] * 3
    masked = ct.Scorer(teacher, pair, canonical="mask").score(["ab"], prompts=[(1,)])[0]
    assert masked.logprobs == pytest.approx([-800.0] * 3)


def test_a_row_without_any_mass() -> None:
    tok = tokenizer("ab", added=[("<pad>", True)])
    rows = {1: [0.0, 0.0, 0.0, 0.0], 2: [-np.inf, -np.inf, -np.inf, 0.0]}
    teacher = ct.TableTeacher(lambda ids: normalised(rows[ids[-1]]), 4)
    score = ct.Scorer(teacher, ct.Pair(tok, tok, 0, 0)).score(["aba"], prompts=[(1,)])[0]
    assert score.logprobs[:2] == pytest.approx([-np.log(3)] * 2)
    assert np.isneginf(score.logprobs[2:]).all()
    assert score.inadmissible_mass[:3].tolist() == [0, 0, 1]
    assert score.status.tolist() == [0, 0, 4, 4]


def test_end_of_text_given_twice_is_one_event() -> None:
    tok = tokenizer("ab")
    scorer = ct.Scorer(Rows([0.0, 0.0, 0.0], torch.float64), ct.Pair(tok, tok, [0, 0], 0))
    assert scorer.next_token([], prompt=(1,)).logprobs.exp().tolist() == pytest.approx([1 / 3] * 3)


def test_a_special_token_that_goes_on_where_an_added_one_ends() -> None:
    tok = tokenizer("abxy", added=[("ab", False), ("abx", True)])
    following = np.flatnonzero(tok.canonical_next([1, 2])).tolist()
    assert following == [id for id in range(tok.vocab_size) if tok.is_canonical([1, 2, id])] == [3]
    assert tok.encode("abx").tolist() == [1, 2, 3]


def test_an_added_token_that_may_be_hidden_is_not_the_subset_regime() -> None:
    tok = tokenizer("abx", ["a b"], added=[("ab", False), ("xa", True)])
    pair = ct.Pair(tok, tok.first_merges(0), 0, 0)
    assert pair.regime == "general"
    assert "hide" in pair.reason
    with pytest.raises(ct.PlanError):
        _ = pair.spelling
    assert ct.Pair(tok, tok, 0, 0).regime == "same"


def test_special_tokens_that_hide_one_another_must_be_alike() -> None:
    added = [("cd", False), ("bc", True)]
    one, other = tokenizer("abcd", added=added), tokenizer("abcd", added=[*added, ("ab", True)])
    assert ct.Pair(one, other, 0, 0).regime == "general"


def pretrained(folder: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> Any:
    """Load a tokenizer with what lies beside it."""
    tokenizer("ab", added=[("<turn>", True), ("<go>", True)]).save(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return ct.Tokenizer.from_pretrained(folder)


def test_end_of_text_from_the_files(tmp_path: Path) -> None:
    assert pretrained(tmp_path, {}, {"eos_token_id": 0}).eos_ids == (0,)
    turns = "{% for m in messages %}<go>{{ m.role }}:{{ m.content }}<turn>{% endfor %}"
    assert pretrained(tmp_path, {"chat_template": turns}).eos_ids == (3, 0)
    # A template that does not show the answer, or fails, says nothing.
    for template in (
        "<go>{% for m in messages %}<go>{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
    ):
        assert pretrained(tmp_path, {"chat_template": template}).eos_ids == (0,)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ct.UnsupportedTokenizerError, match=r"tokenizer_config\.json: not JSON"):
        ct.Tokenizer.from_pretrained(tmp_path)


def test_saving_to_a_directory_keeps_what_is_there(tmp_path: Path) -> None:
    tok = pretrained(tmp_path, {}, {"eos_token_id": 0, "temperature": 0.6})
    tok.first_merges(0).save(tmp_path)
    kept = json.loads((tmp_path / "generation_config.json").read_text())
    assert kept == {"eos_token_id": [0], "temperature": 0.6}
