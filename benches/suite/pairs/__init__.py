"""What `pairs.py` checks: general pairs of real tokenizers, against plain forwards and against each other."""
