"""Intervals of one trial: by hand, by their properties, and by what they cover on series whose truth is known.

The long simulation, on queues at 30% to 80% load, is benchmarks/statistics/coverage.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perfbench.analyse.intervals import (
    Dependence,
    correlation_time,
    dependence,
    mean_interval,
    percentile_interval,
    rate_interval,
    willink,
)
from perfbench.analyse.stats import percentile, student_t975

CLOSED = dependence(closed=True, in_flight=np.empty(0))
ANY = Dependence(batches=8, queue_time=1.0, needed=1.0)
"""Eight batches, and no length is too short."""


def test_batch_means_by_hand() -> None:
    """Sixteen values in 8 batches of 2: batch means 1..8, mean 4.5, sd sqrt(6), half width t(7) sqrt(6) / sqrt(8), on the logarithm of the mean."""
    low, high = mean_interval(np.repeat(np.arange(1.0, 9.0), 2), ANY)
    half = 2.364624 * np.sqrt(6) / np.sqrt(8)
    assert (low, high) == pytest.approx((4.5 * np.exp(-half / 4.5), 4.5 * np.exp(half / 4.5)), abs=1e-5)


def test_values_of_both_signs_have_a_symmetric_interval() -> None:
    low, high = mean_interval(np.repeat(np.arange(-3.0, 5.0), 2), ANY)
    half = 2.364624 * np.sqrt(6) / np.sqrt(8)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


def test_pooled_readings_weigh_by_their_number() -> None:
    """Eight requests with 1 gap of 1 s or 3 gaps of 2 s: the mean over 16 gaps is 28 / 16."""
    sums, counts = np.array([1.0, 6.0] * 4), np.array([1.0, 3.0] * 4)
    low, high = mean_interval(sums, ANY, counts)
    assert low is not None and high is not None
    assert np.sqrt(low * high) == pytest.approx(28 / 16)


def test_correlation_time_of_known_series() -> None:
    """Independent: 1. AR(1) with phi: (1 + phi) / (1 - phi) (Priestley 1981, 5.3). A constant: 1."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=40_000)
    assert correlation_time(noise) == pytest.approx(1.0, abs=0.1)
    for phi in (0.5, 0.9):
        series = np.empty_like(noise)
        series[0] = 0.0
        for k in range(1, len(noise)):
            series[k] = phi * series[k - 1] + noise[k]
        assert correlation_time(series) == pytest.approx((1 + phi) / (1 - phi), rel=0.15)
    assert correlation_time(np.full(100, 3.0)) == 1.0


def test_short_or_dependent_series_have_none() -> None:
    rng = np.random.default_rng(1)
    assert mean_interval(rng.exponential(size=10), CLOSED) == (None, None)
    assert mean_interval(rng.exponential(size=40), CLOSED) != (None, None)
    # A slow wave of 200 values is worth a handful.
    assert mean_interval(np.sort(rng.exponential(size=200)), CLOSED) == (None, None)


def test_an_open_loop_needs_a_window_that_outlasts_its_queue() -> None:
    """The latencies look independent; the number in flight says that the queue remembers for long."""
    rng = np.random.default_rng(2)
    latencies, queue = rng.exponential(size=400), np.cumsum(rng.normal(size=400))
    assert mean_interval(latencies, dependence(closed=False, in_flight=queue)) == (None, None)
    assert mean_interval(latencies, dependence(closed=False, in_flight=rng.normal(size=400))) != (None, None)


def test_no_percentile_beyond_what_was_seen() -> None:
    rng = np.random.default_rng(3)
    assert percentile_interval(rng.exponential(size=100), 99, CLOSED) == (None, None)
    assert percentile_interval(rng.exponential(size=1500), 99, CLOSED) != (None, None)
    assert percentile_interval(np.empty(0), 50, CLOSED) == (None, None)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, st.integers(60, 400), elements=st.floats(0.001, 1e3)), st.sampled_from([50, 90, 95]))
def test_percentile_interval_holds_the_percentile_and_moves_with_any_rising_curve(values: np.ndarray, percent: int) -> None:
    low, high = percentile_interval(values, percent, ANY)
    if low is None or high is None:
        return
    middle = percentile(values, percent)
    assert middle is not None and low <= middle <= high
    assert values.min() <= low <= high <= values.max()
    assert percentile_interval(values * 8.0, percent, ANY) == (pytest.approx(low * 8.0), pytest.approx(high * 8.0))


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, st.integers(60, 200), elements=st.floats(0.001, 1e3)), st.floats(0.01, 100))
def test_mean_interval_holds_the_mean_and_scales_with_it(values: np.ndarray, scale: float) -> None:
    low, high = mean_interval(values, ANY)
    scaled_low, scaled_high = mean_interval(values * scale, ANY)
    assert low is not None and high is not None
    assert 0 < low <= values.mean() * (1 + 1e-9) and high >= values.mean() * (1 - 1e-9)
    assert (scaled_low, scaled_high) == pytest.approx((low * scale, high * scale), rel=1e-6)


def test_rate_by_hand() -> None:
    """80 requests in 8 s, ten in each slice: no spread. All in two of eight slices: t(7) x 10 sqrt(24 / 7) / sqrt(8), on the logarithm of 10."""
    even = np.arange(80) / 10
    assert rate_interval(even, np.ones(80), 8.0, CLOSED) == (pytest.approx(10.0), pytest.approx(10.0))
    low, high = rate_interval(even / 4, np.ones(80), 8.0, CLOSED)
    half = 2.364624 * np.sqrt(24 / 7) / np.sqrt(8)
    assert (low, high) == pytest.approx((10 * np.exp(-half), 10 * np.exp(half)), rel=1e-5)
    assert rate_interval(even[:15], np.ones(15), 8.0, CLOSED) == (None, None)


@pytest.mark.parametrize(("streams", "ended", "slices"), [(4, 100, 8), (16, 100, 4), (16, 300, 7), (64, 150, 4), (64, 127, 0), (64, 2000, 8)])
def test_slices_of_a_closed_loop_hold_several_requests_a_stream(streams: int, ended: int, slices: int) -> None:
    """At 2.5 a slice, 300 ends of 16 streams make 7 slices; 127 of 64 streams are fewer than two each, and give no interval."""
    given_streams = dependence(closed=True, in_flight=np.full(ended, streams - 1.0))
    at = np.linspace(0, 10, ended, endpoint=False)
    amounts = np.random.default_rng(1).uniform(0.5, 1.5, ended)
    found = rate_interval(at, amounts, 10.0, given_streams)
    if not slices:
        assert found == (None, None)
        return
    rates = np.bincount((at * slices / 10).astype(int), weights=amounts) * slices / 10
    half = max(student_t975(slices - 1) * rates.std(ddof=1) / slices**0.5, 1.959964 * (streams / 6) ** 0.5 * amounts.mean() / 10)
    share = half / rates.mean()
    assert found == (pytest.approx(rates.mean() * np.exp(-share)), pytest.approx(rates.mean() * np.exp(share)))


def test_streams_in_step_leave_no_spread_and_yet_no_certainty() -> None:
    """Four streams end together every 0.5 s: 20 requests in each slice of 2.5 s. The edges alone are worth 1.96 x sqrt(4 / 6) requests in 10 s."""
    at = np.repeat(np.arange(20) / 2 + 0.25, 4)
    low, high = rate_interval(at, np.ones(80), 10.0, Dependence(batches=4, queue_time=1.0, needed=1.0, streams=4.0))
    half = 1.959964 * np.sqrt(4 / 6) / 10
    assert (low, high) == (pytest.approx(8.0 * np.exp(-half / 8)), pytest.approx(8.0 * np.exp(half / 8)))


def test_percentile_interval_by_hand() -> None:
    """1..400 in an order in which every batch of 50 has 23 to 27 of the lower half: 23.5 to 26.5 would not be whole."""
    below = [23, 27, 24, 26, 25, 25, 24, 26]
    low_half, high_half = iter(range(1, 201)), iter(range(201, 401))
    values = np.array([float(next(low_half) if k < count else next(high_half)) for count in below for k in range(50)])
    half = student_t975(7) * np.std(np.array(below) / 50, ddof=1) / 8**0.5
    found = percentile_interval(values, 50, Dependence(batches=8, queue_time=1.0, needed=1.0))
    assert found == (pytest.approx(400 * (0.5 - half) + 0.5), pytest.approx(400 * (0.5 + half) + 0.5))


@pytest.mark.parametrize("percent", [None, 50, 95])
def test_coverage_on_independent_and_on_correlated_series(percent: int | None) -> None:
    """400 closed-loop trials of 300 requests, lognormal with AR(1) of 0.4: binomial 3 sigma about 95% is 91.7% to 98.3%."""
    rng = np.random.default_rng(7)
    truth = np.exp(0.5) if percent is None else np.exp({50: 0.0, 95: 1.6448536269514722}[percent])
    hits = given_count = 0
    for _ in range(400):
        noise = rng.normal(size=300) * np.sqrt(1 - 0.4**2)
        series = np.empty(300)
        series[0] = rng.normal()
        for k in range(1, 300):
            series[k] = 0.4 * series[k - 1] + noise[k]
        values = np.exp(series)
        low, high = mean_interval(values, CLOSED) if percent is None else percentile_interval(values, percent, CLOSED)
        if low is not None and high is not None:
            given_count += 1
            hits += low <= truth <= high
    assert given_count > 330
    assert 0.917 <= hits / given_count <= 0.99


def test_willink_by_hand() -> None:
    """cbrt(1 + 0.3 (1.96 - 0.05)) = cbrt(1.573) = 1.16299, less 1, times 10; cbrt(1 - 0.3 x 2.01) = cbrt(0.397) = 0.73496. Without skewness t itself."""
    assert (willink(1.96, 0.3), willink(-1.96, 0.3)) == (pytest.approx(1.6299, abs=1e-4), pytest.approx(-2.6504, abs=1e-4))
    assert (willink(1.96, -0.3), willink(1.96, 0.0), willink(1.96, 1e-5)) == (pytest.approx(2.6504, abs=1e-4), 1.96, pytest.approx(1.96, abs=1e-4))
    assert willink(-1.96, 5.0) == willink(-1.96, 0.42) > -4


def test_a_queue_that_is_mostly_calm_may_be_more_crowded_than_it_was() -> None:
    """400 values in 40 batches of 10, each all alike: 1, and 5 in every tenth. Batches have mean 1.4, sd 1.2 and skewness (0.9 x -0.4^3 + 0.1 x 3.6^3) / 1.2^3,
    which is 2.6667, the mean 0.42164, times 2: more than the most. Five batches of 80, the tenths at 0, 10, 20, 30: 1.5, 1.5, 1.5, 1.5, 1."""
    values = np.repeat(np.where(np.arange(40) % 10 == 0, 5.0, 1.0), 10)
    open_loop = Dependence(batches=5, queue_time=1.0, needed=1.0, skewed=True)
    half = student_t975(4) * np.std([1.5, 1.5, 1.5, 1.5, 1.0], ddof=1) / 5**0.5
    low, high = mean_interval(values, open_loop)
    assert low == pytest.approx(1.4 - half * willink(1.959964, 0.42) / 1.959964)
    assert high == pytest.approx(1.4 - half * willink(-1.959964, 0.42) / 1.959964)
    # A percentile too is surer of what it is at least than of what it is at most.
    rng = np.random.default_rng(5)
    crowded = np.where(np.arange(4000) // 100 % 10 == 3, rng.exponential(5.0, 4000), rng.exponential(1.0, 4000))
    middle, (low, high) = percentile(crowded, 90), percentile_interval(crowded, 90, open_loop)
    even = percentile_interval(crowded, 90, open_loop._replace(skewed=False))
    assert middle is not None and low is not None and high is not None and even.high is not None and even.low is not None
    assert even.low < low < middle < even.high < high


def test_an_open_loops_mean_of_positive_values_is_not_below_nothing() -> None:
    values = np.full(400, 0.001)
    values[:80] = 10.0
    low, high = mean_interval(values, Dependence(batches=5, queue_time=1.0, needed=1.0, skewed=True))
    assert low == 0.0 and high is not None and high > values.mean()
