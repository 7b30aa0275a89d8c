"""What to serve, from whole runs: the cheaper at the SLO, else the faster, else nothing, and never a variant that is out."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from perfbench.analyse.cost import StageResult
from perfbench.analyse.recommend import recommend
from perfbench.analyse.stats import Interval
from perfbench.analyse.summarise import summarise
from perfbench.records import CapacitySummary, Recommendation, ReferenceCheck, UnderLoad

STAGE = {"arrival": "closed", "concurrency": 1, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
PRICED: dict[str, Any] = {"cost": {"server_hour_usd": 36.0}, "slo": {"ttft_s": {"p50": 1.0}}}


def _recommend(run: Any, by_trial: dict[str, list[Any]], *, one_server: bool = True, **given: Any) -> Recommendation:
    """On one server a difference holds no start, and hand-set figures are exact."""
    stages = list(dict.fromkeys(trial.split(".")[1] for trial in by_trial))
    variants = list(dict.fromkeys(trial.split(".")[0] for trial in by_trial))
    load = {"stages": [{**STAGE, "name": stage} for stage in stages]}
    run.manifest(list(by_trial), **{"variants": variants, "load": load, **given})
    if one_server:
        run.server("both", variants)
    for trial, records in by_trial.items():
        run.trial(trial, records)
    recommendation: Recommendation = summarise(run.folder).recommendation
    return recommendation


def _requests(record: Any, trial: str, count: int, **given: Any) -> list[Any]:
    return [record(trial, 2.0 + 8.0 * k / count, prompt_id=str(k), **given) for k in range(count)]


def _both(record: Any, adapter: dict[str, Any], merged: dict[str, Any], count: int = 40) -> dict[str, list[Any]]:
    return {"adapter.one.r0": _requests(record, "adapter.one.r0", count, **adapter), "merged.one.r0": _requests(record, "merged.one.r0", count, **merged)}


def test_the_faster_without_a_price(run: Any, record: Any) -> None:
    found = _recommend(run, _both(record, {"tpot": 0.25}, {"tpot": 0.2}))
    assert found.serve == "merged"
    assert found.reasons[0] == "merged has 20.0% lower TPOT than adapter at stage one (95% interval -20.0% to -20.0%): better"
    assert found.details == [], "the reasons say it all"
    assert "adapter: its quality was not measured" in found.reasons


def test_several_stages_are_one_reason_and_each_has_its_own_detail(run: Any, record: Any) -> None:
    by_trial = {
        f"{name}.{stage}.r0": _requests(record, f"{name}.{stage}.r0", 40, tpot=tpot)
        for stage, tpots in (("low", {"adapter": 0.25, "merged": 0.2}), ("high", {"adapter": 0.25, "merged": 0.1})) for name, tpot in tpots.items()
    }  # fmt: skip
    found = _recommend(run, by_trial)
    assert found.reasons[0] == "merged has 20.0% to 60.0% lower TPOT than adapter over 2 stages (better in 2)"
    assert found.details == [
        "merged has 20.0% lower TPOT than adapter at stage low (95% interval -20.0% to -20.0%): better",
        "merged has 60.0% lower TPOT than adapter at stage high (95% interval -60.0% to -60.0%): better",
    ]


def test_stages_that_point_both_ways_say_both_ends(run: Any, record: Any) -> None:
    by_trial = {
        f"{name}.{stage}.r0": _requests(record, f"{name}.{stage}.r0", 40, tpot=tpot)
        for stage, tpots in (("low", {"adapter": 0.25, "merged": 0.2}), ("high", {"adapter": 0.2, "merged": 0.25})) for name, tpot in tpots.items()
    }  # fmt: skip
    found = _recommend(run, by_trial)
    assert (found.serve, found.reasons[2]) == (None, "merged has -20.0% to +25.0% TPOT against adapter over 2 stages (better in 1, worse in 1)")


def test_a_price_of_many_zeros_is_said_per_million_requests(run: Any, record: Any) -> None:
    by_trial = {"adapter.one.r0": _requests(record, "adapter.one.r0", 20), "merged.one.r0": _requests(record, "merged.one.r0", 40)}
    found = _recommend(run, by_trial, **{**PRICED, "cost": {"server_hour_usd": 0.09}})
    assert found.reasons[0].startswith("merged costs $6.25 per million requests, adapter $12.5 (50% less); ")


def test_a_pass_is_short_and_in_full_among_the_details(run: Any, record: Any, quality_block: Any) -> None:
    for variant, passed in (("base", 20), ("adapter", 50), ("merged", 50)):
        run.quality(variant, [k < passed for k in range(60)])
    by_trial = {"base.one.r0": _requests(record, "base.one.r0", 40), **_both(record, {"tpot": 0.25}, {"tpot": 0.1})}
    found = _recommend(run, by_trial, quality=quality_block)
    assert "merged: quality passes, accuracy 83.3%, +50.0 points against base" in found.reasons
    assert any(detail.startswith("merged: quality pass (accuracy differs from base by +0.500 (90% interval ") for detail in found.details)


def test_what_gets_nothing_right_is_not_served_however_fast_it_is(run: Any, record: Any, quality_block: Any) -> None:
    for variant in ("base", "adapter", "merged"):
        run.quality(variant, [variant == "adapter" and k < 30 for k in range(60)])
    by_trial = {"base.one.r0": _requests(record, "base.one.r0", 40), **_both(record, {"tpot": 0.25}, {"tpot": 0.1})}
    found = _recommend(run, by_trial, quality=quality_block)
    assert found.serve == "adapter"
    assert "merged is out: it does not do the task (accuracy 0.0%)" in found.reasons


def test_the_faster_may_be_the_adapter(run: Any, record: Any) -> None:
    assert _recommend(run, _both(record, {"tpot": 0.2}, {"tpot": 0.25})).serve == "adapter"


def test_the_cheaper_at_the_slo(run: Any, record: Any) -> None:
    """Twice the good requests at half the price, and the goodput comparison is certain."""
    by_trial = {"adapter.one.r0": _requests(record, "adapter.one.r0", 20), "merged.one.r0": _requests(record, "merged.one.r0", 40)}
    found = _recommend(run, by_trial, **PRICED)
    assert found.serve == "merged"
    said = "merged costs $0.00250 a request, adapter $0.00500 (50% less); merged has 100.0% higher goodput than adapter at stage one (95% interval"
    assert found.reasons[0].startswith(said)


def test_the_one_that_meets_the_slo_at_a_higher_stage(run: Any, record: Any) -> None:
    by_trial = {
        "adapter.low.r0": _requests(record, "adapter.low.r0", 20),
        "adapter.high.r0": _requests(record, "adapter.high.r0", 40, ttft=1.5, tpot=0.0),
        "merged.low.r0": _requests(record, "merged.low.r0", 20),
        "merged.high.r0": _requests(record, "merged.high.r0", 40),
    }
    found = _recommend(run, by_trial, **PRICED)
    assert found.serve == "merged"
    assert found.reasons[0] == "merged costs $0.00250 a request, adapter $0.00500: merged meets the SLO at stage high, adapter misses it there"


def test_two_best_stages_that_both_meet_the_slo_are_no_reason_by_themselves(run: Any, record: Any) -> None:
    """merged has the most goodput at high, adapter at low, and each is as fast as the other at its own: which stage came out best is chance."""
    rng = np.random.default_rng(3)
    counts = {"adapter.low.r0": 40, "adapter.high.r0": 38, "merged.low.r0": 38, "merged.high.r0": 42}
    by_trial = {
        trial: [record(trial, 2.0 + float(at), prompt_id=str(k)) for k, at in enumerate(np.sort(rng.uniform(0, 8, count)))] for trial, count in counts.items()
    }
    found = _recommend(run, by_trial, **PRICED)
    assert found.serve is None
    assert any(reason.endswith("a difference that the measurement does not make certain") for reason in found.reasons)


def test_two_best_stages_and_one_variant_better_at_both(run: Any, record: Any) -> None:
    counts = {"adapter.low.r0": 20, "adapter.high.r0": 18, "merged.low.r0": 40, "merged.high.r0": 44}
    found = _recommend(run, {trial: _requests(record, trial, count) for trial, count in counts.items()}, **PRICED)
    assert found.serve == "merged" and "higher goodput than adapter at stage high" in found.reasons[0]


def test_only_one_meets_the_slo_at_all(run: Any, record: Any) -> None:
    found = _recommend(run, _both(record, {"tpot": 0.2}, {"ttft": 1.5, "tpot": 0.05}), **PRICED)
    assert found.serve == "adapter"
    assert found.reasons[0] == "adapter has a price, $0.00250 a request; merged has none: no stage meets the SLO"
    assert found.reasons[1].startswith("against it: merged has 75.0% lower TPOT than adapter at stage one (95% interval -75.0% to -75.0%): better")


def test_the_same_price_leaves_it_to_tpot(run: Any, record: Any) -> None:
    found = _recommend(run, _both(record, {"tpot": 0.25}, {"tpot": 0.2}), **PRICED)
    assert found.serve == "merged"
    assert found.reasons[-3] == "adapter costs $0.00250 a request, merged $0.00250: the same within 2%"


def test_no_difference_is_no_recommendation(run: Any, record: Any) -> None:
    rng = np.random.default_rng(1)
    noisy = {
        f"{name}.one.r0": [record(f"{name}.one.r0", 2.0 + k * 0.2, prompt_id=str(k), tpot=float(rng.uniform(0.1, 0.2))) for k in range(40)]
        for name in ("adapter", "merged")
    }
    found = _recommend(run, noisy)
    assert found.serve is None
    assert found.reasons[0] == "the run cannot tell adapter and merged apart; more repeats or longer stages narrow the intervals"


def test_two_servers_of_one_start_each_are_not_called_the_same(run: Any, record: Any) -> None:
    """Every request takes as long in both, and yet another start could differ by more than the margin."""
    found = _recommend(run, _both(record, {"tpot": 0.25}, {"tpot": 0.25}), one_server=False)
    assert found.serve is None
    assert found.reasons[0].startswith("the run cannot tell adapter and merged apart; each server was started once, and repeats with a start of their own")


def test_a_variant_whose_quality_fails_is_out(run: Any, record: Any, quality_block: Any) -> None:
    """Merged is faster, and wrong."""
    for variant, passed in (("base", 40), ("adapter", 40), ("merged", 10)):
        run.quality(variant, [k < passed for k in range(60)])
    by_trial = {"base.one.r0": _requests(record, "base.one.r0", 40), **_both(record, {"tpot": 0.25}, {"tpot": 0.1})}
    found = _recommend(run, by_trial, quality=quality_block)
    assert found.serve == "adapter"
    assert any(reason.startswith("merged is out: its quality fails") for reason in found.reasons)
    assert found.reasons[-1] == "adapter is the only fine-tuned variant that is left"


def test_a_variant_that_answers_worse_when_its_server_is_busy_is_out(run: Any, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [
        UnderLoad(variant=name, stage="one", metric="exact_match", n=60, verdict=verdict, reason="exact_match of the same 60 prompts differs")
        for name, verdict in (("adapter", "inconclusive"), ("merged", "fail"))
    ]
    monkeypatch.setattr("perfbench.analyse.summarise.busy_and_idle", lambda folder, experiment: busy)
    found = _recommend(run, _both(record, {"tpot": 0.25}, {"tpot": 0.1}))
    assert found.serve == "adapter"
    assert "merged is out: it answers worse when its server is busy (stage one: exact_match of the same 60 prompts differs)" in found.reasons


def test_a_variant_that_answers_nonsense_is_out(run: Any, record: Any) -> None:
    run.folder.append_journal("reference_check", "adapter", ReferenceCheck(variant="adapter", verdict="fail", reason="nonsense"))
    run.folder.append_journal("reference_check", "merged", ReferenceCheck(variant="merged", verdict="skipped", reason="too large"))
    assert _recommend(run, _both(record, {"tpot": 0.1}, {"tpot": 0.2})).serve == "merged"


def test_a_variant_without_usable_trials_is_unknown_and_the_other_is_no_winner(run: Any, record: Any) -> None:
    found = _recommend(run, {"adapter.one.r0": [], "merged.one.r0": _requests(record, "merged.one.r0", 40)})
    assert found.serve is None
    assert found.reasons == [
        "the speed of adapter is not known, none of its trials can be used: no request was due in the measured window",
        "so merged has nothing to be held against; measure again",
        "merged: its quality was not measured",
    ]


def test_a_variant_that_is_out_need_not_be_measured(run: Any, record: Any, quality_block: Any) -> None:
    for variant, passed in (("base", 40), ("adapter", 10), ("merged", 40)):
        run.quality(variant, [k < passed for k in range(60)])
    by_trial = {"base.one.r0": _requests(record, "base.one.r0", 40), "adapter.one.r0": [], "merged.one.r0": _requests(record, "merged.one.r0", 40)}
    assert _recommend(run, by_trial, quality=quality_block).serve == "merged"


def test_the_same_is_said_as_the_same(run: Any, record: Any) -> None:
    found = _recommend(run, _both(record, {"tpot": 0.25}, {"tpot": 0.25}))
    assert found.serve is None
    assert found.reasons[0] == "adapter and merged are the same within 2%: either may be served; an adapter can share its server"


@pytest.mark.parametrize("name", ["base", "ours"])
def test_without_a_fine_tune_there_is_nothing_to_recommend(run: Any, record: Any, name: str) -> None:
    found = _recommend(run, {f"{name}.one.r0": _requests(record, f"{name}.one.r0", 20)})
    assert found == Recommendation(serve=None, reasons=["the run has no fine-tuned variant (adapter, merged) to recommend"])


def _capacity(low: float, high: float, stage: str = "search-rate-2") -> CapacitySummary:
    return CapacitySummary(find="max_rate", value=(low + high) / 2, low=low, high=high, probes=4, server_s=60.0, basis="b", stage=stage)


def _edge_result(rate: float, stage: str = "search-rate-2") -> StageResult:
    return StageResult(stage, "poisson", rate, rate, Interval(rate, rate), 8.0, 40.0, None, True)


@pytest.mark.parametrize(("adapter_high", "serve"), [(7.0, "merged"), (12.0, None)])
def test_prices_at_the_edges_of_searches_decide_where_the_edges_are_apart(run: Any, record: Any, adapter_high: float, serve: str | None) -> None:
    """Probes of equal names are no common stage: each variant chose its own loads."""
    _recommend(run, _both(record, {}, {}), **PRICED)
    variants = summarise(run.folder).variants
    priced = {
        name: msgspec.structs.replace(
            variants[name], capacity=capacity, cost=msgspec.structs.replace(variants[name].cost, usd_per_request=price)
        )
        for name, capacity, price in (("adapter", _capacity(5.0, adapter_high), 2e-6), ("merged", _capacity(11.0, 15.0), 1e-6))
    }
    found = recommend(priced, [], [], {"adapter": _edge_result(6.0), "merged": _edge_result(13.0)})
    assert found.serve == serve
    said = f"merged meets the SLO up to 13 requests/s (95% interval 11 to 15), adapter meets the SLO up to {(5 + adapter_high) / 2:.3g} requests/s"
    assert any(said in reason for reason in found.reasons)
