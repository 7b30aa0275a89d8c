"""The search as a decision: from probes to the next load or the answer, against edges that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.plan.search import Answer, Gap, Probe, Terms, concurrency_terms, most_likely, next_step, rate_terms
from perfbench.plan.sequential import THRESHOLD, Judgement


def _judgement(llr: float) -> Judgement:
    return Judgement("good" if llr <= -THRESHOLD else "late" if llr >= THRESHOLD else "unclear", llr, None, "ttft_s")


def _probe(load: float, llr: float, *, at_limit: bool = False) -> Probe:
    return Probe(load, _judgement(llr), at_limit)


def _run(terms: Terms, meets: Callable[[float], float], *, at_limit: float = math.inf) -> tuple[Answer, list[float]]:
    """Carry a search out against a server whose log-likelihood ratio at a load is known."""
    probes: list[Probe] = []
    while True:
        step = next_step(probes, terms)
        if isinstance(step, Answer):
            return step, [probe.load for probe in probes]
        probes.append(_probe(step, meets(step), at_limit=step >= at_limit))
        assert len(probes) < 40


@given(edge=st.floats(0.03, 1.5), precision=st.sampled_from([0.02, 0.05, 0.2]))
def test_a_sharp_edge_is_found_to_the_precision_asked_for(edge: float, precision: float) -> None:
    """Edges from 3% of saturation to 1.5 times it (a closed loop too small to saturate)."""
    answer, loads = _run(rate_terms(precision=precision, max_probes=40, saturation_per_s=100.0), lambda load: 3.9 if load > 100 * edge else -3.9)
    assert answer.reason == "found"
    assert answer.gap.low is not None
    assert answer.gap.high is not None
    assert answer.gap.low <= 100 * edge <= answer.gap.high <= answer.gap.low * (1 + precision)
    assert answer.load == pytest.approx(100 * edge, rel=precision)
    assert len(loads) <= 2 + math.ceil(abs(math.log2(edge / 0.8))) + math.ceil(math.log2(math.log(2) / math.log(1 + precision)))


@given(edge=st.integers(1, 999))
def test_streams_are_found_exactly_or_to_the_precision(edge: int) -> None:
    answer, loads = _run(concurrency_terms(precision=0.05, max_probes=40, first=8, most=1000), lambda load: 3.9 if load > edge else -3.9)
    assert all(load == int(load) >= 1 for load in loads)
    low, high = answer.gap
    assert low is not None
    assert low <= edge
    assert high is not None
    assert edge < high
    assert high - low <= max(1, 0.05 * low)


def test_nothing_meets_the_slo() -> None:
    answer, loads = _run(rate_terms(precision=0.05, max_probes=16, saturation_per_s=64.0), lambda load: 3.9)
    assert (answer.reason, answer.load, answer.gap) == ("never meets", None, Gap(None, 1.0))
    assert loads == sorted(loads, reverse=True)
    assert _run(concurrency_terms(precision=0.05, max_probes=16, first=8, most=100), lambda load: 3.9)[0].gap == Gap(None, 1.0)


def test_nothing_misses_it_up_to_the_client_s_limit() -> None:
    answer, _ = _run(rate_terms(precision=0.05, max_probes=16, saturation_per_s=100.0), lambda load: -3.9, at_limit=150.0)
    assert (answer.reason, answer.load) == ("never misses", None)
    assert answer.gap.low is not None
    assert answer.gap.low >= 150.0
    answer, loads = _run(concurrency_terms(precision=0.05, max_probes=16, first=64, most=200), lambda load: -3.9)
    assert (answer.reason, answer.gap, loads) == ("never misses", Gap(200, None), [64, 128, 200])


def test_late_at_the_client_s_limit_is_no_edge_of_the_server() -> None:
    answer, loads = _run(rate_terms(precision=0.05, max_probes=16, saturation_per_s=100.0), lambda load: 3.9 if load > 90 else -3.9, at_limit=90.0)
    assert (answer.reason, answer.gap, answer.load) == ("never misses", Gap(80.0, None), None)
    assert loads == [80.0, 100.0]
    answer, loads = _run(rate_terms(precision=0.05, max_probes=16, saturation_per_s=100.0), lambda load: 3.9, at_limit=0.0)
    assert (answer.reason, answer.gap, answer.load) == ("client", Gap(None, None), None)
    assert loads[:2] == [80.0, 40.0]


def test_the_number_of_probes_is_limited() -> None:
    answer, loads = _run(rate_terms(precision=0.01, max_probes=4, saturation_per_s=100.0), lambda load: 3.9 if load > 33 else -3.9)
    assert (answer.reason, len(loads)) == ("probes spent", 4)
    assert answer.load is not None


def test_probes_that_contradict_each_other_are_weighed() -> None:
    """A weak "late" at 50 below two strong "good" at 60 and 70: the edge lies above 70, and 50 does not widen the interval that far down."""
    gap, interval = most_likely([_probe(40, -3.9), _probe(50, 1.0), _probe(60, -3.9), _probe(70, -3.9), _probe(80, 3.9)])
    assert gap == interval == Gap(70, 80)


def test_unclear_probes_widen_the_interval() -> None:
    gap, interval = most_likely([_probe(80, -3.9), _probe(90, -0.5), _probe(95, 0.5), _probe(100, 3.9)])
    assert gap == Gap(90, 95)
    assert interval == Gap(80, 100)


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(-5, 5)), min_size=1, max_size=12))
def test_the_best_gap_lies_in_the_interval(found: list[tuple[float, float]]) -> None:
    gap, interval = most_likely([_probe(load, llr) for load, llr in found])
    assert (interval.low or 0.0) <= (gap.low or 0.0)
    assert (gap.high or math.inf) <= (interval.high or math.inf)
