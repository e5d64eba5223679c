"""Whole distributions over the next student token.

`exact` is for the regimes "same" and "subset", and for what a plan's rows say by themselves. In the regime "general"
`closing` makes the closing estimate of what crosses a position, `light` of what is too light to look at, `expansion`
replaces leaves by the rows after them, `estimates` sums up, and `general` is the way through them. `status` says what
a row is worth; `cut` makes sparse targets; `next_token` and, between bounds, `following` are one distribution after
given tokens (docs/mathematics.md, 8 and 12).
"""
