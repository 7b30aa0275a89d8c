"""Percentiles, paired intervals and Holm against numpy, statsmodels, and properties that every interval has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.multitest import multipletests

from perfbench.analyse.stats import MIN_PAIRED, holm, paired_interval, percentile, student_t975, time_variance

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize(("percent", "smallest"), [(50, 2), (90, 10), (95, 20), (99, 100)])
def test_percentile_needs_one_value_above_it(percent: int, smallest: int) -> None:
    assert percentile(np.arange(smallest - 1.0), percent) is None
    assert percentile(np.arange(float(smallest)), percent) is not None


def test_percentile_is_a_value_that_was_measured() -> None:
    """Of 1..20, at least 95% (19 of 20) do not exceed 19; 9 of 10 are within 18."""
    values = np.arange(1.0, 21.0)
    assert (percentile(values, 95), percentile(values, 90), percentile(values, 50)) == (19.0, 18.0, 10.0)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(100, 400), elements=FINITE), st.sampled_from([50, 90, 95, 99]))
def test_percentile_means_what_the_slo_asks(values: np.ndarray, percent: int) -> None:
    found = percentile(values, percent)
    assert found is not None and found in values
    assert np.sum(values <= found) * 100 >= percent * len(values)
    assert np.sum(values < found) * 100 < percent * len(values)


def test_percentile_of_failed_requests_is_infinite() -> None:
    assert percentile(np.array([1.0] * 18 + [np.inf] * 2), 95) == np.inf
    assert percentile(np.array([1.0] * 19 + [np.inf]), 95) == 1.0


def test_students_t() -> None:
    """Table values."""
    assert [round(student_t975(degrees), 3) for degrees in (1, 7, 30)] == [12.706, 2.365, 2.042]


@settings(deadline=None)
@given(arrays(np.float64, st.integers(MIN_PAIRED, 60), elements=st.floats(-1e3, 1e3)), st.floats(-1e3, 1e3))
def test_paired_interval_holds_the_difference_and_moves_with_it(values: np.ndarray, shift: float) -> None:
    one, moved = paired_interval([values], seed=1), paired_interval([values + shift], seed=1)
    assert one.difference == pytest.approx(values.mean()) and one.n == len(values)
    assert one.interval.low is not None and one.interval.high is not None
    assert one.interval.low <= one.interval.high
    # Resampled means of a skewed series need not straddle its mean exactly; they cannot be far off.
    assert one.interval.low <= values.mean() + 1e-6 and one.interval.high >= values.mean() - 1e-6
    assert moved.interval.low == pytest.approx(one.interval.low + shift, abs=1e-6)


def test_paired_interval_swapped_is_mirrored_in_spread() -> None:
    values = np.random.default_rng(3).normal(1.0, 1.0, 200)
    there, back = paired_interval([values], seed=5), paired_interval([-values], seed=5)
    assert there.interval.low == pytest.approx(-back.interval.high)  # type: ignore[operator]
    assert there.p_value == pytest.approx(back.p_value)


def test_repeats_that_disagree_widen_the_interval() -> None:
    noise = np.random.default_rng(4).normal(0, 0.1, (2, 100))
    agree = paired_interval([noise[0], noise[1]], seed=1)
    disagree = paired_interval([noise[0] + 1.0, noise[1] - 1.0], seed=1)
    assert agree.difference == pytest.approx(disagree.difference)
    assert disagree.interval.high - disagree.interval.low > 10 * (agree.interval.high - agree.interval.low)  # type: ignore[operator]


def test_paired_interval_covers_independent_differences() -> None:
    """400 simulated pairs of variants that differ by 1: about 95% of intervals hold the truth (binomial 3 sigma: 92% to 98%)."""
    rng = np.random.default_rng(11)
    hits = 0
    for seed in range(400):
        interval = paired_interval([rng.normal(1.0, 2.0, 60)], seed=seed).interval
        assert interval.low is not None and interval.high is not None
        hits += interval.low <= 1.0 <= interval.high
    assert 0.92 <= hits / 400 <= 0.985


def test_a_drift_in_time_is_not_less_certain_than_its_batches() -> None:
    """Sixteen values 1, 1, 2, 2, ... 8, 8: batch means 1..8, variance 6, of their mean 6 / 8, widened by t(7) / z."""
    widened = 6 / 8 * (student_t975(7) / 1.959964) ** 2
    assert time_variance(np.repeat(np.arange(1.0, 9.0), 2)) == pytest.approx(widened, rel=1e-5)
    assert time_variance(np.arange(15.0)) == 0.0
    calm = np.random.default_rng(1).normal(1.0, 0.01, 40)
    low, high = paired_interval([calm], seed=1, drift=[0.04]).interval
    assert low is not None and high is not None
    assert (high - low) / 2 == pytest.approx(1.96 * 0.2, rel=0.1)


def test_neighbours_that_share_a_request_are_one_block() -> None:
    """Six blocks of four alike: as the six values, and far wider than 24 independent ones. Of a request that spans half the window nothing is known."""
    values = np.repeat(np.random.default_rng(2).normal(0.0, 1.0, 6), 4)
    narrow, wide = (paired_interval([values], seed=1, spans=spans).interval for spans in (1.0, 4.0))
    assert narrow.low is not None and narrow.high is not None and wide.low is not None and wide.high is not None
    assert wide.high - wide.low > narrow.high - narrow.low
    assert paired_interval([values], seed=1, spans=12.0).interval == (None, None)


def test_few_prompts_and_none() -> None:
    few = paired_interval([np.arange(MIN_PAIRED - 1.0)], seed=0)
    assert (few.difference, few.interval, few.p_value) == (3.0, (None, None), None)
    assert paired_interval([], seed=0) == (None, (None, None), None, 0)


def test_no_spread_is_certain() -> None:
    assert paired_interval([np.full(20, 0.5)], seed=0)[:3] == (0.5, (0.5, 0.5), 0.0)
    assert paired_interval([np.zeros(20)], seed=0)[:3] == (0.0, (0.0, 0.0), 1.0)


@settings(deadline=None, max_examples=20)  # statsmodels takes 70 ms a call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_against_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-12)
