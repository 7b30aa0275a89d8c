"""Replicas and prices by hand: 36 an hour is 26,280 a month of 730 hours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.analyse.cost import ServerPrice
from perfbench.plan.capacity import Rule, length_warning, plan_variant, replicas_for
from perfbench.plan.evidence import VariantEvidence
from perfbench.records import Demand, Estimate

RULE = Rule(head_room=0.2, spare_replicas=1, hours_per_month=730.0, usd_per_kwh=None, currency="USD")
HOURLY = [2.0] * 12 + [10.0] * 12


def _demand(peak: float = 12.0, hourly: list[float] | None = None, **given: Any) -> Demand:
    rates = hourly or HOURLY
    mean = sum(rates) / 24
    return Demand(source="", peak_per_s=peak, mean_per_s=mean, hourly_per_s=rates, requests_per_month=mean * 3600 * 730, **given)


def _evidence(capacity: float | None = 5.0, low: float | None = 4.0, high: float | None = 6.0, **given: Any) -> VariantEvidence:
    values: dict[str, Any] = {
        "name": "merged", "capacity_per_s": None if capacity is None else Estimate(value=capacity, ci95_low=low, ci95_high=high), "capacity_from": "a stage",
        "reason": "", "warnings": (), "prompt_tokens": 100.0, "output_tokens": 50.0, "pass_share": 0.8, "energy_j_per_request": 3600.0,
        "price": ServerPrice(36.0, 2), "ready_s": 360.0,
    }  # fmt: skip
    return VariantEvidence(**{**values, **given})


def test_replicas_and_prices_by_hand() -> None:
    """12 / (5 x 0.8) = 3 replicas and a spare; 12 / (6 x 0.8) = 2.5 and 12 / (4 x 0.8) = 3.75 give 3 to 4. Mean rate 6 a second."""
    plan = plan_variant(_evidence(), _demand(), RULE)
    assert plan.replicas == Estimate(value=3, ci95_low=3, ci95_high=4) and plan.gpus == 8
    assert plan.usd_per_month == Estimate(value=4 * 36 * 730, ci95_low=4 * 36 * 730, ci95_high=5 * 36 * 730)
    request = 4 * 36 / (6 * 3600)
    assert plan.usd_per_request == pytest.approx(request)
    assert plan.usd_per_million_output_tokens == pytest.approx(request / 50 * 1e6)
    assert plan.usd_per_correct_request == pytest.approx(request / 0.8)


def test_use_by_the_hour_and_with_one_down() -> None:
    plan = plan_variant(_evidence(), _demand(), RULE)
    assert plan.utilisation_by_hour[0] == pytest.approx(2 / 20) and plan.utilisation_by_hour[23] == pytest.approx(10 / 20)
    assert plan.utilisation_at_peak_one_down == pytest.approx(12 / 15)


def test_autoscaling_by_hand() -> None:
    """The peak is 1.2 times the busiest hour, so a quiet hour needs 2.4 / 4: 1 and a spare; a busy one 12 / 4: 3 and a spare. Two starts of 360 s a day."""
    found = plan_variant(_evidence(), _demand(), RULE).autoscaled
    assert found is not None and found.replicas_by_hour == [2] * 12 + [4] * 12 and found.starts_per_day == 2
    hours = 12 * 2 + 12 * 4 + 2 * 0.1
    assert found.usd_per_month == pytest.approx(hours / 24 * 36 * 730) and found.saved_share == pytest.approx(1 - hours / 96)


def test_electricity_is_added_up_for_the_month() -> None:
    rule = Rule(0.2, 1, 730.0, usd_per_kwh=0.5, currency="EUR")
    assert plan_variant(_evidence(), _demand(), rule).energy_usd_per_month == pytest.approx(6 * 3600 * 730 * 0.001 * 0.5)
    assert plan_variant(_evidence(energy_j_per_request=None), _demand(), rule).energy_usd_per_month is None


def test_tokens_are_those_of_the_requests_that_are_counted() -> None:
    """Four times longer answers at the price of the measured ones would be a price that nobody gets."""
    plan = plan_variant(_evidence(), _demand(output_tokens=200.0), RULE)
    assert plan.usd_per_million_output_tokens == pytest.approx(4 * 36 / (6 * 3600) / 50 * 1e6)


def test_without_a_price_there_are_servers_and_no_money() -> None:
    plan = plan_variant(_evidence(price=ServerPrice(None, None, "not known")), _demand(), RULE)
    assert plan.replicas is not None and plan.replicas.value == 3
    assert (plan.usd_per_month, plan.usd_per_request, plan.gpus) == (None, None, None)
    assert plan.autoscaled is not None and plan.autoscaled.usd_per_month is None


@pytest.mark.parametrize(("capacity", "reason", "says"), [(None, "no stage meets the SLO", "no stage meets the SLO"), (0.0, "", "goodput is zero")])
def test_no_capacity_has_its_sentence_and_no_number(capacity: float | None, reason: str, says: str) -> None:
    plan = plan_variant(_evidence(capacity, reason=reason), _demand(), RULE)
    assert says in plan.reason
    assert (plan.replicas, plan.usd_per_month, plan.usd_per_request, plan.autoscaled, plan.utilisation_by_hour) == (None, None, None, None, [])


def test_an_interval_that_reaches_zero_has_no_upper_end() -> None:
    plan = plan_variant(_evidence(5.0, 0.0, 6.0), _demand(), RULE)
    assert plan.replicas == Estimate(value=3, ci95_low=3, ci95_high=None)


def test_one_replica_without_a_spare_has_nothing_left_when_it_fails() -> None:
    plan = plan_variant(_evidence(50.0), _demand(), Rule(0.2, 0, 730.0, None, "USD"))
    assert plan.replicas is not None and plan.replicas.value == 1 and plan.utilisation_at_peak_one_down is None


def test_other_lengths_than_measured_are_said_once() -> None:
    evidence = [_evidence(), _evidence(name="adapter", output_tokens=70.0), _evidence(None, name="base", prompt_tokens=9.0)]
    assert length_warning(_demand(input_tokens=110.0, output_tokens=60.0), evidence) == []
    assert length_warning(_demand(), evidence) == []
    (warning,) = length_warning(_demand(input_tokens=1155.0, output_tokens=60.0), evidence)
    assert "1,155 tokens in and 60 tokens out on average, those that were measured 100 in and 50 to 70 out" in warning


@given(rate=st.floats(0.001, 1e4), capacity=st.floats(0.001, 1e3), head_room=st.floats(0, 0.9))
def test_replicas_carry_the_rate_and_one_fewer_would_not(rate: float, capacity: float, head_room: float) -> None:
    count = replicas_for(rate, capacity, head_room)
    assert count is not None and count >= 1
    usable = capacity * (1 - head_room)
    assert count * usable >= rate * (1 - 1e-6)
    assert count == 1 or (count - 1) * usable < rate * (1 + 1e-6)
