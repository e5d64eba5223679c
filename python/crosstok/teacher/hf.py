"""Any causal language model of transformers as a teacher."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from crosstok.errors import TeacherError
from crosstok.ragged import whole_number
from crosstok.teacher import probe
from crosstok.teacher.packed import MaskRule, UnpackableError, mask_rule
from crosstok.teacher.protocol import RowBlock, TokenTree, check_rows, path_blocks
from crosstok.teacher.runner import BLOCK_COLUMNS, Runner
from crosstok.teacher.session import PackedSession, PathSession, Session

# Packed columns where nothing better is known. On a CPU 1024 keep the keys of a run in reach of the caches.
CPU_BATCH_TOKENS = 1024
# Beyond this, texts of one run mostly pay for attention to each other's masked columns.
MAX_BATCH_TOKENS = 8192
# Float32 logits of one forward; blocks handed out are cut smaller (protocol.BLOCK_BYTES).
CPU_FORWARD_BYTES, CUDA_FORWARD_BYTES = 128 << 20, 512 << 20


class HFTeacher:
    """Rows of a causal LM; whole token trees in packed forwards where the model allows it.

    model: a model object (used in place: put into eval mode, moved and cast where device or dtype are
    given), or a directory or hub id for AutoModelForCausalLM. batch_tokens: packed columns of a batch; None:
    by free memory on a GPU, CPU_BATCH_TOKENS on a CPU; a batch has at least one text, however long. dtype (its
    name does, too), device: None keeps a model object's own; a loaded model gets its checkpoint's dtype, and the
    GPU if there is one.

    vocab_size is the width of the logits, padding included. packed says whether trees go packed; where not,
    packed_reason says why, and a RuntimeWarning was given: a short tree is probed when the teacher is made
    (probe.py). Raises TeacherError where the model cannot be loaded or run, and for attention other than sdpa
    and eager, the only kinds that take a tree's mask as it is.
    """

    def __init__(
        self,
        model: Any,
        batch_tokens: int | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        whole_number("batch_tokens", batch_tokens, 1)
        self.model = _prepare(model, _dtype(dtype), device)
        config = _text_config(self.model)
        self.max_positions = _positive(getattr(config, "max_position_embeddings", None))
        self._rope_switch = _rope_switch(config)
        self._embeddings = int(self.model.get_input_embeddings().weight.shape[0])
        self.packed_reason: str | None = None
        rule = self._rule(config)
        on_cuda = self.model.get_input_embeddings().weight.device.type == "cuda"
        budget = CUDA_FORWARD_BYTES if on_cuda else CPU_FORWARD_BYTES
        self._runner: Runner = self._plain_or_refuse(
            lambda: Runner(self.model, rule, CPU_BATCH_TOKENS, budget)
        )
        self._probe()
        self.batch_tokens = _batch_tokens(self.model, config) if batch_tokens is None else batch_tokens
        self._runner.batch_tokens = self.batch_tokens
        if self.packed_reason is not None:
            warnings.warn(
                f"{type(self.model).__name__} is read path by path, which is slower: {self.packed_reason}",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        width: int = self._runner.vocab_size
        return width

    @property
    def packed(self) -> bool:
        """Whether trees are read in packed forwards."""
        return self.packed_reason is None

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return self._runner.device

    def rows(self, paths: list[tuple[int, ...]]) -> torch.Tensor:
        """float32 log-probabilities [len(paths), vocab_size], one plain forward a path.

        float64 for a float64 model. Normalised in float64: float32 sums over large vocabularies are off by up
        to 3.5e-5. Raises TeacherError as `stream` does.
        """
        for path in paths:
            self._check_path(path, len(path), len(path))
        out = []
        for path in paths:
            logits = self._runner.last_logits(tuple(path))
            check_rows(logits[None], 1, self.vocab_size, self._runner.name)
            row = torch.log_softmax(logits.double(), dim=-1)
            out.append(row.to(torch.promote_types(logits.dtype, torch.float32)))
        if not out:
            return torch.empty(0, self.vocab_size, device=self.device)
        return torch.stack(out)

    def stream(self, trees: Sequence[TokenTree]) -> Iterator[RowBlock]:
        """Raw logits of each node of each tree exactly once, in any order.

        Raises TeacherError with the tree's index, before any forward, for a prompt without tokens, ids the model
        does not have and paths longer than its positions; later for NaN in its output.
        """
        trees = list(trees)
        return self._stream(trees, *self._sorted(trees))

    def open_session(self, trees: Sequence[TokenTree]) -> Session:
        """Trees that may grow after they were read; where trees are packed, over kept keys and values.

        Memory and errors: `PackedSession`, `Session`. Raises TeacherError as `stream` does.
        """
        trees = list(trees)
        self._sorted(trees)
        if not self.packed:
            return PathSession(self, trees, self._check_path)
        return PackedSession(self, self._runner, trees, self._check_path, self._rope_switch)

    def _sorted(self, trees: list[TokenTree]) -> tuple[list[int], list[int]]:
        """Trees that may be packed, and those whose paths need forwards of their own; refuses what `stream` does."""
        packable: list[int] = []
        single: list[int] = []
        for index, tree in enumerate(trees):
            longest = len(tree.prompt) + int(tree.depths().max())
            try:
                self._check_path((*tree.prompt, *tree.token[1:].tolist()), longest, len(tree.prompt))
            except TeacherError as error:
                raise TeacherError(error.reason, index) from None
            late = self._rope_switch is not None and longest > self._rope_switch
            (single if late else packable).append(index)
        return packable, single

    def _stream(self, trees: list[TokenTree], packable: list[int], single: list[int]) -> Iterator[RowBlock]:
        way = self._runner.packed_blocks if self.packed else self._runner.chain_blocks
        yield from way(trees, packable)
        # Beyond the switch, rotary frequencies depend on the longest position of a forward: only a forward of
        # its own gives a path's row.
        yield from path_blocks(self, trees, single)

    def _check_path(self, ids: Sequence[int], length: int, prompt: int) -> None:
        """Refuse ids the model lacks, more than fit in a row (`length`), and an empty prompt."""
        if length == 0 or prompt == 0:
            raise TeacherError("a language model needs at least one prompt token before the first row")
        if self.max_positions is not None and length > self.max_positions:
            given = (
                f"{length} tokens" if prompt == length else f"{length} tokens, {prompt} of them the prompt's"
            )
            raise TeacherError(f"{given}: the model has {self.max_positions} positions")
        low, high = min(ids), max(ids)
        if low < 0 or high >= self._embeddings:
            worst = low if low < 0 else high
            raise TeacherError(f"token id {worst}: the model has {self._embeddings} embeddings")

    def _rule(self, config: Any) -> MaskRule:
        try:
            return mask_rule(config)
        except UnpackableError as error:
            self.packed_reason = str(error)
            return MaskRule()

    def _plain_or_refuse(self, run: Any) -> Any:
        """The result of plain forwards, whose failure leaves nothing to fall back to."""
        try:
            return run()
        except TeacherError:
            raise
        except Exception as error:
            name = type(self.model).__name__
            raise TeacherError(f"{name}: a plain forward failed: {type(error).__name__}: {error}") from error

    def _probe(self) -> None:
        """Set packed_reason unless the packed forward agrees with separate ones."""
        runner = self._runner
        ids = min(self._embeddings, runner.vocab_size)
        trees = probe.probe_trees(ids, runner.rule.window, self.max_positions)
        plain = self._plain_or_refuse(lambda: probe.plain_rows(runner, trees))
        if self.packed_reason is not None:
            return
        try:
            self.packed_reason = probe.mismatch(runner, trees, plain)
        except Exception as error:  # whatever a model does with a tree, separate forwards still work
            self.packed_reason = f"the packed forward failed: {type(error).__name__}: {error}"


def _prepare(model: Any, dtype: torch.dtype | None, device: torch.device | str | None) -> Any:
    """A model in eval mode, loaded where a name was given. TeacherError for attention it cannot use."""
    if isinstance(model, str | os.PathLike):
        model = _load(os.fspath(model), dtype)
        if device is None and torch.cuda.is_available():
            device = "cuda"
    if not hasattr(model, "get_input_embeddings") or not hasattr(model, "config"):
        raise TeacherError(f"not a transformers model: {type(model).__name__}")
    for config in (model.config, _text_config(model)):
        attention = getattr(config, "_attn_implementation", None)
        if attention not in ("sdpa", "eager", None):
            raise TeacherError(f"attention {attention!r} takes no tree mask: load with sdpa or eager")
    try:
        if dtype is not None:
            model = model.to(dtype)
        if device is not None:
            model = model.to(device)
    except (RuntimeError, ValueError, AssertionError) as error:  # torch without CUDA asserts that it has it
        cause = str(error).splitlines()[0]
        raise TeacherError(f"cannot move the model to device {device}, dtype {dtype}: {cause}") from error
    return model.eval()


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype, or its name, as transformers takes it ("auto": the checkpoint's own)."""
    found: Any = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is None or dtype == "auto":
        return None
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype must be a floating dtype of torch, its name or 'auto', not {dtype!r}")
    return found


def _load(name: str, dtype: torch.dtype | None) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype="auto" if dtype is None else dtype)
    except Exception as error:
        raise TeacherError(f"cannot load {name!r}: {type(error).__name__}: {error}") from error


def _text_config(model: Any) -> Any:
    """The config of the language model; a multimodal one keeps it inside its own."""
    get = getattr(model.config, "get_text_config", None)
    return model.config if get is None else get()


def _positive(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and value > 0 else None


def _rope_switch(config: Any) -> int | None:
    """The length from which longrope (Phi 3) uses other frequencies for all positions, or None."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict):
        return None
    found = [
        _positive(part.get("original_max_position_embeddings"))
        for part in (rope, *rope.values())
        if isinstance(part, dict) and part.get("rope_type") == "longrope"
    ]
    return min((n for n in found if n is not None), default=None)


def _batch_tokens(model: Any, config: Any) -> int:
    """Packed columns for the free memory: a quarter of it for keys, values and eager attention scores."""
    device = model.get_input_embeddings().weight.device
    if device.type != "cuda":
        return CPU_BATCH_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    heads = _positive(getattr(config, "num_attention_heads", None)) or 32
    hidden = _positive(getattr(config, "hidden_size", None)) or 4096
    layers = _positive(getattr(config, "num_hidden_layers", None)) or 32
    kv_heads = _positive(getattr(config, "num_key_value_heads", None)) or heads
    head_dim = _positive(getattr(config, "head_dim", None)) or hidden // heads
    column = 2 * layers * kv_heads * head_dim * model.get_input_embeddings().weight.element_size()
    # Scores of one block, their float32 softmax and its copy; sdpa needs the masks only.
    column += BLOCK_COLUMNS * 4 * (3 * heads if config._attn_implementation == "eager" else 3)
    # A loaded model's logits of one forward must fit too.
    spare = max(0, free - 3 * CUDA_FORWARD_BYTES)
    return int(max(CPU_BATCH_TOKENS, min(MAX_BATCH_TOKENS, spare // 4 // column)))
