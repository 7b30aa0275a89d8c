"""Bounds against figures by hand: Llama-3-8B, Llama-3-70B, Mixtral-8x7B and DeepSeek-V2-Lite by their published configs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfbench.models.shape import shape_of
from perfbench.plan.estimate import Lora, Setting, estimate, served
from perfbench.plan.footprint import weights_bytes
from perfbench.plan.gpus import known_gpus
from perfbench.plan.roofline import prompt_operations, requests_per_s_bound, token_operations, tpot_bound_s, ttft_bound_s
from perfbench.records import ModelShape

LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_3_70B = {**LLAMA_3_8B, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "intermediate_size": 28672}
MIXTRAL_8X7B: dict[str, Any] = {**LLAMA_3_8B, "model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 10944,
    "vocab_size": 102400, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": None,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
ONE = [(1000, 200)]
PER_LAYER = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
HEAD = 128256 * 4096


def _shape(config: dict[str, Any]) -> ModelShape:
    return shape_of(config, {}, stored_dtype=None, where="config.json")


def _estimate(
    config: dict[str, Any], gpu: str, devices: int = 1, *, variant: str = "base", lora: Lora | None = None, lengths: Any = ONE, **setting: Any
) -> Any:
    return estimate(_shape(config), gpu, known_gpus()[gpu], devices, variant=variant, setting=Setting(**setting), lengths=lengths, lora=lora)


def _served(config: dict[str, Any], gpu: str = "h100-80gb", devices: int = 1, **setting: Any) -> Any:
    return served(_shape(config), known_gpus()[gpu], gpu, devices, Setting(**setting), 0)


def test_llama_3_8b_on_an_h100_by_hand() -> None:
    """8,030,261,248 parameters at 2 bytes; 131,072 bytes of KV a token; what 92% of 80 GB leave, in sequences of 1,200 tokens (75 blocks of 16)."""
    found = _estimate(LLAMA_3_8B, "h100-80gb")
    assert found.fits and found.weights_bytes == 16_060_522_496 and found.kv_bytes_per_token == 131_072
    assert found.kv_bytes == 73_600_000_000 - 16_060_522_496
    assert found.kv_tokens == pytest.approx(found.kv_bytes / 131_072, abs=1200)
    assert found.sequences == pytest.approx(found.kv_bytes / (1200 * 131_072))


def test_ttft_of_llama_3_8b_by_hand() -> None:
    """2 x 6.98e9 x 1000 for the matrices, the head once, 4 x 4096 a pair for 1000 x 1001 / 2 pairs and 32 layers; at 989.4e12 a second."""
    operations = 2 * 1000 * 32 * PER_LAYER + 2 * HEAD + 32 * 4 * 4096 * 500_500
    assert prompt_operations(_served(LLAMA_3_8B), 1000) == operations
    assert _estimate(LLAMA_3_8B, "h100-80gb").ttft_bound_s == pytest.approx(operations / 989.4e12)
    assert _estimate(LLAMA_3_8B, "h100-80gb", 2).ttft_bound_s == pytest.approx(operations / 989.4e12 / 2)


def test_tpot_of_llama_3_8b_by_hand() -> None:
    """One stream reads every matrix and the head, not the embedding table, and the KV of 1,100 tokens; at 3.35e12 bytes a second."""
    read = 2 * (32 * PER_LAYER + HEAD)
    found = _estimate(LLAMA_3_8B, "h100-80gb")
    assert found.tpot_bound_s == pytest.approx((read + 1100 * 131_072) / 3.35e12, rel=1e-4)
    assert found.tpot_full_bound_s == pytest.approx((read + found.batch * 1100 * 131_072) / 3.35e12, rel=1e-4)
    assert token_operations(_served(LLAMA_3_8B), 1100) == 2 * (32 * PER_LAYER + HEAD) + 32 * 4 * 4096 * 1100


def test_a_short_prompt_waits_for_the_weights() -> None:
    """One token has little to compute: the weights have to be read all the same."""
    model = _served(LLAMA_3_8B)
    assert ttft_bound_s(model, 1) == pytest.approx(2 * (32 * PER_LAYER + HEAD) / 3.35e12, rel=1e-4)


def test_llama_3_70b_needs_two_h100s_and_eight_bits_or_four_bits_fit_one() -> None:
    """70.55e9 parameters: 141 GB at 16 bits, 71 at 8 bits (no room for KV), 38 at 4 bits."""
    assert not _estimate(LLAMA_3_70B, "h100-80gb").fits
    two = _estimate(LLAMA_3_70B, "h100-80gb", 2)
    assert two.fits and two.kv_bytes_per_token == 2 * 80 * 4 * 128 * 2 and two.weights_bytes == pytest.approx(70.55e9, rel=0.001)
    four_bits = _estimate(LLAMA_3_70B, "h100-80gb", weights="int4")
    assert four_bits.fits and four_bits.weights_bytes == pytest.approx(0.5 * 68.45e9 + 2 * 2.1e9, rel=0.001)
    assert "multiplied in bf16" in four_bits.reason
    eight = _estimate(LLAMA_3_70B, "h200", weights="fp8")
    assert eight.ttft_bound_s == pytest.approx(_estimate(LLAMA_3_70B, "h200", 2, weights="bf16").ttft_bound_s, rel=1e-4)


def test_mixtral_reads_two_experts_for_one_token_and_nearly_all_for_many() -> None:
    """46.7e9 parameters, 12.7e9 of them for one token (Mixtral paper)."""
    model = _served(MIXTRAL_8X7B, "h200")
    one = tpot_bound_s(model, batch=1, context_tokens=0) * 4.8e12
    assert one == pytest.approx(2 * (12.88e9 - 0.131e9), rel=0.01)
    many = tpot_bound_s(model, batch=32, context_tokens=0) * 4.8e12
    assert many == pytest.approx(weights_bytes(model.shape, "bfloat16") - 2 * 0.131e9, rel=0.01)
    expected = 1 - 0.75**4
    experts = 2 * 32 * 8 * 3 * 4096 * 14336
    four = tpot_bound_s(model, batch=4, context_tokens=0) * 4.8e12
    assert four - one == pytest.approx(experts * (expected - 0.25), rel=0.001)


def test_the_latent_of_deepseek_is_on_every_gpu() -> None:
    """27 layers x 576 x 2 bytes a token, on each of any number of GPUs."""
    assert [_estimate(DEEPSEEK_V2_LITE, "a100-80gb", devices).kv_bytes_per_token for devices in (1, 2, 4)] == [31_104] * 3
    assert "latent KV of MLA on each of 2 GPUs" in _estimate(DEEPSEEK_V2_LITE, "a100-80gb", 2).reason


def test_kv_heads_are_split_repeated_or_neither() -> None:
    assert "2 of 8 KV heads a GPU" in _estimate(LLAMA_3_8B, "l40s", 4).reason
    repeated = _estimate(LLAMA_3_8B, "l40s", 16)
    assert "each on 2 GPUs" in repeated.reason and repeated.kv_bytes_per_token == 131_072 / 8
    assert _estimate(LLAMA_3_8B, "l40s", 3).reason == "32 attention heads cannot be split over 3 GPUs"
    odd = {**LLAMA_3_8B, "num_attention_heads": 12, "num_key_value_heads": 6, "hidden_size": 1536}
    assert "6 KV heads can be neither split over 4" in _estimate(odd, "l40s", 4).reason


def test_an_eight_bit_cache_holds_twice_the_tokens() -> None:
    whole, half = _estimate(LLAMA_3_8B, "l40s"), _estimate(LLAMA_3_8B, "l40s", kv="fp8")
    assert half.kv_bytes_per_token == whole.kv_bytes_per_token / 2 and half.sequences == pytest.approx(2 * whole.sequences)


def test_an_old_gpu_says_what_it_cannot() -> None:
    assert "v100-32gb has no bf16" in _estimate(LLAMA_3_8B, "v100-32gb").reason
    assert _estimate(LLAMA_3_8B, "v100-32gb", weights="fp16").fits
    widened = _estimate(LLAMA_3_8B, "t4", weights="int4")
    assert widened.fits and "multiplied in fp16" in widened.reason


def test_what_does_not_fit_says_by_how_much_and_has_no_figure() -> None:
    found = _estimate(LLAMA_3_8B, "t4", weights="fp16")
    assert (found.fits, found.kv_tokens, found.ttft_bound_s, found.requests_per_s_bound) == (False, None, None, None)
    assert found.reason == "weights take 14.96 GiB a GPU; 0.92 of 16 GB is 13.71 GiB"
    tight = _estimate(LLAMA_3_8B, "a10", lengths=[(100_000, 100)])
    assert not tight.fits and "less than one sequence of 100,100 tokens takes" in tight.reason


def test_lora_slots_are_reserved_and_only_the_adapter_is_read() -> None:
    lora = Lora(max_loras=4, max_rank=16, adapter_parameters=40_000_000)
    base, idle, used = (
        _estimate(LLAMA_3_8B, "l40s", variant=variant, lora=None if variant == "base" else lora) for variant in ("base", "base+lora", "adapter")
    )
    assert base.lora_bytes == 0 < idle.lora_bytes == used.lora_bytes and idle.kv_bytes == base.kv_bytes - idle.lora_bytes
    assert idle.tpot_bound_s == pytest.approx(base.tpot_bound_s)
    assert used.tpot_bound_s - idle.tpot_bound_s == pytest.approx(80e6 / 864e9)


def test_max_num_seqs_limits_the_batch() -> None:
    assert _estimate(LLAMA_3_8B, "h100-80gb", max_num_seqs=32).batch == 32


@settings(deadline=None)
@example(prompt=1, answer=1, batch=427.0, gpu="a10g")  # an answer of one token needs no step that computes answers
@given(prompt=st.integers(1, 20_000), answer=st.integers(1, 4_000), batch=st.floats(1, 500), gpu=st.sampled_from(sorted(known_gpus())))
def test_bounds_are_consistent(prompt: int, answer: int, batch: float, gpu: str) -> None:
    """No batch beats a single stream's step; the rate is no better than what compute or memory alone would allow."""
    model = _served(MIXTRAL_8X7B, gpu, weights="fp16")
    context = prompt + answer / 2
    alone, together = (tpot_bound_s(model, batch=size, context_tokens=context) for size in (1, batch))
    assert 0 < alone <= together * (1 + 1e-9) and together <= batch * alone * (1 + 1e-9)
    rate = requests_per_s_bound(model, batch=batch, input_tokens=prompt, output_tokens=answer)
    assert rate <= model.operations_per_s / prompt_operations(model, prompt) * (1 + 1e-9)
    by_memory = tpot_bound_s(replace(model, operations_per_s=None), batch=batch, context_tokens=context)
    assert rate * answer * by_memory <= batch * (1 + 1e-6)


def test_a_report_of_estimates_is_json() -> None:
    import msgspec

    assert json.loads(msgspec.json.encode(_estimate(LLAMA_3_8B, "h100-80gb")))["fits"] is True
