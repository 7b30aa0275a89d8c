"""The break-even by hand: alike popularity, skew, swaps, and where both curves cross."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.analyse.cost import ServerPrice
from perfbench.plan.break_even import Arms, adapters, break_even, crossing, hit_share, merged, popularity
from perfbench.plan.capacity import Rule
from perfbench.plan.demand import FineTunes
from perfbench.plan.evidence import RunEvidence, VariantEvidence
from perfbench.records import Demand, Estimate

NO_SPARE = Rule(head_room=0.0, spare_replicas=0, hours_per_month=100.0, usd_per_kwh=None, currency="USD")
DEMAND = Demand(source="", peak_per_s=12.0, mean_per_s=12.0, hourly_per_s=[12.0] * 24, requests_per_month=1.0)


def _evidence(name: str, capacity: float | None, **given: Any) -> VariantEvidence:
    values: dict[str, Any] = {
        "name": name, "capacity_per_s": None if capacity is None else Estimate(value=capacity), "capacity_from": "a stage", "reason": "", "warnings": (),
        "prompt_tokens": None, "output_tokens": None, "pass_share": None, "energy_j_per_request": None, "price": ServerPrice(2.0, 1), "ready_s": None,
    }  # fmt: skip
    return VariantEvidence(**{**values, **given})


def _arms(**given: Any) -> Arms:
    values: dict[str, Any] = {
        "adapter": _evidence("adapter", 4.0), "merged": _evidence("merged", 6.0), "peak_per_s": 12.0, "rule": NO_SPARE, "max_loras": 4, "load_s": 0.25,
    }  # fmt: skip
    return Arms(**{**values, **given})


class _Experiment:
    serve_args = {"max-loras": 8}
    stages: dict[str, Any] = {}


class _Manifest:
    scenario = {"load": {"adapters": {"spread": "uniform"}}, "models": {"adapters": {"b": {}, "c": {}}}}


def _run(**evidence: VariantEvidence) -> Any:
    return RunEvidence(evidence, _Experiment(), _Manifest(), None)  # type: ignore[arg-type]


def test_popularity_by_hand() -> None:
    assert popularity(4, 0.0).tolist() == [0.25] * 4
    assert popularity(3, 1.0).tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11])


def test_all_hot_is_one_deployment_against_many() -> None:
    """12 / 4 = 3 adapter servers. Four merged models share 12 alike, 3 each: a server of 6 each, half empty; they carry twice the load."""
    ours, theirs = adapters(_arms(), 4, 0.0), merged(_arms(), 4, 0.0)
    assert (ours.replicas, ours.gpus, ours.usd_per_month, ours.carries_per_s, ours.hit_share) == (3, 3, 600.0, 12.0, 1.0)
    assert (theirs.replicas, theirs.usd_per_month, theirs.carries_per_s) == (4, 800.0, pytest.approx(24.0))


def test_skew_fills_the_first_merged_server() -> None:
    """Two models at Zipf 1: 8 and 4 a second need 2 and 1 servers; the second is full first, at 6 / (1/3) = 18."""
    theirs = merged(_arms(), 2, 1.0)
    assert (theirs.replicas, theirs.carries_per_s) == (3, pytest.approx(18.0))


def test_swaps_take_capacity() -> None:
    """Eight alike in four places: half of the requests swap for 0.25 s, so a request takes 1/4 + 1/8 s and a server does 8/3 a second: 5 servers."""
    ours = adapters(_arms(), 8, 0.0)
    assert ours.hit_share == pytest.approx(0.5) and ours.replicas == 5
    assert ours.carries_per_s == pytest.approx(5 * 8 / 3)


def test_more_adapters_than_places_without_the_time_of_a_swap_say_nothing() -> None:
    ours = adapters(_arms(load_s=None), 5, 1.0)
    assert (ours.replicas, ours.usd_per_month, ours.carries_per_s, ours.hit_share) == (None, None, None, None)
    assert adapters(_arms(load_s=None), 4, 1.0).replicas == 3


def test_che_is_near_a_simulated_cache() -> None:
    """A cache that forgets the longest unused, 200,000 requests at Zipf 1."""
    random = np.random.default_rng(1)
    shares = popularity(50, 1.0)
    cache: dict[int, None] = {}
    hits = 0
    for wanted in random.choice(50, 200_000, p=shares).tolist():
        if wanted in cache:
            hits += 1
            del cache[wanted]
        elif len(cache) == 8:
            del cache[next(iter(cache))]
        cache[wanted] = None
    assert hit_share(shares, 8) == pytest.approx(hits / 200_000, abs=0.01)


@given(count=st.integers(1, 200), skew=st.floats(0, 3), slots=st.integers(1, 50))
def test_hits_are_a_share_and_grow_with_places_and_skew(count: int, skew: float, slots: int) -> None:
    shares = popularity(count, skew)
    hits = hit_share(shares, slots)
    assert 0 < hits <= 1 + 1e-12 and hits >= min(1.0, slots / count) - 1e-6
    assert hit_share(shares, slots + 1) >= hits - 1e-9


@given(count=st.integers(1, 60), skew=st.floats(0, 3), peak=st.floats(0.1, 500), spare=st.integers(0, 2))
def test_both_ways_carry_the_peak(count: int, skew: float, peak: float, spare: int) -> None:
    arms = _arms(peak_per_s=peak, rule=Rule(0.2, spare, 730.0, None, "USD"))
    for found in (adapters(arms, count, skew), merged(arms, count, skew)):
        assert found.carries_per_s is not None and found.carries_per_s >= peak * (1 - 1e-6)
        assert found.replicas is not None and found.replicas >= 1 + spare


def test_where_the_curves_cross() -> None:
    """Merged: 2, 2, 3 servers for 1 to 3 models, then one each. Adapters: 3 up to 4 places; from then on swaps."""
    assert crossing(_arms(), 4, 0.0) == "With all alike popular, adapters need less from 4 fine-tunes on: there 3 servers instead of 4."
    assert crossing(_arms(), 3, 0.0) == "With all alike popular, 3 fine-tunes as adapters need no less than merged."
    assert "holds at once (4, `max-loras`), adapters need less from 4 fine-tunes on. Of more nothing can be said" in crossing(_arms(load_s=None), 50, 0.0)
    cheap = _arms(adapter=_evidence("adapter", 13.0))
    assert "adapters need less from 1 fine-tunes on: there 1 servers instead of 2" in crossing(cheap, 4, 0.0)


def test_the_whole_curve() -> None:
    run = _run(adapter=_evidence("adapter", 4.0), merged=_evidence("merged", 6.0))
    found = break_even(run, DEMAND, NO_SPARE, FineTunes(counts=(4, 1, 4), skew=(0.0, 1.0)))
    assert [(point.skew, point.fine_tunes) for point in found.points] == [(0.0, 1), (0.0, 4), (1.0, 1), (1.0, 4)]
    assert len(found.crossings) == 2 and found.reason == ""
    assert found.rests_on[0] == "adapter: 4 requests/s a server, a stage" and "At most 8 adapters" in found.rests_on[2]
    assert "as it carries the 3 that were measured" in found.rests_on[-1]


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        ({"adapter": _evidence("adapter", 4.0)}, "the run did not measure `merged`"),
        ({"adapter": _evidence("adapter", None, reason="all void"), "merged": _evidence("merged", 0.0)}, "`adapter` has no capacity: all void; `merged`"),
    ],
)
def test_a_missing_arm_has_its_sentence(evidence: dict[str, VariantEvidence], says: str) -> None:
    found = break_even(_run(**evidence), DEMAND, NO_SPARE, FineTunes())
    assert says in found.reason and found.points == [] and found.crossings == []
