"""`Tokenizer` and `Ragged` as objects: values, pickling, threads, fork, errors. Other tests judge what they compute."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import crosstok as ct
import numpy as np
import pytest

TEXTS = ["Return a copy of the string.", "", "  two  spaces ", "Ünïcode, 漢字 and 🙂\n", "x" * 500]


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(str(resources.files("crosstok"))) / "demo"


@pytest.fixture(scope="module")
def tok(folder: Path) -> ct.Tokenizer:
    return ct.Tokenizer.from_pretrained(folder)


# ---- values


def test_types_and_shapes(tok: ct.Tokenizer) -> None:
    ids = tok.encode(TEXTS[0])
    assert ids.dtype == np.int64 and ids.ndim == 1
    assert tok.decode(ids) == TEXTS[0].encode()
    assert b"".join(tok.token_bytes(int(id)) for id in ids) == TEXTS[0].encode()
    assert tok.encode(TEXTS[0].encode()).tolist() == ids.tolist()
    mask = tok.canonical_next(ids[:2])
    assert mask.dtype == np.bool_ and mask.shape == (tok.vocab_size,)
    assert mask[ids[2]] and not mask[tok.special_ids].any()
    assert tok.is_canonical(ids, complete=True)
    assert tok.encode("").shape == (0,)


def test_what_a_directory_says(tok: ct.Tokenizer, folder: Path) -> None:
    assert tok.eos_ids == (0,)
    assert tok.vocab_size == 1500
    assert tok == ct.Tokenizer.from_pretrained(str(folder))
    assert len(tok.fingerprint) == 64


def test_encode_batch(tok: ct.Tokenizer) -> None:
    batch = tok.encode_batch(TEXTS)
    assert len(batch) == len(TEXTS)
    assert [ids.tolist() for ids in batch] == [tok.encode(text).tolist() for text in TEXTS]
    assert len(tok.encode_batch([])) == 0


def test_merge_dag(tok: ct.Tokenizer) -> None:
    token = int(tok.encode(" string")[0])
    dag = tok.merge_dag(token)
    assert dag[0][0] == token
    for whole, left, right in dag:
        assert tok.token_bytes(whole) == tok.token_bytes(left) + tok.token_bytes(right)
    assert tok.merge_dag(int(tok.encode("a")[0])) == []


# ---- copies


def test_pickle_and_equality(tok: ct.Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tok))
    assert copy == tok and hash(copy) == hash(tok) and copy is not tok
    assert copy.eos_ids == tok.eos_ids and copy.bos_id == tok.bos_id
    assert copy.encode(TEXTS[3]).tolist() == tok.encode(TEXTS[3]).tolist()
    assert tok != tok.first_merges(5) and tok != "tokenizer"


def test_save_and_load(tok: ct.Tokenizer, tmp_path: Path) -> None:
    student = tok.first_merges(50)
    student.save(tmp_path)
    again = ct.Tokenizer.from_pretrained(tmp_path)
    assert again == student and again.eos_ids == student.eos_ids == (0,)
    student.save(tmp_path / "made" / "here")
    assert ct.Tokenizer.from_pretrained(tmp_path / "made" / "here") == student
    student.save(tmp_path / "file.json")
    assert ct.Tokenizer.from_file(tmp_path / "file.json").fingerprint == student.fingerprint
    assert ct.Tokenizer.from_json(student.to_json()).fingerprint == student.fingerprint


def test_transformers_knows_what_ends_a_text_of_a_saved_tokenizer(tok: ct.Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}", "eos_token": "old"}')
    tok.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == tok.eos_ids[0] and theirs.chat_template == "{{ messages }}"
    assert theirs("the texts")["input_ids"] == tok.encode("the texts").tolist()
    assert ct.Tokenizer.from_pretrained(tmp_path) == tok


def test_saving_over_another_tokenizer_leaves_none_of_its_ids(tok: ct.Tokenizer, tmp_path: Path) -> None:
    """transformers refuses to generate with an empty list, and a stale BOS would be read before texts."""
    tok.save(tmp_path)
    plain = ct.Tokenizer.from_json(tok.to_json())
    assert tok.eos_ids and not plain.eos_ids
    plain.save(tmp_path)
    assert ct.Tokenizer.from_pretrained(tmp_path) == plain
    assert "eos_token_id" not in (tmp_path / "generation_config.json").read_text()


def test_a_hub_that_is_out_of_reach_is_no_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ct.UnsupportedTokenizerError, match="nobody/nothing: We couldn't connect"):
        ct.Tokenizer.from_pretrained("nobody/nothing")


def test_a_tokenizer_cannot_be_changed(tok: ct.Tokenizer) -> None:
    with pytest.raises(AttributeError):
        tok.vocab_size = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        tok.anything = 3  # type: ignore[attr-defined]


# ---- errors


def test_text_errors_name_the_place(tok: ct.Tokenizer) -> None:
    with pytest.raises(ct.TextError, match="byte 2: invalid UTF-8"):
        tok.encode(b"ab\xff")
    with pytest.raises(ct.TextError, match="surrogate") as caught:
        tok.encode_batch(["ok", "\u00fc\ud800"])
    assert (caught.value.index, caught.value.offset) == (1, 2)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), ct.TextError)


def test_bad_ids(tok: ct.Tokenizer) -> None:
    for ids in ([1.5], [[1]], ["a"]):
        with pytest.raises(TypeError):
            tok.decode(ids)  # type: ignore[arg-type]
    for id in (-1, tok.vocab_size, 2**40):
        for read in (lambda id: tok.decode([id]), tok.token_bytes, tok.merge_dag):
            with pytest.raises(ValueError, match=r"id -?\d+ is out of range"):
                read(id)
    with pytest.raises(ct.NotCanonicalError, match="first 2 tokens"):
        tok.canonical_next([*tok.encode("a"), 0])


def test_refusals_name_the_field(tok: ct.Tokenizer) -> None:
    file = json.loads(tok.to_json())
    file["model"]["type"] = "Unigram"
    with pytest.raises(ct.UnsupportedTokenizerError, match=r"model\.type"):
        ct.Tokenizer.from_json(json.dumps(file))
    with pytest.raises((ValueError, ct.CrosstokError)):
        ct.Tokenizer.from_json("{")
    with pytest.raises(FileNotFoundError):
        ct.Tokenizer.from_file("/no/such/tokenizer.json")


# ---- threads and processes


def test_threads_share_a_tokenizer(folder: Path) -> None:
    """All tables are made while several threads ask for them."""
    fresh = ct.Tokenizer.from_pretrained(folder)
    pair = ct.Pair(fresh, fresh.first_merges(200))

    def work(seed: int) -> tuple[list[list[int]], int, int]:
        encoded = [ids.tolist() for ids in fresh.encode_batch(TEXTS * 3, num_threads=1 + seed % 3)]
        allowed = int(fresh.canonical_next(encoded[0][: seed % 5]).sum())
        return encoded, allowed, len(pair.plan(TEXTS).node_token)

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(work, range(40)))
    for seed, result in enumerate(results):
        assert result == work(seed)


def _in_child(tok: ct.Tokenizer) -> tuple[list[list[int]], int]:
    batch = [ids.tolist() for ids in tok.encode_batch(TEXTS * 200, num_threads=2)]
    return batch, len(tok.covers(b"str"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes(tok: ct.Tokenizer, method: str) -> None:
    """Parallel work in a child, also where the parent did some before it forked (data loaders do)."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{sys.platform} cannot {method}")
    here = _in_child(tok)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(_in_child, [tok, tok]).get(timeout=120) == [here, here]


# ---- Ragged


def test_ragged() -> None:
    ragged = ct.Ragged.of([[1, 2], [], np.array([3], dtype=np.int32)])
    assert ragged.values.tolist() == [1, 2, 3] and ragged.offsets.tolist() == [0, 2, 2, 3]
    assert ragged.values.dtype == ragged.offsets.dtype == np.int64
    assert [part.tolist() for part in ragged] == [[1, 2], [], [3]]
    assert ragged[-1].tolist() == [3] and len(ragged) == 3
    assert ct.Ragged.of(ragged) is ragged
    assert np.shares_memory(ragged[0], ragged.values)
    for index in (3, -4):
        with pytest.raises(IndexError, match="of 3"):
            ragged[index]
    assert len(ct.Ragged.of([])) == 0
    with pytest.raises(TypeError, match="integers"):
        ct.Ragged.of([[0.5]])  # type: ignore[list-item]
