"""Steady, not steady, cut, over-saturated, too short: each shown on requests whose state is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from perfbench.analyse.steady import kept, steady_state
from perfbench.records import SteadyState, TrialOutcome
from perfbench.scenario.model import Output, Stage

S = 1_000_000_000
WINDOW_S = 60.0


def stage(arrival: str = "closed", **given: Any) -> Stage:
    keys: dict[str, Any] = {"closed": {"concurrency": 8}, "poisson": {"rate_per_s": 10.0}, "ramp": {"rate_per_s": 5.0, "to_rate_per_s": 9.0}}
    return Stage(name="one", arrival=arrival, output=Output(max_tokens=16), duration_s=WINDOW_S, **{**keys[arrival], **given})  # type: ignore[arg-type]


def outcome(**given: Any) -> TrialOutcome:
    values = {"trial": "a.one.r0", "started_ns": 0, "measure_from_ns": 5 * S, "measure_until_ns": round((5 + WINDOW_S) * S), "ended_ns": 100 * S}
    return TrialOutcome(**{**values, "requests_ok": 0, "requests_failed": 0, **given})


def requests(due_s: np.ndarray, ttft_s: np.ndarray, tpot_s: np.ndarray, tokens: int = 16) -> pl.DataFrame:
    """`due_s` counts from the start of the window."""
    due = ((due_s + 5) * S).astype(np.int64)
    e2e = ttft_s + tpot_s * (tokens - 1)
    return pl.DataFrame(
        {"scheduled_ns": due, "end_ns": due + (e2e * S).astype(np.int64), "tpot_s": tpot_s, "ttft_scheduled_s": ttft_s, "e2e_s": e2e},
        schema_overrides={"tpot_s": pl.Float64},
    )


def steady_requests(rng: np.random.Generator, n: int = 600, tpot_s: float = 0.02) -> pl.DataFrame:
    return requests(np.sort(rng.uniform(-5, WINDOW_S, n)), rng.gamma(4, 0.02, n), rng.gamma(100, tpot_s / 100, n))


def judged(frame: pl.DataFrame, arrival: str = "closed", **given: Any) -> SteadyState:
    return steady_state(stage(arrival), outcome(**given), frame)


def test_a_steady_window_is_kept_whole() -> None:
    state = judged(steady_requests(np.random.default_rng(0)))
    assert (state.verdict, state.cut_s, state.level_shift) == ("steady", 0.0, None), state.sentence
    assert kept(outcome(), state) == outcome()
    assert state.series["tpot_p50_s"].values and len(state.series["tpot_p50_s"].values) == state.slices


def test_a_warm_up_that_lasts_into_the_window_is_cut_off() -> None:
    """The time per token climbs to its level over the first 15 s."""
    rng = np.random.default_rng(1)
    frame = steady_requests(rng)
    due = frame["scheduled_ns"].to_numpy() / S - 5
    slower = requests(due, rng.gamma(4, 0.02, 600), frame["tpot_s"].to_numpy() * np.clip(0.4 + 0.6 * due / 15, 0.4, 1.0))
    state = judged(slower)
    assert state.verdict == "steady", state.sentence
    assert 8 <= (state.kept_from_s or 0) <= 20 and state.kept_until_s == pytest.approx(WINDOW_S)
    cut = kept(outcome(), state)
    assert cut.measure_from_ns == outcome().measure_from_ns + round((state.kept_from_s or 0) * S)
    assert "the rest is cut" in state.sentence and "the TPOT's p50" in state.sentence


def test_a_level_shift_is_said_and_the_first_plateau_is_reported() -> None:
    """40 s in, every token takes 30% longer: KV cache full, a worker lost."""
    rng = np.random.default_rng(2)
    frame = steady_requests(rng)
    due = frame["scheduled_ns"].to_numpy() / S - 5
    state = judged(requests(due, rng.gamma(4, 0.02, 600), frame["tpot_s"].to_numpy() * np.where(due > 40, 1.3, 1.0)))
    assert state.verdict == "steady"
    assert state.kept_from_s == 0 and 34 <= (state.kept_until_s or 0) <= 46
    assert state.level_shift is not None and "+3" in state.level_shift and "into the window" in state.level_shift


def test_a_drift_all_along_is_no_steady_state() -> None:
    """The time per token doubles over the window: no eight slices stand still."""
    rng = np.random.default_rng(3)
    frame = steady_requests(rng, n=1200)
    due = frame["scheduled_ns"].to_numpy() / S - 5
    state = judged(requests(due, rng.gamma(4, 0.02, 1200), frame["tpot_s"].to_numpy() * 2 ** (3 * np.clip(due, 0, None) / WINDOW_S)))
    assert state.verdict == "no steady state"
    assert "the TPOT's p50 rises" in state.sentence and state.cut_s == 0


def test_over_saturation_is_named() -> None:
    """12 arrivals a second at a server that ends 8: the queue grows by 4 a second, and so does the wait."""
    rng = np.random.default_rng(4)
    due = np.sort(rng.uniform(-5, WINDOW_S, round(12 * (WINDOW_S + 5))))
    state = judged(requests(due, 0.1 + 0.5 * np.clip(due + 5, 0, None), np.full(len(due), 0.02)), "poisson")
    assert state.verdict == "over-saturated", state.sentence
    assert "requests in flight grew from" in state.sentence and "cannot keep up" in state.sentence


def test_a_queue_near_its_capacity_is_not_over_saturated() -> None:
    """M/M/1 at 80% load, twenty windows of 600 requests: long queues come and go."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        gaps, services = rng.exponential(0.1, 3000), rng.exponential(0.08, 3000)
        wait, waits = 0.0, np.empty(3000)
        for k in range(3000):
            waits[k] = wait
            wait = max(0.0, wait + services[k] - gaps[k])
        due = np.cumsum(gaps)
        inside = (due > 200) & (due < 200 + WINDOW_S + 5)
        frame = requests(due[inside] - 205, waits[inside], rng.gamma(100, 0.0002, int(inside.sum())), tokens=2)
        assert judged(frame, "poisson").verdict != "over-saturated"


def test_short_windows_are_too_short_to_tell() -> None:
    rng = np.random.default_rng(6)
    few = judged(steady_requests(rng, n=100))
    assert (few.verdict, few.cut_s) == ("cannot tell", 0.0) and "it takes 160" in few.sentence
    slow = judged(requests(np.sort(rng.uniform(0, WINDOW_S, 400)), np.full(400, 15.0), np.full(400, 0.02)))
    assert slow.verdict == "cannot tell" and "less than 5 times the p99" in slow.sentence


def test_loads_that_change_are_not_stationary_by_design() -> None:
    state = judged(steady_requests(np.random.default_rng(7)), "ramp")
    assert state.verdict == "not stationary by design" and "`ramp`" in state.sentence


def test_a_trial_that_was_stopped_says_why() -> None:
    state = judged(steady_requests(np.random.default_rng(8)), "poisson", stopped_early="stopped 20 s early: over-saturated")
    assert (state.verdict, state.sentence) == ("over-saturated", "stopped 20 s early: over-saturated")


def test_answers_without_usage_leave_nothing_to_judge_a_closed_loop_by() -> None:
    frame = steady_requests(np.random.default_rng(9)).with_columns(pl.lit(None, dtype=pl.Float64).alias("tpot_s"))
    assert judged(frame).verdict == "cannot tell"
    assert judged(frame, "poisson").verdict == "steady"
