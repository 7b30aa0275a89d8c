"""Before a GPU is rented: does the model fit, how much KV cache is left, and what bounds TTFT, TPOT and throughput. From sizes alone; nothing is measured.

    KV cache  <= gpu_memory_utilization x memory - weights - LoRA slots      on each GPU; what activations, CUDA graphs and the runtime take is not
                                                                             known before vLLM has measured it, so the cache is at most this
    sequences  = KV cache / mean bytes of a sequence of the workload at its full length
    bounds       plan.roofline: TTFT for a prompt alone, TPOT for one stream and for as many as fit, throughput when all of them run

Each way of serving has its own row: LoRA slots are reserved for `base+lora` and `adapter`, whether they are used or not, and `adapter` reads its
matrices beside the base's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from perfbench.plan.footprint import kv_bytes_of_sequence, kv_bytes_per_token, kv_cache_tokens, lora_bytes, sequences_that_fit, weights_bytes
from perfbench.plan.gpus import ComputeType, Gpu
from perfbench.plan.roofline import Served, requests_per_s_bound, tpot_bound_s, ttft_bound_s
from perfbench.records import ModelShape

Weights = Literal["auto", "fp32", "bf16", "fp16", "fp8", "int4"]
KvType = Literal["auto", "fp8"]

GPU_MEMORY_UTILIZATION = 0.92
"""vLLM's default (0.32, config/cache.py)."""
_FOOTPRINT_NAMES: dict[Weights, str] = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "int4": "int4"}
_GIB = 2**30

BOUND = "Bounds, not forecasts: no server is faster, and real ones reach a part of them. Communication between GPUs is not in them."
KV_AT_MOST = "KV cache: at most, since activations and CUDA graphs also take memory that only vLLM's own profiling knows."
EVEN_ROUTING = "Experts: those that a batch touches when the router spreads it evenly."


@dataclass(frozen=True)
class Lora:
    """Slots that a LoRA-enabled server reserves, and the adapter that requests ask for."""

    max_loras: int
    max_rank: int
    adapter_parameters: int


@dataclass(frozen=True)
class Setting:
    """How the model is served, by the flags that matter here."""

    weights: Weights = "auto"
    kv: KvType = "auto"
    memory_utilization: float = GPU_MEMORY_UTILIZATION
    max_model_len: int | None = None
    max_num_seqs: int | None = None


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """One variant on so many GPUs of one kind. Bytes are of one GPU; None where the model does not fit."""

    variant: str
    gpu: str
    gpus: int
    fits: bool
    reason: str
    """Why not, or how it is laid out."""
    weights_bytes: int
    lora_bytes: int
    kv_bytes_per_token: float
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    sequences: float | None = None
    """Of the workload's lengths that fit at once, each at its full length."""
    ttft_bound_s: float | None = None
    tpot_bound_s: float | None = None
    """One stream."""
    batch: float | None = None
    """Sequences that the next three figures assume: as many as fit, and no more than max-num-seqs."""
    tpot_full_bound_s: float | None = None
    requests_per_s_bound: float | None = None
    output_tokens_per_s_bound: float | None = None


def estimate(
    shape: ModelShape, name: str, gpu: Gpu, devices: int, *, variant: str, setting: Setting, lengths: Sequence[tuple[int, int]], lora: Lora | None = None
) -> Estimated:
    """`lengths` are (prompt, answer) tokens of the workload's requests, at least one. `lora` where the variant's server has LoRA enabled."""
    kind, problem = _compute_type(shape, gpu, name, setting.weights)
    weights = _served_weights(shape, setting.weights)
    kv = "fp8" if setting.kv == "fp8" else _activation_type(shape, setting.weights)
    wide = _activation_type(shape, setting.weights)
    slots = 0 if lora is None else lora_bytes(shape, max_loras=lora.max_loras, max_lora_rank=lora.max_rank, dtype=wide, devices=devices)
    held = weights_bytes(shape, weights, devices=devices)
    result = Estimated(
        variant=variant, gpu=name, gpus=devices, fits=False, reason="", weights_bytes=held, lora_bytes=slots,
        kv_bytes_per_token=kv_bytes_per_token(shape, kv, devices=devices),
    )  # fmt: skip
    budget = round(setting.memory_utilization * gpu.memory_bytes)
    problem = problem or _split_problem(shape, devices)
    if problem is None and held + slots >= budget:
        what = "weights and LoRA slots take" if slots else "weights take"
        problem = f"{what} {_gib(held + slots)} a GPU; {setting.memory_utilization:g} of {gpu.memory_gb:g} GB is {_gib(budget)}"
    cache = budget - held - slots
    longest = max(setting.max_model_len or 0, *(prompt + answer for prompt, answer in lengths))
    if problem is None and kv_bytes_of_sequence(shape, longest, kv, devices=devices) > cache:
        problem = f"{_gib(cache)} a GPU are left for KV, less than one sequence of {longest:,} tokens takes"
    if problem is not None:
        return msgspec.structs.replace(result, reason=problem)
    model = served(shape, gpu, name, devices, setting, lora.adapter_parameters if lora and variant == "adapter" else 0)
    figures = _figures(model, cache, longest, lengths, setting)
    return msgspec.structs.replace(result, **figures, fits=True, reason=_layout(shape, devices, kind, setting.weights))


def served(shape: ModelShape, gpu: Gpu, name: str, devices: int, setting: Setting, adapter_parameters: int) -> Served:
    """The model in the types that the setting means, for the roofline. `name` is the GPU's."""
    kind, _ = _compute_type(shape, gpu, name, setting.weights)
    kv = "fp8" if setting.kv == "fp8" else _activation_type(shape, setting.weights)
    speed = gpu.operations_per_s(kind) if kind is not None else None
    return Served(shape, gpu, devices, _served_weights(shape, setting.weights), kv, speed, adapter_parameters)


def _figures(model: Served, cache: int, longest: int, lengths: Sequence[tuple[int, int]], setting: Setting) -> dict[str, float | int | None]:
    sequences = sequences_that_fit(model.shape, cache, [prompt + answer for prompt, answer in lengths], model.kv, devices=model.devices)
    prompt, answer = (sum(values) / len(lengths) for values in zip(*lengths, strict=True))
    batch = max(1.0, min(sequences or 1.0, setting.max_num_seqs or float("inf")))
    rate = requests_per_s_bound(model, batch=batch, input_tokens=prompt, output_tokens=answer)
    context = prompt + answer / 2
    return {
        "kv_bytes": cache,
        "kv_tokens": kv_cache_tokens(model.shape, cache, max_model_len=longest, dtype=model.kv, devices=model.devices),
        "sequences": sequences,
        "ttft_bound_s": ttft_bound_s(model, prompt),
        "tpot_bound_s": tpot_bound_s(model, batch=1, context_tokens=context),
        "batch": batch,
        "tpot_full_bound_s": tpot_bound_s(model, batch=batch, context_tokens=context),
        "requests_per_s_bound": rate,
        "output_tokens_per_s_bound": rate * answer,
    }


def assumptions(shape: ModelShape) -> list[str]:
    """What every figure rests on, a sentence each."""
    routed = any(one.active < one.count for one in shape.linears)
    return [BOUND, KV_AT_MOST, *([EVEN_ROUTING] if routed else [])]


def _activation_type(shape: ModelShape, weights: Weights) -> str:
    """What is computed beside the weights, and what a KV cache of type `auto` holds. vLLM narrows float32 files to 16 bits unless told otherwise."""
    if weights in ("bf16", "fp16", "fp32"):
        return _FOOTPRINT_NAMES[weights]
    return "float16" if shape.dtype in ("float16", "half") else "bfloat16"


def _served_weights(shape: ModelShape, weights: Weights) -> str:
    if weights == "auto" and not shape.quantised and shape.dtype in ("float32", "float", "float64"):
        return "bfloat16"
    return _FOOTPRINT_NAMES[weights]


def _compute_type(shape: ModelShape, gpu: Gpu, name: str, weights: Weights) -> tuple[ComputeType | None, str | None]:
    """(the type that matrices are multiplied in, why the GPU cannot). None for float32, of which the table knows nothing."""
    if weights == "fp32":
        return None, None
    wide: ComputeType = "fp16" if _activation_type(shape, weights) == "float16" else "bf16"
    if wide not in gpu.tflops:
        if weights in ("auto", "bf16"):
            return None, f"{name} has no bf16, and vLLM refuses such models there; say --weights fp16"
        wide = "fp16"  # int4 and fp8 are widened to the 16 bits that the GPU has
    if weights == "fp8" or (weights == "auto" and shape.quantised):
        # Whether packed files are multiplied in 8 or in 16 bits is the method's affair: the faster one bounds both.
        return ("fp8" if "fp8" in gpu.tflops else wide), None
    return wide, None


def _split_problem(shape: ModelShape, devices: int) -> str | None:
    if shape.heads % devices:
        return f"{shape.heads} attention heads cannot be split over {devices} GPUs"
    if shape.latent_dim is None and shape.kv_heads % devices and devices % shape.kv_heads:
        return f"{shape.kv_heads} KV heads can be neither split over {devices} GPUs nor repeated on them"
    return None


def _layout(shape: ModelShape, devices: int, kind: ComputeType | None, weights: Weights) -> str:
    parts = []
    if devices > 1 and shape.latent_dim is not None:
        parts.append(f"the latent KV of MLA on each of {devices} GPUs")
    elif devices > 1 and shape.kv_heads >= devices:
        parts.append(f"{shape.kv_heads // devices} of {shape.kv_heads} KV heads a GPU")
    elif devices > 1:
        parts.append(f"{shape.kv_heads} KV heads, each on {devices // shape.kv_heads} GPUs")
    if kind is None:
        parts.append("float32: bounded by memory alone")
    elif weights in ("fp8", "int4") and kind in ("bf16", "fp16"):
        parts.append(f"{weights} weights, multiplied in {kind}")
    return "; ".join(parts)


def _gib(value: float) -> str:
    return f"{value / _GIB:,.2f} GiB"
