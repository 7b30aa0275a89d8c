"""Peaks, steady figures and the ledger from telemetry and model files."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.memory import weights_bytes
from perfbench.analyse.summarise import summarise
from perfbench.records import MemorySummary, ModelInfo


def _model(**given: Any) -> ModelInfo:
    values = {"path": "/m", "revision": None, "architecture": "Llama", "dtype": "bfloat16", "parameters": 500, "weight_bytes": 1000}
    return ModelInfo(**{**values, **given})


def _memory(run: Any, record: Any, variant: str = "base", server: dict[str, Any] | None = None, **given: Any) -> MemorySummary:
    trial = f"{variant}.one.r0"
    run.manifest([trial], variants=[variant], **given)
    run.trial(trial, [record(trial, 3.0)])
    run.server("s", [variant], **{"kv_cache_bytes": 4000, "kv_cache_tokens": 64, **(server or {})})
    memory: MemorySummary = summarise(run.folder).variants[variant].memory
    return memory


def test_peak_is_of_the_whole_run_and_steady_of_the_window(run: Any, record: Any, sample: Any) -> None:
    """Two devices; start-up takes more than the window. Peak 9000 + 8000, steady: medians 7000 + 5000."""
    zero = [(0.5, 9000.0), (3.0, 6000.0), (4.0, 7000.0), (5.0, 8000.0)]
    one = [(0.5, 8000.0), (3.0, 5000.0), (4.0, 5000.0)]
    run.samples(
        [sample(t, "nvml", "vram_bytes", value, server="s", device="0") for t, value in zero]
        + [sample(t, "nvml", "vram_bytes", value, server="s", device="1") for t, value in one]
        + [sample(3.0, "nvml", "vram_bytes", 1e9, server="another", device="0"), sample(3.0, "host", "host_rss_bytes", 123.0, server="s")]
    )
    memory = _memory(run, record, models={"base": _model()})
    assert (memory.vram_bytes_peak, memory.vram_bytes_steady, memory.host_rss_bytes_peak, memory.kv_cache_tokens) == (17000, 12000, 123, 64)
    assert memory.ledger == {"weights_bytes": 1000, "kv_cache_bytes": 4000, "lora_bytes": 0, "rest_bytes": 12000}


def test_a_cpu_server_splits_its_host_memory(run: Any, record: Any, sample: Any) -> None:
    run.samples([sample(3.0, "host", "host_rss_bytes", 7000.0, server="s")])
    memory = _memory(run, record, models={"base": _model()})
    assert (memory.vram_bytes_peak, memory.vram_bytes_steady) == (None, None)
    assert memory.ledger["rest_bytes"] == 2000


def test_a_peak_below_its_parts_has_no_rest(run: Any, record: Any, sample: Any) -> None:
    """The KV cache is reserved and not touched."""
    run.samples([sample(3.0, "host", "host_rss_bytes", 3000.0, server="s")])
    assert _memory(run, record, models={"base": _model()}).ledger["rest_bytes"] is None


@pytest.mark.parametrize("missing", ["weights", "kv", "telemetry"])
def test_an_unknown_part_makes_the_rest_unknown(run: Any, record: Any, sample: Any, missing: str) -> None:
    if missing != "telemetry":
        run.samples([sample(3.0, "host", "host_rss_bytes", 7000.0, server="s")])
    models = {} if missing == "weights" else {"base": _model()}
    memory = _memory(run, record, server={"kv_cache_bytes": None} if missing == "kv" else None, models=models)
    assert memory.ledger["rest_bytes"] is None


def test_lora_slots_at_the_reserved_rank(run: Any, record: Any) -> None:
    """80 adapter parameters of rank 8, reserved at rank 16 in 2 slots of 2 bytes: 640."""
    models = {"base": _model(), "adapter": _model(parameters=80, weight_bytes=320, dtype="float32", lora_rank=8)}
    argv = ["python", "--enable-lora", "--max-loras", "2", "--max-lora-rank=16"]
    assert _memory(run, record, "adapter", server={"argv": argv}, models=models).ledger["lora_bytes"] == 640


def test_an_endpoint_has_no_ledger(run: Any, record: Any) -> None:
    run.manifest(["mine.one.r0"], variants=[], endpoints={"mine": {"url": "http://x", "model": "m"}})
    run.trial("mine.one.r0", [record("mine.one.r0", 3.0)])
    run.server("mine", ["mine"])
    memory = summarise(run.folder).variants["mine"].memory
    assert (memory.ledger, memory.host_rss_bytes_peak) == ({}, None)


@pytest.mark.parametrize(
    ("stored", "served", "expected"),
    [("bfloat16", "auto", 1000), ("float16", "auto", 1000), ("float32", "auto", None), ("bfloat16", "float32", 2000), ("torch.float32", "half", 500),
     ("float8_e4m3fn", "auto", None)],
)  # fmt: skip
def test_weights_as_served(stored: str, served: str, expected: int | None) -> None:
    assert weights_bytes(_model(dtype=stored), served, quantised=False) == expected


def test_weights_quantised_on_loading_are_not_known() -> None:
    assert weights_bytes(_model(), "auto", quantised=True) is None
    assert weights_bytes(None, "auto", quantised=False) is None
