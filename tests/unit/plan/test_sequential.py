"""The sequential test against its promises: error rates at the two shares it separates, few requests where the answer is clear, dependence paid for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.plan.sequential import ERROR, ODDS, THRESHOLD, Evidence, Judgement, Tally, backlog_slope, inflation, judge


def _evidence(tallies: list[tuple[int, int]], *, elapsed_s: float = 60.0, in_flight: list[float] | None = None, rate: float | None = None) -> Evidence:
    return Evidence(elapsed_s, 60.0, {"ttft_s": [Tally(*one) for one in tallies]}, in_flight or [], rate)


def _judge(judged: int, late: int, allowed: float = 0.05, elapsed_s: float = 60.0) -> Judgement:
    """One piece, so that nothing is known of dependence."""
    return judge(_evidence([(judged, late)], elapsed_s=elapsed_s), {"ttft_s": allowed})


@pytest.mark.parametrize(("allowed", "needed"), [(0.05, 94), (0.01, 468), (0.5, 10)])
def test_how_many_requests_in_time_are_clear(allowed: float, needed: int) -> None:
    """ln(49) / ln((1 - low) / (1 - high)), where low and high are the shares with odds 1.5 times lower and higher."""
    odds = allowed / (1 - allowed)
    low, high = odds / ODDS / (1 + odds / ODDS), odds * ODDS / (1 + odds * ODDS)
    assert needed == math.ceil(math.log(49) / math.log((1 - low) / (1 - high)))
    assert _judge(needed, 0, allowed).verdict == "good"
    assert _judge(needed - 1, 0, allowed).verdict == "unclear"


def test_all_late_is_clear_after_six() -> None:
    assert [_judge(count, count).verdict for count in (5, 6)] == ["unclear", "late"]


def test_nothing_is_decided_before_its_time() -> None:
    assert [_judge(1000, 0, elapsed_s=elapsed_s).verdict for elapsed_s in (14.0, 15.0)] == ["unclear", "good"]
    assert [_judge(1000, 900, elapsed_s=elapsed_s).verdict for elapsed_s in (5.9, 6.0)] == ["unclear", "late"]


def test_error_rates_of_the_test_itself() -> None:
    """Wald: at the two shares, the wrong answer comes at most in ERROR of all probes. 2000 probes each; three standard errors of room."""
    rng = np.random.default_rng(1)
    odds = 0.05 / 0.95
    for share, wrong in ((odds / ODDS / (1 + odds / ODDS), "late"), (odds * ODDS / (1 + odds * ODDS), "good")):
        errors = 0
        for _ in range(2000):
            late = np.cumsum(rng.random(4000) < share)
            n = np.arange(1, 4001)
            low, high = odds / ODDS / (1 + odds / ODDS), odds * ODDS / (1 + odds * ODDS)
            llr = late * math.log(high / low) + (n - late) * math.log((1 - high) / (1 - low))
            first = int(np.argmax(np.abs(llr) >= THRESHOLD))
            answer = _judge(int(n[first]), int(late[first])).verdict
            assert answer in ("good", "late")
            errors += answer == wrong
        assert errors / 2000 < ERROR + 3 * math.sqrt(ERROR * (1 - ERROR) / 2000)


def test_dependent_requests_count_for_less() -> None:
    """Late requests in one burst: the same share as spread evenly, told by far fewer independent events."""
    even, burst = [(100, 5)] * 8, [(100, 40)] + [(100, 0)] * 7
    assert inflation([Tally(*one) for one in even]) == 1.0
    assert inflation([Tally(*one) for one in burst]) > 30
    assert abs(judge(_evidence(burst), {"ttft_s": 0.02}).llr) < abs(judge(_evidence(even), {"ttft_s": 0.02}).llr)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=80))
def test_inflation_is_finite_and_at_least_one(pieces: list[tuple[int, float]]) -> None:
    found = inflation([Tally(judged, int(judged * share)) for judged, share in pieces])
    assert 1.0 <= found < math.inf


def test_independent_requests_are_hardly_inflated() -> None:
    rng = np.random.default_rng(2)
    found = [inflation([Tally(50, int(late)) for late in rng.binomial(50, 0.05, 64)]) for _ in range(400)]
    assert np.median(found) < 1.3


def test_a_growing_backlog_is_saturation_though_nothing_is_late_yet() -> None:
    """100 arrivals a second, 10 of them left over each second; noise of a queue beside it."""
    rng = np.random.default_rng(3)
    time_s = np.linspace(0, 20, 64)
    overload = _evidence([(100, 0)] * 20, elapsed_s=20.0, in_flight=(10 * time_s + rng.normal(0, 10, 64)).tolist(), rate=100.0)
    t, drift = backlog_slope(overload)
    assert t > 5.208
    assert drift == pytest.approx(0.10, rel=0.2)
    assert judge(overload, {"ttft_s": 0.05}).verdict == "saturated"
    steady = _evidence([(100, 0)] * 20, elapsed_s=20.0, in_flight=(20 + rng.normal(0, 10, 64)).tolist(), rate=100.0)
    assert judge(steady, {"ttft_s": 0.05}).verdict == "good"


def test_a_backlog_that_may_be_growing_is_no_evidence_for_good() -> None:
    rising = [float(20 + 2.5 * place + (8 if place % 2 else -8)) for place in range(8)]
    found = judge(_evidence([(100, 0)] * 20, elapsed_s=20.0, in_flight=rising, rate=10.0), {"ttft_s": 0.05})
    assert (found.verdict, found.llr) == ("unclear", 0.0)


def test_every_limit_must_be_met_and_one_missed_decides() -> None:
    tallies = {"ttft_s": [Tally(1000, 0)], "tpot_s": [Tally(1000, 300)]}
    found = judge(Evidence(60.0, 60.0, tallies, [], None), {"ttft_s": 0.05, "tpot_s": 0.05})
    assert (found.verdict, found.metric, found.late_share) == ("late", "tpot_s", 0.3)
    none = judge(Evidence(60.0, 60.0, {"ttft_s": [Tally(1000, 0)], "tpot_s": []}, [], None), {"ttft_s": 0.05, "tpot_s": 0.05})
    assert none.verdict == "unclear"
