"""Sizes of well-known models from their configs, held to their published parameter counts; headers against config."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perfbench.errors import ModelError
from perfbench.models.headers import Tensor
from perfbench.models.inspect import inspect_model, read_shape
from perfbench.models.shape import shape_of
from perfbench.records import ModelShape

LLAMA_3_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MIXTRAL_8X7B = {
    "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None, "torch_dtype": "bfloat16",
}  # fmt: skip
DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 10944,
    "vocab_size": 102400, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": None,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def _of_config(config: dict[str, Any]) -> ModelShape:
    return shape_of(config, {}, stored_dtype=None, where="config.json")


@pytest.mark.parametrize(
    ("config", "parameters", "active"),
    [
        # As their model cards count: 8,030,261,248; 46,702,792,704; 15.7 B of which 2.4 B are active (DeepSeek-V2 paper, appendix B).
        (LLAMA_3_8B, 8_030_261_248, None), (MIXTRAL_8X7B, 46_702_792_704, 12.7e9), (DEEPSEEK_V2_LITE, 15.7e9, 2.4e9),
    ],
)  # fmt: skip
def test_published_parameter_counts(config: dict[str, Any], parameters: float, active: float | None) -> None:
    shape = _of_config(config)
    assert shape.parameters == (parameters if isinstance(parameters, int) else pytest.approx(parameters, rel=0.005))
    if active is not None:
        assert shape.active_parameters == pytest.approx(active, rel=0.05)


@pytest.mark.parametrize(
    ("more", "full", "sliding", "window"),
    [
        ({}, 32, 0, None),
        ({"sliding_window": 4096}, 0, 32, 4096),
        ({"sliding_window": 4096, "use_sliding_window": False}, 32, 0, None),
        ({"sliding_window": 1024, "sliding_window_pattern": 4}, 8, 24, 1024),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}, 16, 16, 128),
        ({"sliding_window": None, "layer_types": ["sliding_attention", "full_attention"] * 16}, 32, 0, None),
        ({"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}, 8, 0, None),
        ({"sliding_window": 4096, "model_type": "gemma2"}, 16, 16, 4096),
        ({"num_kv_shared_layers": 10}, 22, 0, None),
    ],
)
def test_which_layers_keep_what(more: dict[str, Any], full: int, sliding: int, window: int | None) -> None:
    shape = _of_config(LLAMA_3_8B | more)
    assert (shape.full_attention_layers, shape.sliding_layers, shape.window) == (full, sliding, window)


def test_a_multimodal_config_holds_the_decoder_inside() -> None:
    shape = _of_config({"model_type": "some_vl", "vision_config": {"hidden_size": 7}, "text_config": LLAMA_3_8B})
    assert (shape.layers, shape.hidden_size, shape.model_type) == (32, 4096, "llama")


def test_headers_and_config_count_the_same(make_base: Any) -> None:
    """A whole two-layer model, written tensor by tensor."""
    config = {
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16, "vocab_size": 16, "head_dim": 4,
    }  # fmt: skip
    sizes = {
        "self_attn.q_proj": [8, 8], "self_attn.k_proj": [4, 8], "self_attn.v_proj": [4, 8], "self_attn.o_proj": [8, 8], "mlp.gate_proj": [16, 8],
        "mlp.up_proj": [16, 8], "mlp.down_proj": [8, 16], "input_layernorm": [8], "post_attention_layernorm": [8],
    }  # fmt: skip
    tensors = {f"model.layers.{layer}.{name}.weight": ("BF16", size) for layer in range(2) for name, size in sizes.items()}
    tensors |= {"model.embed_tokens.weight": ("BF16", [16, 8]), "model.norm.weight": ("BF16", [8])}
    folder = make_base(tensors, **config)
    shape = read_shape(folder)
    alone = _of_config(json.loads((folder / "config.json").read_text()))
    assert shape.parameters == alone.parameters == inspect_model(folder).parameters
    assert sorted(shape.linears, key=str) == sorted(alone.linears, key=str)
    assert shape.weight_bytes == 2 * shape.parameters
    assert inspect_model(folder).shape == shape


def test_experts_of_their_own_and_as_one_tensor() -> None:
    config = LLAMA_3_8B | {"num_hidden_layers": 1, "num_local_experts": 4, "num_experts_per_tok": 1}
    apart = {
        f"model.layers.0.block_sparse_moe.experts.{expert}.{name}.weight": Tensor("BF16", size, (0, 8))
        for expert in range(4) for name, size in (("w1", (16, 8)), ("w2", (8, 16)), ("w3", (16, 8)))
    }  # fmt: skip
    shape = shape_of(config, apart, stored_dtype="bfloat16", where="")
    assert {(one.module, one.inputs, one.outputs, one.count, one.active) for one in shape.linears} == {
        ("experts.gate_proj", 8, 16, 4, 1), ("experts.down_proj", 16, 8, 4, 1), ("experts.up_proj", 8, 16, 4, 1),
    }  # fmt: skip
    together = {
        "model.layers.0.mlp.experts.gate_up_proj": Tensor("BF16", (4, 8, 32), (0, 8)),
        "model.layers.0.mlp.conv.weight": Tensor("BF16", (4, 1, 3), (0, 8)),
    }
    (fused,) = shape_of(config, together, stored_dtype="bfloat16", where="").linears
    assert (fused.module, fused.count, fused.active) == ("experts.gate_up_proj", 4, 1)


def test_a_config_that_says_too_little_is_named(make_base: Any) -> None:
    folder = make_base()
    with pytest.raises(ModelError, match=r"config\.json: expected `num_hidden_layers`, a whole number above 0"):
        read_shape(folder)
    assert inspect_model(folder).shape is None
