"""One statistic in two runs: exact values, known noise, and how often an interval leaves out the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfbench.analyse.run_change import change

RAMP = np.arange(1.0, 101.0)


def test_a_constant_factor_is_certain_on_the_relative_scale() -> None:
    found = change([(RAMP, RAMP * 1.1)], "mean", seed=1)
    assert found is not None and found.relative is not None
    assert (found.baseline, found.run, found.difference.value) == pytest.approx((50.5, 55.55, 5.05))
    assert found.relative.interval == pytest.approx((0.1, 0.1))
    low, high = found.difference.interval or (0.0, 0.0)
    assert low < 5.05 < high and high - low > 0.5, "in seconds it depends on which prompts were drawn"


@pytest.mark.parametrize(("statistic", "expected"), [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0)])
def test_percentiles_are_measured_values(statistic: str, expected: float) -> None:
    found = change([(RAMP, RAMP + 3.0)], statistic, seed=1)
    assert found is not None
    assert (found.baseline, found.run) == (expected, expected + 3.0)
    assert found.difference.interval == pytest.approx((3.0, 3.0)), "the same rows are drawn for both, so a constant shift is certain"


def test_too_few_for_the_percentile_and_for_an_interval() -> None:
    assert change([(RAMP[:50], RAMP[:50])], "p99", seed=1) is None
    few = change([(RAMP[:5], RAMP[:5])], "mean", seed=1)
    assert few is not None and few.difference.interval is None and few.difference.drawn is None
    assert change([], "mean", seed=1) is None
    assert change([(RAMP[:0], RAMP[:0])], "mean", seed=1) is None


def test_repeats_that_disagree_widen_the_interval() -> None:
    """Two repeats, +1 and +3, each without noise: mean 2, standard error 1, t(1) = 12.7."""
    found = change([(RAMP, RAMP + 1.0), (RAMP, RAMP + 3.0)], "mean", seed=1)
    assert found is not None and found.difference.value == pytest.approx(2.0)
    low, high = found.difference.interval or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 12.7, 2 + 12.7), abs=0.9)


def test_a_rate_turned_into_a_price() -> None:
    """3.6 USD an hour: at 2 requests a second 0.0005 USD each, at 1.6 a quarter more."""
    slices = np.full(24, 2.0)
    found = change([(slices, slices * 0.8)], "mean", seed=1, turned=(lambda rate: 0.001 / rate, lambda rate: 0.001 / rate))
    assert found is not None and found.relative is not None
    assert (found.baseline, found.run, found.relative.value) == pytest.approx((0.0005, 0.000625, 0.25))


def test_a_baseline_of_zero_has_no_relative_change() -> None:
    found = change([(np.zeros(20), np.ones(20))], "mean", seed=1)
    assert found is not None and found.relative is None and found.difference.value == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=10, max_size=60), st.sampled_from(["mean", "p50", "p90"]))
def test_a_run_against_itself_has_not_changed(values: list[float], statistic: str) -> None:
    rows = np.array(values)
    found = change([(rows, rows)], statistic, seed=3)
    assert found is not None and found.difference.value == 0.0
    assert found.difference.interval == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("statistic", ["mean", "p90"])
def test_intervals_cover(statistic: str) -> None:
    """Nominal 95% on independent exponential latencies with a true change of 0: between 90% and 99% of 120 pairs of runs."""
    rng = np.random.default_rng(11)
    covered = 0
    for number in range(120):
        rows = [(rng.exponential(1.0, 120), rng.exponential(1.0, 120)) for _ in range(2)]
        found = change(rows, statistic, seed=number)
        assert found is not None
        low, high = found.difference.interval or (0.0, 0.0)
        covered += low <= 0.0 <= high
    assert 108 <= covered <= 119
