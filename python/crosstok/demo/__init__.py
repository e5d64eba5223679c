"""A teacher of a million weights and two tokenizers, so that ``crosstok demo`` needs no download.

Trained by scripts/train_demo.py on Python's own documentation (LICENSE-TEXT). This folder is a model
directory as transformers writes them; ``student/`` holds the tokenizer of the teacher's first 400 merges.
"""
