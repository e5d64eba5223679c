"""The benchmarks, one table, and JSON for those who compare.

    python benches/run.py --teacher DIR --data gsm8k.jsonl --tokenizers DIR [--json out.json] [--only NAME ...]

`suite/app.py` has the options (``--quick`` is a smoke test); `suite/` has one module for each benchmark.
"""

from importlib import import_module

if __name__ == "__main__":
    import_module("suite.app").main()
