"""Losses between a student's logits and a teacher's distributions over student tokens, in plain torch.

`collate` makes one batch of a list of `Distributions` or `SparseTargets`; `forward_kl` is the divergence of the student
from the teacher, `partial_kl` the same mixed with cross-entropy, as the paper trains with.
"""

from crosstok.losses.batch import IGNORED, DenseBatch, SparseBatch, TargetBatch, collate
from crosstok.losses.divergences import forward_kl, partial_kl

__all__ = ["IGNORED", "DenseBatch", "SparseBatch", "TargetBatch", "collate", "forward_kl", "partial_kl"]
