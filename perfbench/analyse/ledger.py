"""What a server's memory is taken for: weights, KV cache, LoRA slots, and the rest (activations, CUDA graphs, the runtime itself).

Weights from the files' headers, LoRA slots and KV cache from the model's sizes by the formulas of plan.footprint, which are vLLM's own; the rest is the
measured peak less these. A part that is not known makes the rest unknown too. All over all devices of the server: what each of them holds, times their
number. What the formulas say of the KV cache is held against what vLLM reports, `kv_cache_tokens` against `kv_cache_tokens_computed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfbench.analyse.experiment import Experiment
from perfbench.plan import footprint
from perfbench.records import ModelInfo, ModelShape, ServerInfo

DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True)
class KvFigures:
    """The KV cache as the model's sizes have it; None where they, or the type, are not known."""

    bytes_per_token: float | None = None
    tokens: int | None = None
    """That fit into the bytes that vLLM has set aside."""
    sequences: float | None = None
    """Of the workload's mean length, prompt and answer, at once."""


@dataclass(frozen=True)
class _Served:
    """The model of a variant's server, in the types it is served in."""

    model: ModelInfo | None
    adapter: ModelInfo | None
    lora: bool
    """The server has LoRA slots."""
    dtype: str | None
    devices: int
    """That share one copy of the weights out: tensor parallel."""
    copies: int


def ledger(variant: str, server: ServerInfo, peak: int | None, experiment: Experiment, models: Mapping[str, ModelInfo]) -> dict[str, int | None]:
    """weights_bytes, kv_cache_bytes, lora_bytes and rest_bytes of the server that hosts a variant; {} for an endpoint."""
    if variant in experiment.endpoints:
        return {}
    served = _served(variant, server, experiment, models)
    weights = weights_bytes(served.model, str(experiment.serve_args.get("dtype", "auto")), quantised="quantization" in experiment.serve_args)
    lora = _lora_bytes(served, server) if served.lora else 0
    kv = server.kv_cache_bytes * served.devices * served.copies if server.kv_cache_bytes is not None else None
    parts = {
        "weights_bytes": weights * served.copies if weights is not None else None, "kv_cache_bytes": kv,
        "lora_bytes": lora * served.devices * served.copies if lora is not None else None,
    }  # fmt: skip
    known = [part for part in parts.values() if part is not None]
    rest = peak - sum(known) if peak is not None and len(known) == len(parts) else None
    # Less than its parts: a part is reserved and not resident (an untouched KV cache on a CPU), so the peak cannot be split.
    return {**parts, "rest_bytes": rest if rest is None or rest >= 0 else None}


def kv_figures(variant: str, server: ServerInfo, experiment: Experiment, models: Mapping[str, ModelInfo], lengths: Sequence[int]) -> KvFigures:
    """What a token takes in the cache, how many fit, and how many sequences of the workload's `lengths` (tokens of prompt and answer)."""
    if variant in experiment.endpoints:
        return KvFigures()
    served = _served(variant, server, experiment, models)
    shape = served.model.shape if served.model is not None else None
    cache_type = str(experiment.serve_args.get("kv-cache-dtype", "auto"))
    dtype = served.dtype if cache_type == "auto" else cache_type
    if shape is None or dtype not in footprint.DTYPE_BYTES or not shape.full_attention_layers + shape.sliding_layers:
        return KvFigures()
    token = footprint.kv_bytes_per_token(shape, dtype, devices=served.devices) * served.devices
    if server.kv_cache_bytes is None or server.max_model_len is None:
        return KvFigures(bytes_per_token=token)
    block = number_of_flag(server.argv, "--block-size", footprint.BLOCK_TOKENS) or footprint.BLOCK_TOKENS
    tokens = footprint.kv_cache_tokens(
        shape, server.kv_cache_bytes, max_model_len=server.max_model_len, dtype=dtype, devices=served.devices, block_tokens=block,
        in_flight_tokens=number_of_flag(server.argv, "--max-num-batched-tokens", 0) or 0,
    )  # fmt: skip
    fit = footprint.sequences_that_fit(shape, server.kv_cache_bytes, lengths, dtype, devices=served.devices, block_tokens=block)
    return KvFigures(token, tokens * served.copies, fit * served.copies if fit is not None else None)


def _served(variant: str, server: ServerInfo, experiment: Experiment, models: Mapping[str, ModelInfo]) -> _Served:
    kinds = {one: experiment.variations.get(one, one) for one in server.variants}
    own = models.get(variant) if variant in experiment.variations else None
    model = models.get("merged" if kinds[variant] == "merged" else "base")
    adapter = models.get("adapter")
    if own is not None:
        model, adapter = (model, own) if own.lora_rank is not None else (own, adapter)
    args = experiment.serve_args
    asked = str(args.get("dtype", "auto"))
    stored = _plain(model.dtype) if model is not None else ""
    # vLLM's `auto` narrows float32 to a type that depends on the platform.
    dtype = asked if asked != "auto" else stored if DTYPE_BYTES.get(stored) == 2 else None
    return _Served(
        model, adapter, bool({"base+lora", "adapter"} & set(kinds.values())), dtype, _count(args.get("tensor-parallel-size")),
        _count(args.get("data-parallel-size")),
    )  # fmt: skip


def weights_bytes(model: ModelInfo | None, dtype: str, *, quantised: bool) -> int | None:
    """Bytes of a model's weights as served: its file's size, scaled when `dtype` names another type than the file's; None when quantised on loading.

    vLLM's `auto` keeps 16-bit files as they are and narrows float32, to a type that depends on the platform: then the size is not known.
    """
    if model is None or model.weight_bytes is None or quantised:
        return None
    stored = _plain(model.dtype)
    if dtype == "auto":
        return None if stored not in DTYPE_BYTES or DTYPE_BYTES[stored] == 4 else model.weight_bytes
    if stored not in DTYPE_BYTES or dtype not in DTYPE_BYTES:
        return None
    return model.weight_bytes * DTYPE_BYTES[dtype] // DTYPE_BYTES[stored]


def _lora_bytes(served: _Served, server: ServerInfo) -> int | None:
    """What vLLM reserves for LoRA on one device: both matrices of every module that may be adapted, once a slot, at the greatest rank, whatever an
    adapter uses of it."""
    slots, rank = number_of_flag(server.argv, "--max-loras", 1), number_of_flag(server.argv, "--max-lora-rank", 16)
    asked = words_of_flag(server.argv, "--lora-dtype") or ["auto"]
    dtype = served.dtype if asked == ["auto"] else asked[0]
    shape: ModelShape | None = served.model.shape if served.model is not None else None
    if shape is None or dtype not in footprint.DTYPE_BYTES or slots is None or rank is None:
        return None
    targets = words_of_flag(server.argv, "--lora-target-modules") or None
    return footprint.lora_bytes(shape, max_loras=slots, max_lora_rank=rank, dtype=dtype, target_modules=targets, devices=served.devices)


def words_of_flag(argv: Sequence[str], flag: str) -> list[str]:
    """What follows a flag in a command line, given as `--flag a b` or `--flag=a`; [] where it is not there."""
    for position, argument in enumerate(argv):
        if argument.startswith(flag + "="):
            return [argument.removeprefix(flag + "=")]
        if argument == flag:
            rest = list(argv[position + 1 :])
            end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
            return rest[:end]
    return []


def number_of_flag(argv: Sequence[str], flag: str, default: int) -> int | None:
    """A number in a command line; vLLM's default where it is not there, None where it is no number."""
    words = words_of_flag(argv, flag)
    if not words:
        return default
    return int(words[0]) if words[0].isdigit() else None


def _count(value: object) -> int:
    text = str(value)
    return int(text) if text.isdigit() and int(text) else 1


def _plain(dtype: str | None) -> str:
    return (dtype or "").removeprefix("torch.").lower()
