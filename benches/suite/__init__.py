"""What `run.py` measures: a function of `Inputs` that yields `Row` for each benchmark, one module a benchmark."""
