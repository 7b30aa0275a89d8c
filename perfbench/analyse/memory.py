"""What each variant's server takes, and what it takes it for.

Peak is the largest reading while the server ran, start-up included: what must be there. Steady is the median over the measured windows. A server on
several devices has the sum of its devices' figures. The ledger splits the peak (VRAM where it was measured, else host memory) into weights, KV
cache, LoRA slots and the rest (activations, CUDA graphs, the runtime itself); a part that is not known makes the rest unknown too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.telemetry import Telemetry
from perfbench.records import MemorySummary, ModelInfo, ServerInfo, TrialOutcome

DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
NO_MEMORY = MemorySummary(vram_bytes_peak=None, vram_bytes_steady=None, host_rss_bytes_peak=None, kv_cache_tokens=None, ledger={})


def memory_summary(
    variant: str,
    server: ServerInfo | None,
    *,
    windows: Sequence[TrialOutcome],
    telemetry: Telemetry,
    experiment: Experiment,
    models: Mapping[str, ModelInfo],
) -> MemorySummary:
    """Memory of the server that hosts a variant. `windows` are the outcomes of all trials on that server."""
    if server is None:
        return NO_MEMORY
    vram_peak = over_devices(telemetry.gauge("vram_bytes", server=server.name), "max")
    vram_steady = over_devices(telemetry.gauge("vram_bytes", server=server.name, windows=windows), "median")
    rss_peak = over_devices(telemetry.gauge("host_rss_bytes", server=server.name), "max")
    return MemorySummary(
        vram_bytes_peak=vram_peak,
        vram_bytes_steady=vram_steady,
        host_rss_bytes_peak=rss_peak,
        kv_cache_tokens=server.kv_cache_tokens,
        ledger=_ledger(variant, server, vram_peak if vram_peak is not None else rss_peak, experiment, models),
        shared_with=[other for other in server.variants if other != variant],
    )


def over_devices(readings: pl.DataFrame, statistic: Literal["max", "median"]) -> int | None:
    """Largest or median reading in bytes of each device, summed; None without readings."""
    if readings.is_empty():
        return None
    value = pl.col("value").max() if statistic == "max" else pl.col("value").median()
    return round(readings.group_by("device").agg(value)["value"].sum())


def _ledger(variant: str, server: ServerInfo, peak: int | None, experiment: Experiment, models: Mapping[str, ModelInfo]) -> dict[str, int | None]:
    if variant in experiment.endpoints:
        return {}
    kinds = {one: experiment.variations.get(one, one) for one in server.variants}
    own = models.get(variant) if variant in experiment.variations else None
    model = models.get("merged" if kinds[variant] == "merged" else "base")
    adapter = models.get("adapter")
    if own is not None:
        model, adapter = (model, own) if own.lora_rank is not None else (own, adapter)
    weights = weights_bytes(model, str(experiment.serve_args.get("dtype", "auto")), quantised="quantization" in experiment.serve_args)
    lora = _lora_bytes(adapter, server, model) if {"base+lora", "adapter"} & set(kinds.values()) else 0
    parts = {"weights_bytes": weights, "kv_cache_bytes": server.kv_cache_bytes, "lora_bytes": lora}
    known = [part for part in parts.values() if part is not None]
    rest = peak - sum(known) if peak is not None and len(known) == len(parts) else None
    # Less than its parts: a part is reserved and not resident (an untouched KV cache on a CPU), so the peak cannot be split.
    return {**parts, "rest_bytes": rest if rest is None or rest >= 0 else None}


def weights_bytes(model: ModelInfo | None, dtype: str, *, quantised: bool) -> int | None:
    """Bytes of a model's weights as served: its file's size, scaled when `dtype` names another type than the file's; None when quantised on loading.

    vLLM's `auto` keeps 16-bit files as they are and narrows float32, to a type that depends on the platform: then the size is not known.
    """
    if model is None or model.weight_bytes is None or quantised:
        return None
    stored = (model.dtype or "").removeprefix("torch.").lower()
    if dtype == "auto":
        return None if stored not in DTYPE_BYTES or DTYPE_BYTES[stored] == 4 else model.weight_bytes
    if stored not in DTYPE_BYTES or dtype not in DTYPE_BYTES:
        return None
    return model.weight_bytes * DTYPE_BYTES[dtype] // DTYPE_BYTES[stored]


def _lora_bytes(adapter: ModelInfo | None, server: ServerInfo, base: ModelInfo | None) -> int | None:
    """What vLLM reserves for LoRA: the adapter's weights at the reserved rank, once a slot, in the base's type. A lower bound: slots for modules that
    this adapter leaves alone are reserved too."""
    slots, rank = _flag(server.argv, "--max-loras", 1), _flag(server.argv, "--max-lora-rank", 16)
    width = DTYPE_BYTES.get((base.dtype or "").removeprefix("torch.").lower()) if base is not None else None
    if adapter is None or not adapter.parameters or not adapter.lora_rank or width is None or slots is None or rank is None:
        return None
    return adapter.parameters * width * slots * rank // adapter.lora_rank


def _flag(argv: Sequence[str], flag: str, default: int) -> int | None:
    """A number in a command line, given as `--flag 8` or `--flag=8`; vLLM's default where it is not there."""
    for position, argument in enumerate(argv):
        if argument.startswith(flag + "="):
            text = argument.removeprefix(flag + "=")
        elif argument == flag and position + 1 < len(argv):
            text = argv[position + 1]
        else:
            continue
        return int(text) if text.isdigit() else None
    return default
