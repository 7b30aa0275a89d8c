"""Schedules: each process has the distribution it is named for, and depends on stage and seed alone.

Seeds are fixed, so a test passes or fails for ever. A p-value below 1e-4 is what one in ten thousand true schedules would give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from perfbench.load.arrivals import schedule, window_ns
from perfbench.scenario.model import Output, Stage

LEAST_P = 1e-4

SHAPES: dict[str, dict[str, Any]] = {
    "constant": {"rate_per_s": 20.0},
    "poisson": {"rate_per_s": 20.0},
    "gamma": {"rate_per_s": 20.0, "burstiness": 0.3},
    "ramp": {"rate_per_s": 5.0, "to_rate_per_s": 60.0},
    "step": {"rate_per_s": 10.0, "to_rate_per_s": 40.0, "steps": 4},
    "spike": {"rate_per_s": 10.0, "to_rate_per_s": 150.0, "spike_at_s": 40.0, "spike_s": 20.0},
    "sine": {"rate_per_s": 30.0, "amplitude": 0.9, "period_s": 50.0},
}


def stage(arrival: str = "poisson", warmup: float = 2.0, duration: float = 8.0, name: str = "s", **shape: Any) -> Stage:
    values = {"name": name, "arrival": arrival, "warmup_s": warmup, "duration_s": duration, "output": Output(fixed=4)}
    return Stage.model_validate(values | (shape or SHAPES[arrival]))


def rate_at(made: Stage, t_s: float) -> float:
    """The rate that a stage describes, t seconds after its start, from the words of the scenario reference."""
    rate, window_s = made.rate_per_s, t_s - made.warmup_s
    assert rate is not None
    if window_s < 0 or made.arrival in ("constant", "poisson"):
        return rate
    if made.arrival == "sine":
        return rate * (1 + made.amplitude * np.sin(2 * np.pi * window_s / made.period_s))
    assert made.to_rate_per_s is not None
    if made.arrival == "ramp":
        return rate + (made.to_rate_per_s - rate) * window_s / made.duration_s
    if made.arrival == "step":
        level = min(int(window_s / (made.duration_s / made.steps)), made.steps - 1)
        return rate + (made.to_rate_per_s - rate) * level / (made.steps - 1)
    return made.to_rate_per_s if made.spike_at_s <= window_s < made.spike_at_s + made.spike_s else rate


def expected_until(made: Stage, times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral of the rate from 0 to each time, by the trapezoidal rule on a fine grid: no formula of the code under test."""
    grid = np.linspace(0, made.warmup_s + made.duration_s, 400_001)
    total = integrate.cumulative_trapezoid([rate_at(made, float(t_s)) for t_s in grid], grid, initial=0)
    return np.interp(times_s, grid, total)


@pytest.mark.parametrize("seed", range(5))
def test_poisson_gaps_are_exponential_and_independent(seed: int) -> None:
    rate = 50.0
    gaps = np.diff(schedule(stage(rate_per_s=rate, warmup=0.0, duration=200.0), seed), prepend=0) / 1e9
    assert stats.kstest(gaps, "expon", args=(0, 1 / rate)).pvalue > LEAST_P
    assert stats.pearsonr(gaps[:-1], gaps[1:]).pvalue > LEAST_P


def test_poisson_counts_per_second_have_variance_equal_to_mean() -> None:
    offsets = schedule(stage(rate_per_s=30.0, warmup=0.0, duration=1000.0), 7)
    counts = np.bincount(offsets // 1_000_000_000, minlength=1000)
    dispersion = float(((counts - counts.mean()) ** 2).sum() / counts.mean())
    assert 0.001 < stats.chi2.cdf(dispersion, 999) < 0.999


def test_poisson_arrivals_are_uniform_over_the_stage() -> None:
    offsets = schedule(stage(rate_per_s=100.0, warmup=20.0, duration=80.0), 3)
    assert stats.kstest(offsets / 100e9, "uniform").pvalue > LEAST_P


@pytest.mark.parametrize("burstiness", [0.05, 0.3, 1.0, 4.0, 50.0])
def test_gamma_gaps_are_gamma_distributed_and_independent(burstiness: float) -> None:
    rate = 40.0
    made = stage("gamma", warmup=0.0, duration=250.0, rate_per_s=rate, burstiness=burstiness)
    gaps = np.diff(schedule(made, 11), prepend=0) / 1e9
    # Times are whole ns, so the many gaps below 1 ns of a very bursty process are 0: the distribution is compared above that.
    seen, known = gaps[gaps > 1e-6], stats.gamma(burstiness, scale=1 / (rate * burstiness))
    below = known.cdf(1e-6)
    assert stats.kstest(seen, lambda x: (known.cdf(x) - below) / (1 - below)).pvalue > LEAST_P
    assert abs(np.mean(gaps <= 1e-6) - below) < 4 * (below * (1 - below) / len(gaps)) ** 0.5 + 1e-9
    assert stats.spearmanr(gaps[:-1], gaps[1:]).pvalue > LEAST_P
    spread = np.std(gaps) / np.mean(gaps)
    assert spread == pytest.approx(burstiness**-0.5, rel=0.15)


def test_gamma_with_burstiness_1_is_poisson() -> None:
    gaps = np.diff(schedule(stage("gamma", warmup=0.0, duration=300.0, rate_per_s=20.0, burstiness=1.0), 2), prepend=0) / 1e9
    assert stats.kstest(gaps, "expon", args=(0, 1 / 20.0)).pvalue > LEAST_P


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arrival", ["poisson", "ramp", "step", "spike", "sine"])
def test_a_changing_rate_becomes_a_unit_rate_process_when_time_is_rescaled(arrival: str, seed: int) -> None:
    """The time-rescaling theorem: R(t1), R(t2), ... is a Poisson process with rate 1 if, and only if, r is the process's rate."""
    made = stage(arrival, warmup=10.0, duration=100.0)
    unit = expected_until(made, schedule(made, [seed, 1]) / 1e9)
    gaps = np.diff(unit, prepend=0.0)
    assert stats.kstest(gaps, "expon").pvalue > LEAST_P
    assert stats.pearsonr(gaps[:-1], gaps[1:]).pvalue > LEAST_P


def test_the_rescaling_test_can_fail() -> None:
    """A Poisson schedule with the ramp's mean rate is no ramp."""
    ramp = stage("ramp", warmup=0.0, duration=100.0)
    offsets = schedule(stage(warmup=0.0, duration=100.0, rate_per_s=32.5), 0) / 1e9
    assert stats.kstest(np.diff(expected_until(ramp, offsets), prepend=0.0), "expon").pvalue < 1e-6


@pytest.mark.parametrize(
    ("arrival", "edges"),
    [("step", [0, 10, 35, 60, 85, 110]), ("spike", [0, 10, 50, 70, 110]), ("ramp", [0, 10, 30, 60, 110]), ("sine", [0, 10, 22.5, 47.5, 72.5, 110])],
)
def test_each_segment_has_the_arrivals_of_its_rate(arrival: str, edges: list[float]) -> None:
    made = stage(arrival, warmup=10.0, duration=100.0)
    expected = np.diff(expected_until(made, np.array(edges, np.float64)))
    runs = 40
    counts = sum(np.histogram(schedule(made, [run]) / 1e9, edges)[0] for run in range(runs))
    assert np.all(np.abs(counts - runs * expected) < 4 * np.sqrt(runs * expected))


def test_step_holds_its_levels_and_spike_its_rate() -> None:
    steps = stage("step", warmup=0.0, duration=100.0, rate_per_s=100.0, to_rate_per_s=400.0, steps=4)
    assert [rate_at(steps, t_s) for t_s in (1, 26, 51, 76)] == [100, 200, 300, 400]
    counts = np.histogram(schedule(steps, 5) / 1e9, [0, 25, 50, 75, 100])[0] / 25
    assert counts == pytest.approx([100, 200, 300, 400], rel=0.08)
    spike = stage("spike", warmup=5.0, duration=20.0, rate_per_s=10.0, to_rate_per_s=1000.0, spike_at_s=4.0, spike_s=2.0)
    offsets = schedule(spike, 5) / 1e9
    assert np.count_nonzero((offsets >= 9) & (offsets < 11)) == pytest.approx(2000, rel=0.1)
    assert np.count_nonzero((offsets < 9) | (offsets >= 11)) == pytest.approx(230, rel=0.3)


def test_a_spike_may_begin_and_end_with_the_window() -> None:
    whole = stage("spike", warmup=0.0, duration=2.0, rate_per_s=1.0, to_rate_per_s=500.0, spike_at_s=0.0, spike_s=2.0)
    assert len(schedule(whole, 1)) == pytest.approx(1000, rel=0.15)


def test_a_ramp_may_go_down() -> None:
    offsets = schedule(stage("ramp", warmup=0.0, duration=100.0, rate_per_s=60.0, to_rate_per_s=1.0), 4) / 1e9
    assert np.count_nonzero(offsets < 50) == pytest.approx(50 * 45.25, rel=0.08)
    assert np.count_nonzero(offsets >= 50) == pytest.approx(50 * 15.75, rel=0.15)


def test_constant_sends_every_nth_of_a_second_over_warmup_and_window() -> None:
    offsets = schedule(stage("constant", rate_per_s=4.0, warmup=0.5, duration=1.0), 99)
    assert offsets.tolist() == [0, 250_000_000, 500_000_000, 750_000_000, 1_000_000_000, 1_250_000_000]


@pytest.mark.parametrize("arrival", [arrival for arrival in SHAPES if arrival != "constant"])
def test_same_seed_same_arrivals_other_seed_other_arrivals(arrival: str) -> None:
    long = {"warmup": 2.0, "duration": 100.0}
    assert np.array_equal(schedule(stage(arrival, name="a", **long), [1, 2, 3]), schedule(stage(arrival, name="b", **long), [1, 2, 3]))
    assert not np.array_equal(schedule(stage(arrival, **long), [1, 2, 3])[:5], schedule(stage(arrival, **long), [1, 2, 4])[:5])


@pytest.mark.parametrize("given", [{"arrival": "closed", "concurrency": 2}, {"arrival": "trace"}])
def test_closed_and_trace_stages_have_no_schedule_of_their_own(given: dict[str, Any]) -> None:
    made = Stage.model_validate({"name": "c", "output": Output(fixed=4), **given})
    with pytest.raises(ValueError, match=f"`c` with arrival `{given['arrival']}`"):
        schedule(made, 0)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    arrival = draw(st.sampled_from(sorted(SHAPES)))
    rate, other = draw(st.floats(0.01, 300)), draw(st.floats(0.01, 300))
    warmup, duration = draw(st.floats(0, 5)), draw(st.floats(0.001, 10))
    spike_at = draw(st.floats(0, duration))
    shape = {
        "constant": {}, "poisson": {}, "gamma": {"burstiness": draw(st.floats(0.01, 100))}, "ramp": {"to_rate_per_s": other},
        "step": {"to_rate_per_s": other, "steps": draw(st.integers(2, 9))},
        "spike": {"to_rate_per_s": other, "spike_at_s": spike_at, "spike_s": max(1e-9, draw(st.floats(0, 1)) * (duration - spike_at))},
        "sine": {"amplitude": draw(st.floats(0.001, 1)), "period_s": draw(st.floats(0.1, 100))},
    }[arrival]  # fmt: skip
    return stage(arrival, warmup=warmup, duration=duration, rate_per_s=rate, **shape)


@settings(max_examples=300, deadline=None)
@given(made=stages(), seed=st.integers(0, 2**40))
def test_any_schedule_is_ascending_inside_the_stage_and_of_its_rate(made: Stage, seed: int) -> None:
    offsets = schedule(made, seed)
    length_s = made.warmup_s + made.duration_s
    assert offsets.dtype == np.int64
    assert (np.diff(offsets) >= 0).all()
    if len(offsets):
        assert offsets[0] >= 0
        assert offsets[-1] < length_s * 1e9
    assert np.array_equal(offsets, schedule(made, seed))
    if made.arrival == "gamma":
        return  # its count has no simple bound; the distribution of its gaps is held above
    grid = np.linspace(0, length_s, 4001)
    expected = float(np.trapezoid([rate_at(made, float(t_s)) for t_s in grid], grid))
    rates = max(made.rate_per_s or 0, made.to_rate_per_s or 0)
    slack = 1 if made.arrival == "constant" else 8 * expected**0.5 + 12 + rates * length_s / 1000
    assert abs(len(offsets) - expected) <= slack


@pytest.mark.parametrize("extra", [{"arrival": "constant"}, {"arrival": "poisson"}, {"arrival": "gamma", "burstiness": 0.3}])
@pytest.mark.parametrize("warmup_s", [0.0, 2.5])
def test_a_counted_window_holds_exactly_its_requests_and_ends_when_the_next_is_due(extra: dict[str, object], warmup_s: float) -> None:
    values = {"name": "s", "rate_per_s": 8.0, "warmup_s": warmup_s, "output": Output(fixed=1), **extra}
    counted = Stage.model_validate({**values, "requests": 200})
    offsets_ns, length_ns, warmup_ns = schedule(counted, [3, 1]), window_ns(counted, [3, 1]), round(warmup_s * 1e9)
    assert np.count_nonzero((offsets_ns >= warmup_ns) & (offsets_ns < warmup_ns + length_ns)) == 200
    assert offsets_ns[-1] < warmup_ns + length_ns
    longer = schedule(Stage.model_validate({**values, "duration_s": length_ns / 1e9 * 2}), [3, 1])
    assert np.allclose(longer[: len(offsets_ns)], offsets_ns, atol=2)  # the same arrivals as in a window that is measured in seconds
    assert abs(int(longer[len(offsets_ns)]) - (warmup_ns + length_ns)) <= 2
