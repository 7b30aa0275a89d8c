"""Bytes of weights, LoRA slots and KV cache of a model, and how many sequences fit. Pure formulas over a ModelShape, no torch.

    weights     parameters x width (as stored where the type stays; the files' own size where they are quantised)
    LoRA slot   max_lora_rank x (inputs + outputs) for every matrix that may be adapted; vLLM reserves max_loras of them when it starts, used or not
    KV          a token and layer takes kv_heads x (head_dim + value_dim) x width; MLA keeps latent_dim x width, one copy for all heads
    sliding     a layer with a window keeps at most window - 1 tokens and those of the step in flight, in whole blocks plus one

All are of one device. With tensor parallelism a column-parallel matrix is cut by its outputs and a row-parallel one by its inputs; KV heads are shared out,
and repeated where there are fewer of them than devices; the latent of MLA is on every device. The rules are vLLM's (0.32: v1/kv_cache_interface.py,
v1/core/kv_cache_utils.py, lora/layers/), and the live tests hold them to what a running vLLM says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from perfbench.records import Linear, ModelShape

DTYPE_BYTES: dict[str, float] = {
    "float64": 8, "float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "int4": 0.5,
}  # fmt: skip
"""Bytes an element by the names that torch, safetensors and vLLM use. int4: scales of the groups come on top (about 0.03 bytes at groups of 128)."""
BLOCK_TOKENS = 16
"""vLLM's default block on CUDA; a CPU server takes 128."""
_ROW_PARALLEL = frozenset({"o_proj", "down_proj", "experts.down_proj", "out_proj", "dense"})
"""Cut by their inputs: each device has its share of the heads, or of the inner width, already."""
_WHOLE = frozenset({"q_a_proj", "kv_a_proj_with_mqa", "gate", "router"})
"""On every device whole: latent projections and routers."""


class KvGroup(NamedTuple):
    """Layers that keep the same tokens."""

    layers: int
    window: int | None
    """None: every token."""


def width_bytes(dtype: str) -> float:
    """Bytes of one element. Raises ValueError for a type that is not known, naming those that are."""
    name = dtype.removeprefix("torch.").lower()
    if name not in DTYPE_BYTES:
        raise ValueError(f"`{dtype}` is no known type; expected one of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[name]


def weights_bytes(shape: ModelShape, dtype: str = "auto", *, devices: int = 1) -> int:
    """Bytes of the weights on each of so many devices.

    `auto` keeps what is stored (of quantised files their size); another type counts every parameter at its width. int4 and fp8 leave embeddings, head and
    norms in 16 bits, as such checkpoints do.
    """
    if dtype == "auto" and shape.weight_bytes is not None:
        return math.ceil(shape.weight_bytes / devices)
    wanted = shape.dtype if dtype == "auto" else dtype
    width = width_bytes(wanted)
    linears = sum(one.inputs * one.outputs * one.count for one in shape.linears)
    return math.ceil((linears * width + shape.other_parameters * max(width, 2.0)) / devices)


def lora_bytes(
    shape: ModelShape, *, max_loras: int, max_lora_rank: int, dtype: str = "auto", target_modules: Collection[str] | None = None, devices: int = 1
) -> int:
    """Bytes that vLLM reserves for LoRA on each device: max_loras slots of both matrices, A (rank x inputs) and B (outputs x rank), of every module.

    Every linear layer has its slots, whichever modules an adapter adapts, unless `target_modules` (--lora-target-modules) names some; in many model types
    the embeddings and the head have them too. A of a column-parallel layer and B of a row-parallel one are on every device whole.
    """
    width = width_bytes(shape.dtype if dtype == "auto" else dtype)
    chosen = [one for one in shape.linears if target_modules is None or one.module.rpartition(".")[2] in target_modules]
    elements = sum(one.count * sum(_cut(one, devices)) for one in chosen)
    if shape.lora_embeddings:
        modules = ("embed_tokens", "lm_head")
        elements += sum(shape.vocab_size + shape.hidden_size for name in modules if target_modules is None or name in target_modules)
    return round(max_loras * max_lora_rank * elements * width)


def _cut(linear: Linear, devices: int) -> tuple[int, int]:
    """Inputs and outputs of a device's part."""
    if devices == 1 or linear.module in _WHOLE:
        return linear.inputs, linear.outputs
    if linear.module in _ROW_PARALLEL:
        return math.ceil(linear.inputs / devices), linear.outputs
    return linear.inputs, math.ceil(linear.outputs / devices)


def kv_bytes_per_token_layer(shape: ModelShape, dtype: str = "auto", *, devices: int = 1) -> float:
    """Bytes that one token takes in one layer of one device."""
    width = width_bytes(shape.dtype if dtype == "auto" else dtype)
    if shape.latent_dim is not None:
        return shape.latent_dim * width
    return max(1, shape.kv_heads // devices) * (shape.head_dim + shape.value_dim) * width


def kv_bytes_per_token(shape: ModelShape, dtype: str = "auto", *, devices: int = 1) -> float:
    """Bytes that one more token of a short sequence takes on one device, over all layers: 2 x layers x kv_heads x head_dim x width for plain GQA."""
    return (shape.full_attention_layers + shape.sliding_layers) * kv_bytes_per_token_layer(shape, dtype, devices=devices)


def kv_bytes_of_sequence(
    shape: ModelShape, tokens: int, dtype: str = "auto", *, devices: int = 1, block_tokens: int = BLOCK_TOKENS, in_flight_tokens: int = 0
) -> float:
    """Bytes that a sequence of so many tokens holds on one device, in whole blocks. `in_flight_tokens`: scheduled in one step (max_num_batched_tokens)."""
    each = kv_bytes_per_token_layer(shape, dtype, devices=devices)
    return sum(group.layers * _blocks(group, tokens, block_tokens, in_flight_tokens) * block_tokens * each for group in kv_groups(shape))


def kv_groups(shape: ModelShape) -> list[KvGroup]:
    """Layers by what they keep: those with every token, those with a window."""
    groups = [KvGroup(shape.full_attention_layers, None), KvGroup(shape.sliding_layers, shape.window)]
    return [group for group in groups if group.layers]


def _blocks(group: KvGroup, tokens: int, block_tokens: int, in_flight_tokens: int) -> int:
    if group.window is None:
        return math.ceil(tokens / block_tokens)
    kept = min(group.window - 1 + in_flight_tokens, tokens)
    return min(math.ceil(tokens / block_tokens), math.ceil(kept / block_tokens) + 1)


def kv_cache_tokens(
    shape: ModelShape, cache_bytes: int, *, max_model_len: int, dtype: str = "auto", devices: int = 1, block_tokens: int = BLOCK_TOKENS,
    in_flight_tokens: int = 0,
) -> int:  # fmt: skip
    """Tokens that fit into `cache_bytes` of one device, as vLLM reports them: sequences of the greatest length that fit, times that length.

    For a model without windows that is cache_bytes / bytes a token, in whole blocks.
    """
    sequence = kv_bytes_of_sequence(shape, max_model_len, dtype, devices=devices, block_tokens=block_tokens, in_flight_tokens=in_flight_tokens)
    block = block_tokens * kv_bytes_per_token(shape, dtype, devices=devices)
    if sequence <= 0 or block <= 0:
        raise ValueError(f"a model of type {shape.model_type} without attention layers has no KV cache")
    if not shape.sliding_layers:
        return int(cache_bytes // block / math.ceil(max_model_len / block_tokens) * max_model_len)
    return int(cache_bytes / sequence * max_model_len)


def sequences_that_fit(
    shape: ModelShape, cache_bytes: int, lengths: Sequence[int], dtype: str = "auto", *, devices: int = 1, block_tokens: int = BLOCK_TOKENS
) -> float | None:
    """Sequences of a workload that fit at once when each has reached its full length (prompt and answer): the cache over their mean size.

    None without lengths. It is what the cache must hold if none is to be preempted; fewer tokens are held while answers still grow.
    """
    if not lengths:
        return None
    mean = sum(kv_bytes_of_sequence(shape, length, dtype, devices=devices, block_tokens=block_tokens) for length in lengths) / len(lengths)
    return cache_bytes / mean if mean else None
