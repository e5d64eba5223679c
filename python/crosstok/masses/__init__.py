"""What teacher rows amount to: the nodes that are read, their rows' masses, and the probability of student prefixes.

`nodes` are those of a plan or of an extension; `aggregator` reduces their rows, block by block, to masses; `undecided`
and `entries` are what is kept of a row besides; `prefixes` adds masses up to P(s_1..s_i) (docs/mathematics.md, 7 and
10).
"""
