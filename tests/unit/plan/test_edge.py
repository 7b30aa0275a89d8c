"""The edge of a rate: from counts to a load with its interval, and whole searches of a simulated queue."""

from __future__ import annotations

import numpy as np
import pytest

from perfbench.plan.edge import Count, edge_of
from perfbench.plan.search import Answer, Probe, next_step, rate_terms
from perfbench.plan.sequential import Evidence, Tally, counts_of, judge

ALLOWED = {"ttft_s": 0.05}


def _count(judged: int, late: int, *, saturated: bool = False, allowed: float = 0.05) -> Count:
    return Count(judged, late, 5.0, allowed, saturated)


def test_between_a_probe_that_meets_and_one_that_misses() -> None:
    edge = edge_of([(90.0, {"ttft_s": _count(2000, 40)}), (110.0, {"ttft_s": _count(2000, 220)})])
    assert 90 < edge.low < edge.likely_low < edge.load < edge.likely_high < edge.high < 110


def test_more_requests_narrow_it_and_so_does_less_inflation() -> None:
    def width(judged: int, inflation: float = 5.0) -> float:
        counts = [Count(judged, judged * share // 100, inflation, 0.05) for share in (3, 8)]
        edge = edge_of([(95.0, {"ttft_s": counts[0]}), (105.0, {"ttft_s": counts[1]})])
        return edge.high / edge.low

    assert width(4000) < width(1000) < width(200)
    assert width(2000, inflation=2.0) < width(2000, inflation=40.0)


def test_the_lowest_edge_of_several_limits_counts() -> None:
    lax = {"ttft_s": _count(2000, 10), "tpot_s": _count(2000, 40)}, {"ttft_s": _count(2000, 30), "tpot_s": _count(2000, 220)}
    both = edge_of([(90.0, lax[0]), (110.0, lax[1])])
    alone = edge_of([(90.0, {"tpot_s": lax[0]["tpot_s"]}), (110.0, {"tpot_s": lax[1]["tpot_s"]})])
    assert both.load == pytest.approx(alone.load, rel=0.02)


def test_a_probe_that_piles_up_is_late_whatever_its_latencies_say() -> None:
    calm = edge_of([(90.0, {"ttft_s": _count(500, 5)}), (110.0, {"ttft_s": _count(500, 5)})])
    piling = edge_of([(90.0, {"ttft_s": _count(500, 5)}), (110.0, {"ttft_s": _count(500, 5, saturated=True)})])
    assert piling.load < 110 < calm.load


def _probe(rng: np.random.Generator, rate: float, *, window_s: float = 4.0, service_s: float = 0.02, limit_s: float = 0.04, slots: int = 8) -> Probe:
    """A window of a queue with fixed service times, first come first served; 345 arrivals a second keep its p95 at the limit."""
    arrivals = np.cumsum(rng.exponential(1 / rate, int(3 * rate * window_s)))
    free = [0.0] * slots
    took = []
    for number, at in enumerate(arrivals.tolist()):
        begin = max(at, free[number % slots])  # fixed times: the slot that is free first is the one that was taken first
        free[number % slots] = begin + service_s
        took.append(begin + service_s - at)
    inside = arrivals < window_s
    late = np.array(took)[inside] > limit_s
    piece = (arrivals[inside] / window_s * 32).astype(int)
    tallies = [Tally(int(np.sum(piece == number)), int(np.sum(late[piece == number]))) for number in range(32)]
    evidence = Evidence(window_s, window_s, {"ttft_s": tallies}, (), rate)
    judgement = judge(evidence, ALLOWED)
    return Probe(rate, judgement, counts=counts_of(evidence, ALLOWED, judgement))


def test_searches_come_near_the_edge_and_their_intervals_hold_it() -> None:
    """8 slots of 20 ms: p95 is within 40 ms up to 338.5 arrivals a second (benchmarks.search). 20 seeds."""
    off, held = [], 0
    for seed in range(20):
        rng, probes = np.random.default_rng(seed), []
        terms = rate_terms(precision=0.05, max_probes=16, saturation_per_s=395.0)
        while not isinstance(step := next_step(probes, terms), Answer):
            probes.append(_probe(rng, step))
        assert step.load is not None and step.interval.low is not None and step.interval.high is not None
        off.append(step.load / 338.5 - 1)
        held += step.interval.low <= 338.5 <= step.interval.high
        assert step.gap.low is not None and step.gap.high is not None and step.gap.low < step.gap.high
    assert held >= 17
    assert abs(np.median(off)) < 0.03 and np.mean(np.abs(off) < 0.05) >= 0.7
