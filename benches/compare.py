"""What each way of computing next-token distributions costs and how far it is off: one teacher, several students.

    python benches/compare.py --teacher DIR --tokenizers DIR --data gsm8k_train.jsonl [--students qwen3 gemma3 ...]

`suite/compare/app.py` has the options (``--quick`` is a smoke test) and says what is compared with what.
"""

from importlib import import_module

if __name__ == "__main__":
    import_module("suite.compare.app").main()
