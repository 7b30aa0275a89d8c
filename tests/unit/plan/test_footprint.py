"""Bytes against published figures and vLLM's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.plan import footprint
from perfbench.records import Linear, ModelShape

GIB = 2**30


def _shape(**given: Any) -> ModelShape:
    """SmolLM2-135M unless told otherwise."""
    sizes = {
        "q_proj": (576, 576), "k_proj": (576, 192), "v_proj": (576, 192), "o_proj": (576, 576), "gate_proj": (576, 1536), "up_proj": (576, 1536),
        "down_proj": (1536, 576),
    }  # fmt: skip
    values: dict[str, Any] = {
        "model_type": "llama", "dtype": "bfloat16", "layers": 30, "full_attention_layers": 30, "hidden_size": 576, "heads": 9, "kv_heads": 3, "head_dim": 64,
        "value_dim": 64, "vocab_size": 49152, "tied_embeddings": True, "linears": [Linear(name, *size, 30, 30) for name, size in sizes.items()],
        "lora_embeddings": True, "other_parameters": 49152 * 576 + 61 * 576, "weight_bytes": 269_060_552 - 30_000,
    }  # fmt: skip
    return ModelShape(**{**values, **given})


def test_a_token_of_published_models() -> None:
    """Llama-2-7B: 512 KiB (2 x 32 x 32 x 128 x 2); Llama-3-8B: 128 KiB; DeepSeek-V3: 70,272 bytes (61 layers x 576 x 2, its report)."""
    assert footprint.kv_bytes_per_token(_shape(full_attention_layers=32, kv_heads=32, head_dim=128, value_dim=128)) == 512 * 1024
    assert footprint.kv_bytes_per_token(_shape(full_attention_layers=32, kv_heads=8, head_dim=128, value_dim=128)) == 128 * 1024
    assert footprint.kv_bytes_per_token(_shape(full_attention_layers=61, kv_heads=128, head_dim=192, value_dim=128, latent_dim=576)) == 70_272


def test_what_vllm_says_of_the_demo() -> None:
    """46,592 tokens in 1 GiB at max_model_len 1024 in blocks of 128, by vLLM 0.32's log (DESIGN 8)."""
    assert footprint.kv_cache_tokens(_shape(), GIB, max_model_len=1024, block_tokens=128) == 46_592


def test_tensor_parallel_shares_out_heads_and_repeats_what_cannot_be_shared() -> None:
    shape = _shape(kv_heads=8)
    whole = footprint.kv_bytes_per_token(shape)
    assert [footprint.kv_bytes_per_token(shape, devices=devices) for devices in (2, 8, 16)] == [whole / 2, whole / 8, whole / 8]
    latent = _shape(latent_dim=576)
    assert footprint.kv_bytes_per_token(latent, devices=4) == footprint.kv_bytes_per_token(latent)


def test_a_cache_of_one_byte_an_element_holds_twice_the_tokens() -> None:
    half = footprint.kv_cache_tokens(_shape(), GIB, max_model_len=1024, dtype="fp8")
    assert half == pytest.approx(2 * footprint.kv_cache_tokens(_shape(), GIB, max_model_len=1024), rel=0.001)


@given(tokens=st.integers(1, 20_000), window=st.integers(1, 4096), in_flight=st.integers(0, 4096))
def test_a_window_never_holds_more_than_all_nor_less_than_itself(tokens: int, window: int, in_flight: int) -> None:
    sliding = _shape(full_attention_layers=0, sliding_layers=30, window=window)
    kept = footprint.kv_bytes_of_sequence(sliding, tokens, in_flight_tokens=in_flight)
    assert kept <= footprint.kv_bytes_of_sequence(_shape(), tokens)
    assert kept >= min(tokens, window - 1) * footprint.kv_bytes_per_token(sliding)
    assert kept <= (window + in_flight + 2 * footprint.BLOCK_TOKENS) * footprint.kv_bytes_per_token(sliding)


def test_a_model_with_windows_holds_more_tokens() -> None:
    """Half of the layers keep 128 tokens: at 8192 tokens a sequence takes little more than half."""
    mixed = _shape(full_attention_layers=15, sliding_layers=15, window=128)
    ratio = footprint.kv_cache_tokens(mixed, GIB, max_model_len=8192) / footprint.kv_cache_tokens(_shape(), GIB, max_model_len=8192)
    assert 1.9 < ratio < 2.0


def test_lora_slots_by_hand() -> None:
    """One slot of rank 16 on every matrix: 30 x (576+576 + 2 (576+192) + 576+576 + 2 (576+1536) + 1536+576), embeddings and head (49152+576) each."""
    layer = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)
    assert footprint.lora_bytes(_shape(), max_loras=1, max_lora_rank=16) == 16 * (30 * layer + 2 * (49152 + 576)) * 2
    assert footprint.lora_bytes(_shape(lora_embeddings=False), max_loras=3, max_lora_rank=8, dtype="float32") == 3 * 8 * 30 * layer * 4
    assert footprint.lora_bytes(_shape(), max_loras=1, max_lora_rank=16, target_modules=["q_proj"]) == 16 * 30 * (576 + 576) * 2


def test_lora_under_tensor_parallelism_keeps_one_matrix_whole() -> None:
    shape = _shape(lora_embeddings=False, linears=[Linear("up_proj", 100, 400, 1, 1), Linear("down_proj", 400, 100, 1, 1)])
    assert footprint.lora_bytes(shape, max_loras=1, max_lora_rank=1, dtype="int8", devices=4) == (100 + 100) + (100 + 100)


def test_weights_as_stored_and_as_another_type() -> None:
    shape = _shape()
    assert footprint.weights_bytes(shape) == shape.weight_bytes
    assert footprint.weights_bytes(shape, "bfloat16") == 2 * shape.parameters
    assert footprint.weights_bytes(shape, "float32") == 4 * shape.parameters
    linears = shape.parameters - shape.other_parameters
    assert footprint.weights_bytes(shape, "int4") == linears // 2 + 2 * shape.other_parameters
    assert footprint.weights_bytes(shape, "bfloat16", devices=2) == shape.parameters
    with pytest.raises(ValueError, match="`nonsense` is no known type; expected one of float64"):
        footprint.weights_bytes(shape, "nonsense")


def test_sequences_of_a_workload() -> None:
    """Blocks of 16: lengths 10 and 20 take 16 and 32 tokens, 24 on average."""
    token = footprint.kv_bytes_per_token(_shape())
    assert footprint.sequences_that_fit(_shape(), int(240 * token), [10, 20]) == pytest.approx(10)
    assert footprint.sequences_that_fit(_shape(), GIB, []) is None
