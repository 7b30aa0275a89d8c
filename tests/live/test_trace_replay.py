"""The published traces of Azure and Mooncake, scaled, through the shipped scenario and a real vLLM with the demo's model. About a minute on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perfbench.report.formats import seconds
from perfbench.results import RunFolder
from perfbench.run import run_scenario
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.model import Endpoint
from perfbench.scenario.paths import cache_folder
from perfbench.serve.server import Server, installed_vllm
from perfbench.workload.stage_traces import stage_traces

pytestmark = [pytest.mark.live, pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed")]

SHIPPED = Path(__file__).parents[2] / "scenarios" / "trace-replay.yaml"
TRACES = next((folder for parent in SHIPPED.parents if (folder := parent / "shared" / "data" / "traces").is_dir()), Path("shared/data/traces"))
CASES = {
    "azure": ("AzureLLMInferenceTrace_conv.csv", {"time_scale": 1.0, "length_scale": 0.25}),
    "mooncake": ("mooncake_synthetic_trace.jsonl", {"time_scale": 3.0, "length_scale": 0.02}),
}


@pytest.fixture
def scenario() -> Scenario:
    if not (cache_folder() / "demo" / "base" / "config.json").is_file():
        pytest.skip("the demo's model is not on this machine; `perfbench demo` makes it")
    return load_scenario(SHIPPED)


def replaying(scenario: Scenario, path: Path, scales: dict[str, float], url: str) -> Scenario:
    """The scenario with this trace, over a quarter of a minute, against the running server."""
    (stage,) = scenario.load.stages
    assert stage.trace is not None
    trace = stage.trace.model_copy(update={"path": str(path), "context_tokens": 1024, **scales})
    short: dict[str, Any] = {"trace": trace, "warmup_s": 2.0, "duration_s": 14.0}
    load = scenario.load.model_copy(update={"stages": (stage.model_copy(update=short),)})
    return scenario.model_copy(update={"variants": (), "endpoints": {"base": Endpoint(url=url, model="base")}, "load": load})


@pytest.mark.parametrize("name", CASES)
def test_a_published_trace_is_replayed_as_it_was_recorded(scenario: Scenario, demo_server: Server, tmp_path: Path, name: str) -> None:
    file, scales = CASES[name]
    if not (TRACES / file).is_file():
        pytest.skip(f"{TRACES / file} is not here: the published trace is not replayed")
    wanted = replaying(scenario, TRACES / file, scales, demo_server.url)
    planned = stage_traces(wanted, say=lambda text: None)["replay"]
    folder = RunFolder.open(run_scenario(wanted, scenario_file=None, parent=tmp_path, quiet=True, check_reference=False, measure_floor=False).path)
    records = folder.records().collect().sort("scheduled_ns")
    outcome = folder.finished("trial_finished")["base.replay.r0"]
    assert len(records) == len(planned.prompts) > 8
    assert (records["scheduled_ns"] - outcome["started_ns"]).to_list() == planned.offsets_ns.tolist()
    answered = records.filter(pl.col("status") == "ok")
    assert len(answered) == len(records)
    assert records["output_tokens"].to_list() == [output.fixed for output in planned.outputs]
    assert all(tokens + output.fixed <= 1024 for tokens, output in zip(records["prompt_tokens"], planned.outputs, strict=True) if output.fixed)
    use = folder.manifest().traces["replay"]
    assert (use.format, use.requests) == (name, len(records))
    (trial,) = folder.summary().variants["base"].trials
    lag_ms = (records["sent_ns"] - records["scheduled_ns"]).to_numpy() / 1e6
    print(
        f"\n{name}: {len(records)} requests, {use.clipped_prompts} prompts and {use.clipped_answers} answers clipped, prefixes shared: {use.shares_prefixes}, "
        f"{records['prompt_tokens'].sum()} tokens in, {records['output_tokens'].sum()} out, cached {records['cached_tokens'].sum()}, "
        f"TTFT p50 {seconds(trial.metrics['ttft_scheduled_s'].p50)} p95 {seconds(trial.metrics['ttft_scheduled_s'].p95)}, "
        f"TPOT p50 {seconds(trial.metrics['tpot_s'].p50)}, "
        f"send lag at most {lag_ms.max():.2f} ms, audit {trial.audit.verdict}"
    )
