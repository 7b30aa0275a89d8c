"""Prices by hand: 36 USD an hour is 0.01 USD a second."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.summarise import summarise
from perfbench.records import CostSummary

STAGE = {"arrival": "closed", "concurrency": 1, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
FIXED = {**STAGE, "output": {"fixed": 5}}
SLO = {"ttft_s": {"p50": 1.0}}
COST = {"server_hour_usd": 36.0}


def _cost(run: Any, stages: dict[str, dict[str, Any]], by_stage: dict[str, list[Any]], **scenario: Any) -> CostSummary:
    load = {"stages": [{"name": name, **stage} for name, stage in stages.items()]}
    trials = [f"adapter.{name}.r0" for name in by_stage]
    run.manifest(trials, **{"variants": ["adapter"], "load": load, "cost": COST, **scenario})
    for trial, (_, records) in zip(trials, by_stage.items(), strict=True):
        run.trial(trial, records)
    return summarise(run.folder).variants["adapter"].cost


def _requests(record: Any, stage: str, count: int, **given: Any) -> list[Any]:
    return [record(f"adapter.{stage}.r0", 2.0 + 8.0 * k / count, prompt_id=str(k), **given) for k in range(count)]


def test_price_at_the_stage_with_the_most_goodput_that_meets_the_slo(run: Any, record: Any, quality_block: Any) -> None:
    """low: 10 good in 10 s. high: 20 good of 30, meets p50. over: 40, all late. Price 0.01 / 2; raw 0.01 / 4."""
    run.quality("adapter", [True] * 6 + [False] * 2)
    high = _requests(record, "high", 20) + [record("adapter.high.r0", 2.1 + k / 2, prompt_id=f"late{k}", ttft=1.5) for k in range(10)]
    by_stage = {"low": _requests(record, "low", 10), "high": high, "over": _requests(record, "over", 40, ttft=1.5, tpot=0.0)}
    cost = _cost(run, {"low": STAGE, "high": STAGE, "over": STAGE}, by_stage, slo=SLO, quality=quality_block)
    assert cost.usd_per_request == pytest.approx(0.005)
    assert cost.usd_per_million_output_tokens == pytest.approx(0.005 / 5 * 1e6)
    assert cost.usd_per_correct_request == pytest.approx(0.005 / 0.75)
    assert cost.usd_per_request_raw == pytest.approx(0.0025)
    assert "2 good requests/s in stage high" in cost.basis and "75.0% of 8" in cost.basis


def test_stages_of_fixed_length_set_no_price_beside_natural_ones(run: Any, record: Any) -> None:
    by_stage = {"natural": _requests(record, "natural", 10), "fixed": _requests(record, "fixed", 20)}
    cost = _cost(run, {"natural": STAGE, "fixed": FIXED}, by_stage, slo=SLO)
    assert (cost.usd_per_request, cost.usd_per_request_raw) == (pytest.approx(0.01), pytest.approx(0.01))


def test_answers_of_one_token_meet_a_limit_on_the_time_per_token(run: Any, record: Any) -> None:
    """Labels of one token: none of them can be late after the first, so that the stage has a price, as their goodput says."""
    slo = {"tpot_s": {"p50": 0.1}}
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10, n=1, ttft=0.1)}, slo=slo)
    assert cost.usd_per_request == pytest.approx(0.01)


def test_goodput_at_the_slo_is_the_one_that_the_price_rests_on(run: Any, record: Any) -> None:
    """Also where answers of a fixed length are good more often: who divides one by the other gets the price."""
    _cost(run, {"natural": STAGE, "fixed": FIXED}, {"natural": _requests(record, "natural", 10), "fixed": _requests(record, "fixed", 20)}, slo=SLO)
    variant = summarise(run.folder).variants["adapter"]
    assert variant.at_slo.stage == "natural"
    assert variant.cost.usd_per_request == pytest.approx(variant.cost.server_hour_usd / 3600 / variant.at_slo.goodput_per_s.value)


def test_stages_of_fixed_length_do_where_there_is_nothing_else(run: Any, record: Any) -> None:
    assert _cost(run, {"fixed": FIXED}, {"fixed": _requests(record, "fixed", 20)}, slo=SLO).usd_per_request == pytest.approx(0.005)


def test_no_price(run: Any, record: Any) -> None:
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, cost=None)
    assert cost == CostSummary(
        usd_per_request=None, usd_per_million_output_tokens=None, usd_per_correct_request=None, usd_per_request_raw=None,
        basis="the scenario gives no price (cost.server_hour_usd or cost.gpu_hour_usd)", gpus_per_server=1,
    )  # fmt: skip


def test_no_slo_says_so(run: Any, record: Any) -> None:
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)})
    assert cost.usd_per_request == cost.usd_per_request_raw == pytest.approx(0.01)
    assert cost.basis.endswith("the raw throughput of stage one: the scenario sets no SLO")


def test_no_stage_meets_the_slo(run: Any, record: Any) -> None:
    """Zero goodput: no price, never an infinite or a zero one; the raw price stands beside."""
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 20, ttft=1.5, tpot=0.0)}, slo=SLO)
    assert (cost.usd_per_request, cost.usd_per_million_output_tokens, cost.usd_per_correct_request) == (None, None, None)
    assert cost.usd_per_request_raw == pytest.approx(0.005)
    assert cost.basis == "no stage meets the SLO"


def test_too_few_requests_for_the_percentile(run: Any, record: Any) -> None:
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, slo={"ttft_s": {"p99": 1.0}})
    assert cost.usd_per_request is None
    assert cost.basis == "no stage is known to meet the SLO: some have too few requests for its percentile, or no usage"


def test_repeats_are_judged_together(run: Any, record: Any) -> None:
    """Ten requests a repeat are too few for p95, twenty in two repeats are enough: 20 good in 20 s."""
    trials = [f"adapter.one.r{repeat}" for repeat in range(2)]
    run.manifest(trials, variants=["adapter"], cost=COST, slo={"ttft_s": {"p95": 1.0}})
    for trial in trials:
        run.trial(trial, [record(trial, 2.0 + 0.8 * k, prompt_id=str(k)) for k in range(10)])
    assert summarise(run.folder).variants["adapter"].cost.usd_per_request == pytest.approx(0.01)


def test_void_trials_set_no_price(run: Any, record: Any) -> None:
    run.manifest(["adapter.one.r0"], variants=["adapter"], cost=COST)
    run.trial("adapter.one.r0", _requests(record, "one", 10), client_cpu_s=9.9)
    assert summarise(run.folder).variants["adapter"].cost.basis == "no trial can be used: all are missing or void"


def test_nothing_right_has_no_price_of_a_correct_request(run: Any, record: Any, quality_block: Any) -> None:
    run.quality("adapter", [False] * 8)
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, slo=SLO, quality=quality_block)
    assert cost.usd_per_request == pytest.approx(0.01) and cost.usd_per_correct_request is None


def test_a_shared_server_is_said(run: Any, record: Any) -> None:
    run.server("lora", ["base+lora", "adapter"])
    assert "also hosts base+lora" in _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, slo=SLO).basis


def test_a_server_costs_its_gpus(run: Any, record: Any) -> None:
    """9 an hour for each of 2 x 2 GPUs is 36 an hour."""
    serve = {"args": {"tensor-parallel-size": 2, "pipeline-parallel-size": "2"}, "env": {}}
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, cost={"gpu_hour_usd": 9.0}, serve=serve, slo=SLO)
    assert (cost.server_hour_usd, cost.gpus_per_server, cost.usd_per_request) == (36.0, 4, pytest.approx(0.01))


def test_a_variation_costs_its_own_gpus(run: Any, record: Any) -> None:
    variations = {"wide": {"of": "adapter", "args": {"tensor-parallel-size": 4}}}
    run.manifest(["wide.one.r0"], variants=["adapter"], variations=variations, cost={"gpu_hour_usd": 9.0}, load={"stages": [{"name": "one", **STAGE}]})
    run.trial("wide.one.r0", [record("wide.one.r0", 2.0 + k / 2, prompt_id=str(k)) for k in range(10)])
    found = summarise(run.folder).variants
    assert (found["wide"].cost.server_hour_usd, found["adapter"].cost.server_hour_usd) == (36.0, 9.0)


def test_the_gpus_of_an_endpoint_are_not_known(run: Any, record: Any) -> None:
    run.manifest(["mine.one.r0"], variants=[], endpoints={"mine": {"url": "http://x", "model": "m"}}, cost={"gpu_hour_usd": 9.0})
    run.trial("mine.one.r0", [record("mine.one.r0", 2.0 + k / 2, prompt_id=str(k)) for k in range(10)])
    cost = summarise(run.folder).variants["mine"].cost
    assert cost.usd_per_request is None and "give cost.server_hour_usd" in cost.basis


def test_electricity_stands_beside_the_price(run: Any, record: Any, sample: Any) -> None:
    """3,600 J over the window and 10 requests that ended in it are 360 J a request; at 0.5 a kWh (3.6e6 J) that is 0.00005."""
    run.server("lora", ["adapter"])
    readings = [sample(t, "nvml", "energy_j", 1000.0 + 300.0 * (t - 2.0), device="0") for t in (2.0, 6.0, 11.999)] + [
        sample(3.0, "nvml", "vram_bytes", 5e9, device="0", server="lora"), sample(14.0, "nvml", "energy_j", 1e9, device="0"),
    ]  # fmt: skip
    run.samples(readings)
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, cost={**COST, "usd_per_kwh": 0.5, "currency": "EUR"}, slo=SLO)
    assert cost.energy_usd_per_request == pytest.approx(0.5 * 300.0 * 9.999 / 10 / 3.6e6)
    assert (cost.usd_per_request, cost.currency) == (pytest.approx(0.01), "EUR")
    assert "36 EUR an hour" in cost.basis and "0.5 EUR a kWh" in cost.basis


def test_no_counter_has_no_price_of_electricity(run: Any, record: Any) -> None:
    cost = _cost(run, {"one": STAGE}, {"one": _requests(record, "one", 10)}, cost={**COST, "usd_per_kwh": 0.5}, slo=SLO)
    assert cost.energy_usd_per_request is None and "there is no energy counter" in cost.basis


def test_the_interval_of_goodput_is_that_of_its_parts(run: Any, record: Any) -> None:
    """Two good requests end in each eighth of the window: no spread, but what the edges cut off. Requests that end one by one have one."""
    from perfbench.analyse.cost import stage_results
    from perfbench.analyse.experiment import experiment_of
    from perfbench.analyse.summarise import analyse_trials
    from perfbench.analyse.telemetry import Telemetry

    even = [record("adapter.even.r0", 0.5 + 1.25 * k + 0.1 * half, prompt_id=f"{k}.{half}") for k in range(10) for half in range(2)]
    odd = [record("adapter.odd.r0", 2.0 + 8.0 * (k / 20) ** 2, prompt_id=str(k)) for k in range(20)]
    _cost(run, {"even": STAGE, "odd": STAGE}, {"even": even, "odd": odd}, slo=SLO)
    manifest = run.folder.manifest()
    experiment = experiment_of(manifest)
    found = stage_results(analyse_trials(run.folder, manifest, experiment, Telemetry.of(run.folder), {}), experiment)
    half = 1.959964 * (1.5 / 6) ** 0.5 / 10
    assert found[0].goodput_interval == (pytest.approx(1.6 - half, abs=0.06), pytest.approx(1.6 + half, abs=0.06))
    assert found[0].goodput_per_s == pytest.approx(1.6)
    low, high = found[1].goodput_interval
    assert low < found[1].goodput_per_s < high
