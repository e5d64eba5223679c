"""From the probabilities of student prefixes to scores: `labels` takes differences, `refine` tightens bounds.

`frontier` is where one position of a refinement stands (docs/mathematics.md, 10).
"""
