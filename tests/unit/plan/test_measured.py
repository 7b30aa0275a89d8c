"""Measured stages against the roofline: one closed stage of a run on a GPU that the table knows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perfbench.models.shape import shape_of
from perfbench.plan.measured import with_roofline
from perfbench.records import (
    SCHEMA_VERSION,
    Audit,
    CostSummary,
    Manifest,
    MemorySummary,
    MetricSummary,
    ModelInfo,
    Rates,
    Recommendation,
    RequestCounts,
    Summary,
    TrialSummary,
    VariantSummary,
)

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
READ = 2 * (32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 128256 * 4096)


def _metric(mean: float, n: int) -> MetricSummary:
    return MetricSummary(unit="", mean=mean, p50=mean, p90=None, p95=None, p99=None, ci95_low=None, ci95_high=None, n=n)


def _trial(tpot_s: float, n: int, verdict: Any = "valid", stage: str = "four") -> TrialSummary:
    metrics = {"prompt_tokens": _metric(1000, n), "output_tokens": _metric(200, n), "tpot_s": _metric(tpot_s, n), "ttft_s": _metric(0.1, n)}
    return TrialSummary(
        stage=stage, repeat=0, arrival="closed", audit=Audit(verdict=verdict, reasons=[]), requests=RequestCounts(ok=n, failed=0), metrics=metrics,
        rates=Rates(requests_per_s=1.0, output_tokens_per_s=1.0, goodput_per_s=None),
    )  # fmt: skip


def _run(trials: list[TrialSummary], gpus: list[str], **info: Any) -> tuple[Summary, Manifest]:
    shape = shape_of(CONFIG, {}, stored_dtype=None, where="config.json")
    model = ModelInfo(path="/m", revision=None, architecture=None, dtype="bfloat16", parameters=None, weight_bytes=None, **{"shape": shape, **info})
    stages = [{"name": "four", "arrival": "closed", "concurrency": 4}, {"name": "open", "arrival": "poisson", "rate_per_s": 1}]
    scenario = {"variants": ["base"], "endpoints": {"mine": {}}, "serve": {"args": {"tensor-parallel-size": 2}}, "load": {"stages": stages}}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, run_id="r", scenario_name="s", scenario=scenario, scenario_file=None, scenario_text="", command=[], started_utc="",
        perfbench_version="0", versions={}, hardware={"gpus": [{"name": name} for name in gpus]}, git=None, hashes={}, models={"base": model}, trials=[],
    )  # fmt: skip
    memory = MemorySummary(vram_bytes_peak=None, vram_bytes_steady=None, host_rss_bytes_peak=None, kv_cache_tokens=None, ledger={})
    cost = CostSummary(usd_per_request=None, usd_per_million_output_tokens=None, usd_per_correct_request=None, usd_per_request_raw=None, basis="")
    variants = {name: VariantSummary(trials=trials, memory=memory, cost=cost, quality=None) for name in ("base", "mine")}
    recommendation = Recommendation(serve=None, reasons=[])
    summary = Summary(schema_version=1, run_id="r", scenario="s", valid=True, variants=variants, comparisons=[], recommendation=recommendation, plan=None)
    return summary, manifest


def test_share_by_hand() -> None:
    """Two repeats of 10 ms and 20 ms with 30 and 10 requests are 12.5 ms; four streams of 1,100 tokens on two H100s."""
    trials = [_trial(0.010, 30), _trial(0.020, 10), _trial(9.9, 10, "void"), _trial(9.9, 10, stage="open")]
    found = with_roofline(*_run(trials, ["NVIDIA H100 80GB HBM3"] * 2))
    (share,) = found.variants["base"].roofline
    bound = (READ / 2 + 4 * 1100 * 65_536) / 3.35e12
    assert (share.gpu, share.gpus, share.stage, share.streams) == ("h100-80gb", 2, "four", 4)
    assert share.tpot_s == pytest.approx(0.0125) and share.tpot_share == pytest.approx(bound / 0.0125, rel=1e-4)
    assert share.ttft_share is not None and 0 < share.ttft_share < 1
    assert found.variants["mine"].roofline == []


def test_a_variation_is_held_to_its_own_gpus() -> None:
    summary, manifest = _run([_trial(0.01, 10)], ["NVIDIA H100 80GB HBM3"])
    scenario = {**manifest.scenario, "variants": [], "variations": {"base": {"of": "base", "args": {"tensor-parallel-size": 1}}}}
    (share,) = with_roofline(summary, msgspec.structs.replace(manifest, scenario=scenario)).variants["base"].roofline
    assert share.gpus == 1 and share.tpot_bound_s == pytest.approx((READ + 4 * 1100 * 131_072) / 3.35e12, rel=1e-4)


@pytest.mark.parametrize(("gpus", "info"), [([], {}), (["GeForce 256"], {}), (["NVIDIA L4"], {"shape": None})])
def test_no_share_where_something_is_not_known(gpus: list[str], info: dict[str, Any]) -> None:
    summary, manifest = _run([_trial(0.01, 10)], gpus, **info)
    assert with_roofline(summary, manifest).variants["base"].roofline == []


def test_the_report_shows_it() -> None:
    from perfbench.report.evidence import roofline_table

    summary, manifest = _run([_trial(0.01, 10)], ["NVIDIA H100 80GB HBM3"])
    table = roofline_table(with_roofline(summary, manifest))
    assert [cell.text for cell in table.rows[0]][:4] == ["four", "base", "4", "10.0 ms"] and "2 x h100-80gb" in table.caption
    assert roofline_table(msgspec.structs.replace(summary)).rows == ()
