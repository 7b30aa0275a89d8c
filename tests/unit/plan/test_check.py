"""The planned size, simulated: queues that are known, the SLO's own percentile, sizes that are too small."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.cost import ServerPrice
from perfbench.plan.capacity import Rule, plan_variant
from perfbench.plan.check import MOST_REPLICAS, _held_to_measured, checked, simulation
from perfbench.plan.curve import Curve
from perfbench.plan.evidence import VariantEvidence, evidence_of
from perfbench.plan.simulate import ROUTERS, Service
from perfbench.records import Demand, Estimate, VariantPlan
from perfbench.scenario.model import SloLimit

LENGTHS = [(20.0, 1.0)]
ONE_AT_ONCE = Service(first=Curve(((1.0, 0.1),)), decode=Curve(((1.0, 0.0),)), slots=1)
SLO = {"ttft_s": SloLimit(p95=0.5)}


def test_a_queue_with_a_known_wait() -> None:
    """M/D/1 at half load, by Lindley's recursion over 500,000 requests: 95% have their first token within 0.306 s."""
    found = simulation(ONE_AT_ONCE, LENGTHS, 5.0, 1, "random", {})
    assert found.stable and found.meets is None and found.tpot_p95_s is None
    assert found.ttft_p95_s == pytest.approx(0.306, rel=0.06)


def test_routers_differ_as_they_should() -> None:
    """At 70% of four servers: arrivals at random to each are the worst by far."""
    waits = {router: simulation(ONE_AT_ONCE, LENGTHS, 28.0, 4, router, SLO).ttft_p95_s or 0.0 for router in ROUTERS}
    assert waits["random"] > 2 * waits["round-robin"] > 0.2 and waits["random"] > 2 * waits["least-outstanding"] > 0.2


def test_the_slo_is_judged_at_its_own_percentile() -> None:
    median, tail = (simulation(ONE_AT_ONCE, LENGTHS, 7.0, 1, "random", {"ttft_scheduled_s": limit}) for limit in (SloLimit(p50=0.3), SloLimit(p99=0.3)))
    assert (median.meets, tail.meets) == (True, False)


def test_too_few_fall_behind_and_have_no_percentile() -> None:
    found = simulation(ONE_AT_ONCE, LENGTHS, 15.0, 1, "random", SLO)
    assert (found.stable, found.ttft_p95_s, found.meets) == (False, None, False)


def test_a_large_fleet_is_simulated_in_part() -> None:
    whole = simulation(ONE_AT_ONCE, LENGTHS, 7.0 * MOST_REPLICAS, MOST_REPLICAS, "round-robin", SLO)
    part = simulation(ONE_AT_ONCE, LENGTHS, 7.0 * MOST_REPLICAS * 50, MOST_REPLICAS * 50, "round-robin", SLO)
    assert (part.replicas, part.rate_per_s) == (MOST_REPLICAS * 50, 7.0 * MOST_REPLICAS * 50)
    assert part.ttft_p95_s == pytest.approx(whole.ttft_p95_s) and part.in_service_p95 == whole.in_service_p95


def _run_of(run: Any, record: Any, streams: dict[int, float], **given: Any) -> tuple[VariantEvidence, Any]:
    """Closed stages of so many streams, each with its time to the first token; five tokens, 0.01 s each, 20 requests."""
    stages = [
        {"name": f"s{count}", "arrival": "closed", "concurrency": count, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
        for count in streams
    ]  # fmt: skip
    run.manifest([f"merged.s{count}.r0" for count in streams], **{"variants": ["merged"], "load": {"stages": stages}, "slo": {"ttft_s": {"p95": 0.5}}, **given})
    for count, ttft in streams.items():
        trial = f"merged.s{count}.r0"
        run.trial(trial, [record(trial, 2.0 + 8.0 * k / 20, prompt_id=str(k), ttft=ttft, tpot=ttft / 10) for k in range(20)])
    from perfbench.conclude import conclude

    conclude(run.folder)
    found = evidence_of(run.folder, run.folder.summary())
    return found.variants["merged"], found.experiment


def _checked(evidence: VariantEvidence, experiment: Any, peak: float, capacity: float) -> VariantPlan:
    demand = Demand(source="", peak_per_s=peak, mean_per_s=peak, hourly_per_s=[peak] * 24, requests_per_month=1.0)
    known = VariantEvidence(**{**vars(evidence), "capacity_per_s": Estimate(value=capacity), "warnings": (), "price": ServerPrice(1.0, 1)})
    return checked(plan_variant(known, demand, Rule(0.2, 1, 730.0, None, "USD")), known, demand, experiment)


def test_one_measured_load_is_taken_for_the_most(run: Any, record: Any) -> None:
    """One stream takes 0.14 s a request: 7 a second is what a server does at most, and the plan says why."""
    found = _checked(*_run_of(run, record, {1: 0.1}), peak=11.0, capacity=7.0)
    assert [one.router for one in found.simulated] == ["random", "round-robin", "least-outstanding"]
    assert found.replicas is not None and {one.replicas for one in found.simulated} == {found.replicas.value} == {2}
    assert any("as if a server took no more than 1 at once" in warning for warning in found.warnings)


def test_a_plan_that_misses_says_which_size_does_not(run: Any, record: Any) -> None:
    """Slots for 1 request of 0.14 s, planned as if it did 9 a second: 7.2 with head-room, which 2 servers cannot carry."""
    found = _checked(*_run_of(run, record, {1: 0.1}), peak=14.0, capacity=9.0)
    assert not any(one.meets for one in found.simulated)
    assert any("simulated, 2 replicas miss the SLO at the peak and 3 meet it: plan for 3" in warning for warning in found.warnings)
    hopeless = _checked(*_run_of(run, record, {1: 0.6}), peak=1.0, capacity=9.0)
    assert any("neither 1 replicas meet the SLO at the peak nor twice as many" in warning for warning in hopeless.warnings)


def test_several_measured_loads_make_a_curve(run: Any, record: Any) -> None:
    found = _checked(*_run_of(run, record, {1: 0.1, 4: 0.2}), peak=8.0, capacity=10.0)
    assert not any("took no more than" in warning for warning in found.warnings)
    assert all(one.meets for one in found.simulated)


def test_far_beyond_what_was_measured_is_said(run: Any, record: Any) -> None:
    found = _checked(*_run_of(run, record, {1: 0.1, 2: 0.1}), peak=75.0, capacity=100.0)
    assert any("requests at once on a server, where at most 2 were measured: its times are extrapolated" in warning for warning in found.warnings)


def test_without_a_closed_stage_nothing_is_simulated_aloud(run: Any, record: Any) -> None:
    evidence, experiment = _run_of(run, record, {1: 0.1})
    found = _checked(VariantEvidence(**{**vars(evidence), "trials": ()}), experiment, peak=11.0, capacity=7.0)
    assert found.simulated == [] and any("is not simulated: no closed-loop stage" in warning for warning in found.warnings)


def test_the_simulation_says_how_far_it_is_off_in_the_runs_own_poisson_trials(run: Any, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """M/D/1 at half load has its p95 at 0.306 s; a trial of 0.34 s throughout is 10% more than that, one of few requests says nothing."""
    stages = [
        {"name": name, "arrival": "poisson", "rate_per_s": 5.0, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
        for name in ("long", "short")
    ]  # fmt: skip
    run.manifest(["merged.long.r0", "merged.short.r0"], variants=["merged"], load={"stages": stages}, slo={"ttft_s": {"p95": 0.5}})
    monkeypatch.setattr("perfbench.plan.check._HELD_REQUESTS", 30)
    for name, count in (("long", 40), ("short", 20)):
        trial = f"merged.{name}.r0"
        run.trial(trial, [record(trial, 2.0 + 8.0 * k / count, prompt_id=str(k), ttft=0.34, tpot=0.01, n=1) for k in range(count)])
    from perfbench.conclude import conclude

    conclude(run.folder)
    found = evidence_of(run.folder, run.folder.summary())
    (said,) = _held_to_measured(ONE_AT_ONCE, found.variants["merged"], found.experiment)
    assert said == "held to 1 Poisson trial of this run that it was not fitted on, the simulation's p95 of TTFT is -10% off"
