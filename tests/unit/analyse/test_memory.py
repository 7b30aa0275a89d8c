"""Peaks, steady figures and the ledger from telemetry and model files."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perfbench.analyse.ledger import number_of_flag, weights_bytes, words_of_flag
from perfbench.analyse.summarise import summarise
from perfbench.records import Linear, MemorySummary, ModelInfo, ModelShape


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


SHAPE = ModelShape(
    model_type="llama", dtype="bfloat16", layers=2, full_attention_layers=2, hidden_size=8, heads=2, kv_heads=1, head_dim=4, value_dim=4, vocab_size=16,
    tied_embeddings=True, linears=[Linear("q_proj", 8, 8, 2, 2), Linear("v_proj", 8, 4, 2, 2)], lora_embeddings=False, other_parameters=0,
)  # fmt: skip
LORA_ARGV = ["python", "--enable-lora", "--max-loras", "2", "--max-lora-rank=16"]


@pytest.mark.parametrize(
    ("args", "argv", "expected"),
    [
        # Every matrix has both of its sides in every slot, whatever the adapter adapts: 2 x 16 x (2 (8 + 8) + 2 (8 + 4)) x 2 bytes.
        ({}, LORA_ARGV, 2 * 16 * 56 * 2),
        ({"dtype": "float32"}, LORA_ARGV, 2 * 16 * 56 * 4),
        ({}, [*LORA_ARGV, "--lora-target-modules", "v_proj", "--port", "1"], 2 * 16 * 24 * 2),
        ({}, [*LORA_ARGV, "--lora-dtype", "float32"], 2 * 16 * 56 * 4),
        # Two devices: A of a column-parallel matrix is on both, B is shared out.
        ({"tensor-parallel-size": 2}, LORA_ARGV, 2 * 2 * 16 * (2 * (8 + 4) + 2 * (8 + 2)) * 2),
        ({}, ["python"], 1 * 16 * 56 * 2),
        ({}, [*LORA_ARGV, "--max-loras=many"], 2 * 16 * 56 * 2),
        ({}, ["--max-loras=many"], None),
    ],
)
def test_lora_slots_at_the_reserved_rank(run: Any, record: Any, args: dict[str, Any], argv: list[str], expected: int | None) -> None:
    models = {"base": _model(shape=SHAPE), "adapter": _model(parameters=80, weight_bytes=320, dtype="float32", lora_rank=8)}
    memory = _memory(run, record, "adapter", server={"argv": argv}, models=models, serve={"args": args, "env": {}})
    assert memory.ledger["lora_bytes"] == expected


def test_the_kv_cache_by_the_model_s_sizes(run: Any, record: Any) -> None:
    """A token takes 2 layers x 1 head x (4 + 4) x 2 bytes = 32; 64 kB hold 2000 of them, 125 blocks of 16; a request of 20 + 5 tokens takes 2 blocks."""
    server = {"kv_cache_bytes": 64_000, "kv_cache_tokens": 2000, "max_model_len": 160}
    memory = _memory(run, record, server=server, models={"base": _model(shape=SHAPE)})
    assert (memory.kv_bytes_per_token, memory.kv_cache_tokens_computed, memory.workload_sequences) == (32.0, 2000, 62.5)


def test_two_devices_hold_a_cache_each(run: Any, record: Any) -> None:
    shape = msgspec.structs.replace(SHAPE, kv_heads=2)
    server = {"kv_cache_bytes": 64_000, "max_model_len": 160}
    memory = _memory(run, record, server=server, models={"base": _model(shape=shape)}, serve={"args": {"tensor-parallel-size": 2}, "env": {}})
    assert memory.ledger["kv_cache_bytes"] == 128_000
    assert (memory.kv_bytes_per_token, memory.kv_cache_tokens_computed) == (64.0, 2000)


def test_a_model_of_unknown_sizes_has_no_figures_by_them(run: Any, record: Any) -> None:
    memory = _memory(run, record, models={"base": _model()})
    assert (memory.kv_bytes_per_token, memory.kv_cache_tokens_computed, memory.workload_sequences) == (None, None, None)


def test_flags_of_a_command_line() -> None:
    argv = ["x", "--lora-target-modules", "q_proj", "v_proj", "--max-loras=3", "--flag"]
    assert words_of_flag(argv, "--lora-target-modules") == ["q_proj", "v_proj"]
    assert words_of_flag(argv, "--flag") == []
    assert (number_of_flag(argv, "--max-loras", 1), number_of_flag(argv, "--other", 7)) == (3, 7)


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
