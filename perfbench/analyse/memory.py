"""What each variant's server takes.

Peak is the largest reading while the server ran, start-up included: what must be there. Steady is the median over the measured windows. A server on
several devices has the sum of its devices' figures. What it is taken for, `ledger` says: it splits the peak (VRAM where it was measured, else host memory).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.ledger import kv_figures, ledger
from perfbench.analyse.telemetry import Telemetry
from perfbench.records import MemorySummary, ModelInfo, ServerInfo, TrialOutcome

NO_MEMORY = MemorySummary(vram_bytes_peak=None, vram_bytes_steady=None, host_rss_bytes_peak=None, kv_cache_tokens=None, ledger={})


def memory_summary(
    variant: str,
    server: ServerInfo | None,
    *,
    windows: Sequence[TrialOutcome],
    telemetry: Telemetry,
    experiment: Experiment,
    models: Mapping[str, ModelInfo],
    lengths: Sequence[int] = (),
) -> MemorySummary:
    """Memory of the server that hosts a variant. `windows` are the outcomes of all trials on that server, `lengths` the tokens of the variant's requests,
    prompt and answer."""
    if server is None:
        return NO_MEMORY
    vram_peak = over_devices(telemetry.gauge("vram_bytes", server=server.name), "max")
    vram_steady = over_devices(telemetry.gauge("vram_bytes", server=server.name, windows=windows), "median")
    rss_peak = over_devices(telemetry.gauge("host_rss_bytes", server=server.name), "max")
    kv = kv_figures(variant, server, experiment, models, lengths)
    return MemorySummary(
        vram_bytes_peak=vram_peak,
        vram_bytes_steady=vram_steady,
        host_rss_bytes_peak=rss_peak,
        kv_cache_tokens=server.kv_cache_tokens,
        ledger=ledger(variant, server, vram_peak if vram_peak is not None else rss_peak, experiment, models),
        kv_bytes_per_token=kv.bytes_per_token,
        kv_cache_tokens_computed=kv.tokens,
        workload_sequences=kv.sequences,
        shared_with=[other for other in server.variants if other != variant],
    )


def over_devices(readings: pl.DataFrame, statistic: Literal["max", "median"]) -> int | None:
    """Largest or median reading in bytes of each device, summed; None without readings."""
    if readings.is_empty():
        return None
    value = pl.col("value").max() if statistic == "max" else pl.col("value").median()
    return round(readings.group_by("device").agg(value)["value"].sum())
