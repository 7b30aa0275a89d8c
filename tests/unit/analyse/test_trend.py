"""The rank tests against scipy, a published series, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau
from statsmodels.datasets import nile

from perfbench.analyse.trend import mann_kendall, pettitt


@pytest.mark.parametrize("seed", range(5))
def test_mann_kendall_is_kendalls_tau_against_time(seed: int) -> None:
    """Without autocorrelation the test is Kendall's with the normal approximation; continuity correction apart, the p-values are close."""
    series = np.random.default_rng(seed).normal(size=30) + 0.03 * np.arange(30)
    assert mann_kendall(series).p_value == pytest.approx(kendalltau(np.arange(30), series, method="asymptotic").pvalue, abs=0.02)


def test_mann_kendall_by_hand() -> None:
    """1..10: S = 45, variance 10 x 9 x 25 / 18 = 125, z = 44 / sqrt(125) = 3.935; Sen's slope 1 over 9 steps, median 5.5."""
    trend = mann_kendall(np.arange(1.0, 11.0))
    assert trend.p_value == pytest.approx(8.3e-5, rel=0.02)
    assert trend.change == pytest.approx(9 / 5.5)


def test_autocorrelation_is_not_taken_for_a_trend() -> None:
    """AR(1) with phi = 0.7 without a trend: the plain test finds one in a third of series; corrected, in few."""
    rng = np.random.default_rng(3)
    plain = corrected = 0
    for _ in range(200):
        series = np.zeros(30)
        for k in range(1, 30):
            series[k] = 0.7 * series[k - 1] + rng.normal()
        corrected += mann_kendall(series).p_value < 0.01
        plain += kendalltau(np.arange(30), series).pvalue < 0.01
    assert plain > 2 * corrected
    assert corrected / 200 < 0.12


def test_pettitt_finds_the_dam_of_the_nile() -> None:
    """Annual flow at Aswan 1871-1970 drops after 1898, the 28th year (Cobb 1978; the standard example of change-point tests)."""
    step = pettitt(nile.load_pandas().data["volume"].to_numpy().astype(float))
    assert step.at == 28
    assert step.p_value < 1e-5
    assert -0.30 < step.change < -0.15


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, st.integers(4, 40), elements=st.floats(0.1, 100)))
def test_both_are_blind_to_scale_and_see_order_alone(series: np.ndarray) -> None:
    assert mann_kendall(series * 4.0).p_value == pytest.approx(mann_kendall(series).p_value)
    assert mann_kendall(series[::-1]).p_value == pytest.approx(mann_kendall(series).p_value, abs=1e-9)
    assert pettitt(series * 4.0)[:2] == pytest.approx(pettitt(series)[:2])
    assert 0 <= mann_kendall(series).p_value <= 1 and 0 <= pettitt(series).p_value <= 1


def test_short_and_constant_series_show_nothing() -> None:
    assert mann_kendall(np.array([1.0, 2.0, 3.0])).p_value == 1.0
    assert mann_kendall(np.full(20, 2.0)) == (1.0, 0.0)
    assert pettitt(np.full(20, 2.0)).p_value == 1.0
