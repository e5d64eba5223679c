"""Slow, obvious oracles for the property tests.

Everything below this package follows the definitions of design.md (section 2) word by word, over enumerated
texts, and uses only Hugging Face `tokenizers` and numpy. Nothing here may import `crosstok`: an oracle that
shares code with what it judges shares its mistakes.

* `toys`: random tiny `tokenizer.json` files, one family of traps a kind.
* `brute`: canonical prefixes and covers of one tokenizer, by enumeration.
* `scores`: relative covers and probabilities of a pair of tokenizers, by enumeration.
* `general`: the same where teacher and student merge differently. `pairs`: random pairs of toys for it.
"""
