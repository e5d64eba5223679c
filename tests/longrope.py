"""A tiny Phi 3 whose rotary frequencies change with the length of its input, which no packed tree can follow."""

from __future__ import annotations

from typing import Any

from hf_models import SIZE, torch, transformers


def phi3_with_switch(positions: int) -> Any:
    """Phi 3 with other rotary frequencies from `positions` on. Its config ignores the number in rope_parameters."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    values = {k: v for k, v in SIZE.items() if k != "head_dim"} | {"pad_token_id": 0, "sliding_window": None}
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        **values,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters=rope,
        original_max_position_embeddings=positions,
    )
    return transformers.Phi3ForCausalLM(config).eval()


def check_switch(model: Any, positions: int) -> None:
    """The model does read the same token otherwise once there are more than so many positions."""
    with torch.no_grad():
        short, long = (model(torch.arange(n)[None]).logits[0, 10] for n in (positions, positions + 1))
    assert float((short - long).abs().max()) > 0.1
