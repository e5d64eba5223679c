"""`distributions(top_k=...)`: the same rows, cut, with labels and bounds, for pairs of every regime."""

from __future__ import annotations

import crosstok as ct
import numpy as np
import pytest
from general_pairs import samples
from oracle import toys

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", toys.KINDS)
def test_sparse_rows_are_the_dense_ones(kind: str) -> None:
    for sample in samples(kind)[:6]:
        scorer = sample.scorer("renormalize")
        (dense,) = scorer.distributions([sample.text], sample.prompts)
        (sparse,) = scorer.distributions([sample.text], sample.prompts, top_k=3)
        (score,) = scorer.score([sample.text], sample.prompts)
        sparse.validate()
        assert sparse.student_ids.tolist() == list(sample.ids)
        # Distributions read further rows, which may tell more of labels.
        assert np.all(sparse.label_lower <= score.upper + 1e-5)
        assert np.all(sparse.label_upper >= score.lower - 1e-5)
        assert int(sparse.byte_span[-1, 1]) == len(sample.text.encode())
        for i in range(len(sparse)):
            ids = sparse.ids[sparse.ptr[i] : sparse.ptr[i + 1]]
            row = dense.logprobs[i].exp()
            kept = torch.from_numpy(ids.astype(np.int64))
            if sparse.undecided_mass[i] == dense.undecided_mass[i] and len(ids):
                found = np.exp(sparse.logp[sparse.ptr[i] : sparse.ptr[i + 1]])
                assert np.allclose(found, (row / row.sum())[kept].numpy(), atol=1e-5)


def test_top_k_must_be_positive() -> None:
    (sample, *_) = samples("plain")
    with pytest.raises(ValueError, match="top_k"):
        sample.scorer("renormalize").distributions([sample.text], sample.prompts, top_k=0)


def test_a_method_with_an_option_that_it_does_not_have() -> None:
    (sample, *_) = samples("plain")
    with pytest.raises(ValueError, match="width_of_beam"):
        ct.Scorer(
            ct.TableTeacher(lambda _: None), sample.pair, method="beam", method_options={"width_of_beam": 3}
        )
