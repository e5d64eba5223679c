"""The main job on real input: GSM8K answers under a real teacher, scored for students of its first merges.

    python benches/gsm8k.py exact --teacher DIR --data gsm8k_train.jsonl [--texts 200]

`suite/exact.py` says what is checked. Times are measured by `run.py`.
"""

from importlib import import_module

if __name__ == "__main__":
    import_module("suite.exact").main()
