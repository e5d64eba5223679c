"""Unrelated tokenizers on real input: one teacher, its texts in the tokens of several students.

    python benches/pairs.py --teacher DIR --tokenizers DIR --data gsm8k_train.jsonl [--students qwen3 gemma3 ...]

`suite/pairs/app.py` has the options (``--quick`` is a smoke test) and says what is checked; times are by the way, those
that count are measured by `run.py`.
"""

from importlib import import_module

if __name__ == "__main__":
    import_module("suite.pairs.app").main()
