"""What `compare.py` measures: ways to a distribution over the next student token, against a tight reference."""
