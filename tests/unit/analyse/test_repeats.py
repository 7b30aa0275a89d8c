"""The interval of a mean over repeats: its limits by hand, its properties, and what it covers.

The long simulation, on windows of queues, is benchmarks/statistics/repeats.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfbench.analyse.repeats import over_repeats
from perfbench.analyse.starts import REPEAT_SD, START_SD, repeat_sd
from perfbench.analyse.stats import NO_INTERVAL, Interval, student_t975

USUAL = 0.015


def about(value: float, half: float) -> Interval:
    """As sure as `half`, on the logarithm."""
    return Interval(value * math.exp(-half), value * math.exp(half))


def halves(values: list[float], own: list[float], usual: float = USUAL, batches: int = 8) -> tuple[float, float]:
    """(down, up) on the logarithm."""
    low, high = over_repeats(values, [about(*one) for one in zip(values, own, strict=True)], usual=usual, batches=batches)
    assert low is not None and high is not None
    centre = float(np.mean(values))
    return math.log(centre / low), math.log(high / centre)


def test_one_repeat_keeps_its_own_interval() -> None:
    one = Interval(0.9, 1.2)
    assert over_repeats([1.0], [one], usual=USUAL, batches=8) == one
    assert over_repeats([1.0], [NO_INTERVAL], usual=USUAL, batches=8) == NO_INTERVAL
    assert over_repeats([], [], usual=USUAL, batches=8) == NO_INTERVAL


@pytest.mark.parametrize(("count", "share"), [(2, 0.6941), (3, 0.4695), (5, 0.3160)])
def test_repeats_far_apart_by_hand(count: int, share: float) -> None:
    """Far beyond the prior and their own errors, its tail tau^-4 and the likelihood tau^-(R - 1) make Student's t with nu = R + 2 degrees of freedom and the
    scale spread sqrt((R - 1) / nu): t(4) x 1 / sqrt(2) x sqrt(1 / 4) / sqrt(2) = 0.694 for two at distance 1; t(5) x 0.5774 x sqrt(2 / 5) / sqrt(3) ..."""
    apart = 40.0
    logs = np.linspace(-apart / 2, apart / 2, count)
    values = [math.exp(one) for one in logs]
    expected = student_t975(count + 2) * float(np.std(logs, ddof=1)) * math.sqrt((count - 1) / (count + 2) / count)
    found = halves(values, [0.001] * count)
    assert found == (pytest.approx(expected, rel=0.01), pytest.approx(expected, rel=0.01))
    assert expected / apart == pytest.approx(share, abs=1e-3)


def test_where_repeats_differ_by_their_requests_alone_all_of_them_tell() -> None:
    """Nothing in between: three variances of 7 degrees of freedom and a spread of 2 are one of 23. Own errors 0.01, repeats at -0.01, 0, 0.01 on the logarithm:
    the pooled variance is 0.0001, and half the interval t(23) x 0.01 / sqrt(3)."""
    values = [math.exp(one) for one in (-0.01, 0.0, 0.01)]
    expected = student_t975(23) * 0.01 / math.sqrt(3)
    assert halves(values, [student_t975(7) * 0.01] * 3, usual=1e-7) == (pytest.approx(expected, rel=0.01), pytest.approx(expected, rel=0.01))


def test_two_repeats_that_disagree_give_a_usable_interval() -> None:
    """9% and 11%, each sure to 7%, where 1.5% is usual: Student's t of two would be +-127% of half their distance's sqrt(2)."""
    down, up = halves([9.0, 11.0], [0.07, 0.07])
    assert down == pytest.approx(up) and 0.10 < up < 0.16
    assert student_t975(1) * math.log(11 / 9) / 2 > 1.2


def test_equal_figures_that_are_certain_stay_so() -> None:
    assert over_repeats([16.0, 16.0], [Interval(16.0, 16.0)] * 2, usual=USUAL, batches=8) == (pytest.approx(16.0), pytest.approx(16.0))


def test_each_end_is_as_far_as_the_repeats_own_say() -> None:
    """Twice as far up as down, and nothing else: so is the mean's."""
    own = [Interval(math.exp(-0.1), math.exp(0.2))] * 2
    low, high = over_repeats([1.0, 1.0], own, usual=1e-7, batches=8)
    assert low is not None and high is not None
    assert math.log(high) == pytest.approx(-2 * math.log(low), rel=1e-3)


def test_a_rate_of_nothing_is_not_below_nothing() -> None:
    """No logarithm of 0."""
    low, high = over_repeats([0.0, 1.0], [Interval(0.0, 0.2), Interval(0.8, 1.2)], usual=USUAL, batches=8)
    assert low == 0.0 and high is not None and 0.5 < high < 1.5
    below, above = over_repeats([-1.0, 1.0], [Interval(-1.1, -0.9), Interval(0.9, 1.1)], usual=USUAL, batches=8)
    assert below is not None and below < -0.5 and above == pytest.approx(-below)


def test_three_repeats_carry_an_interval_that_none_has_alone() -> None:
    assert over_repeats([1.0, 2.0], [NO_INTERVAL] * 2, usual=USUAL, batches=8) == NO_INTERVAL
    assert over_repeats([1.0, 2.0], [Interval(0.9, 1.1), NO_INTERVAL], usual=USUAL, batches=8) == NO_INTERVAL
    half = student_t975(2) * math.log(2) / math.sqrt(3)
    found = over_repeats([1.0, 2.0, 4.0], [NO_INTERVAL] * 3, usual=USUAL, batches=8)
    assert found == (pytest.approx(7 / 3 * math.exp(-half)), pytest.approx(7 / 3 * math.exp(half)))


Own = st.floats(0.001, 0.5)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.floats(-1.0, 1.0), Own), min_size=2, max_size=5), st.floats(1.05, 4.0), st.floats(0.01, 100.0))
def test_holds_the_mean_is_positive_and_widens_with_disagreement(given_: list[tuple[float, float]], more: float, unit: float) -> None:
    own = [half for _, half in given_]
    middle = float(np.mean([place for place, _ in given_]))
    near = [math.exp(place) for place, _ in given_]
    far = [math.exp(middle + more * (place - middle)) for place, _ in given_]
    low, high = over_repeats(near, [about(*one) for one in zip(near, own, strict=True)], usual=USUAL, batches=8)
    assert low is not None and high is not None
    assert 0 < low <= np.mean(near) * (1 + 1e-9) and high >= np.mean(near) * (1 - 1e-9)
    assert all(wide >= narrow * (1 - 1e-3) for wide, narrow in zip(halves(far, own), halves(near, own), strict=True))
    scaled = over_repeats([unit * one for one in near], [about(unit * value, half) for value, half in zip(near, own, strict=True)], usual=USUAL, batches=8)
    assert scaled == (pytest.approx(unit * low, rel=1e-6), pytest.approx(unit * high, rel=1e-6))


@pytest.mark.parametrize("repeats", [2, 3, 5])
@pytest.mark.parametrize("inside", [0.0075, 0.015])
def test_repeats_that_differ_as_usual_are_covered(repeats: int, inside: float) -> None:
    """600 runs: binomial 3 sigma about 95% is 92.3% to 97.7%, and two repeats may hold a point more."""
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(600):
        logs = rng.normal(0, math.hypot(USUAL, inside), repeats)
        own = student_t975(7) * inside * np.sqrt(rng.chisquare(7, repeats) / 7)
        values = np.exp(logs).tolist()
        low, high = over_repeats(values, [about(*one) for one in zip(values, own.tolist(), strict=True)], usual=USUAL, batches=8)
        assert low is not None and high is not None
        hits += low <= 1 <= high
    assert 0.923 <= hits / 600 <= 0.987


@pytest.mark.parametrize(
    ("metric", "arrival", "starts", "expected"),
    [
        ("tpot_s", "closed", ["a", "a"], REPEAT_SD), ("tpot_s", "closed", [None, None], REPEAT_SD), ("tpot_s", "closed", ["a", "b"], START_SD["closed"]),
        ("ttft_s", "closed", ["a", "b", "b"], 0.03), ("ttft_s", "poisson", ["a", "b"], START_SD["open"]),
        ("goodput_per_s", "poisson", ["a", "b"], START_SD["open"]), ("requests_per_s", "poisson", ["a", "b"], REPEAT_SD),
        ("requests_per_s", "closed", ["a", "b"], START_SD["closed"]),
        ("output_tokens", "closed", ["a", "b"], REPEAT_SD),
    ],
)  # fmt: skip
def test_what_repeats_usually_differ_by(metric: str, arrival: str, starts: list[str | None], expected: float) -> None:
    assert repeat_sd(metric, arrival, starts) == expected
