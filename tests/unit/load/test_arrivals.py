"""Schedules: each process has the distribution it is named for, and depends on stage and seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perfbench.load.arrivals import schedule
from perfbench.scenario.model import Output, Stage


def stage(arrival: str = "poisson", rate: float | None = 20.0, warmup: float = 2.0, duration: float = 8.0, name: str = "s") -> Stage:
    values = {"name": name, "arrival": arrival, "rate_per_s": rate, "warmup_s": warmup, "duration_s": duration, "output": Output(fixed=4)}
    return Stage.model_validate(values)


@pytest.mark.parametrize("seed", range(5))
def test_poisson_gaps_are_exponential_and_independent(seed: int) -> None:
    rate = 50.0
    gaps = np.diff(schedule(stage(rate=rate, warmup=0.0, duration=200.0), seed), prepend=0) / 1e9
    # 5 seeds, 2 tests each: a true schedule fails one of them in 1 of 1,000 such test runs; seeds are fixed, so it passes or fails for ever.
    assert stats.kstest(gaps, "expon", args=(0, 1 / rate)).pvalue > 1e-4
    assert stats.pearsonr(gaps[:-1], gaps[1:]).pvalue > 1e-4


def test_poisson_counts_per_second_have_variance_equal_to_mean() -> None:
    offsets = schedule(stage(rate=30.0, warmup=0.0, duration=1000.0), 7)
    counts = np.bincount(offsets // 1_000_000_000, minlength=1000)
    dispersion = float(((counts - counts.mean()) ** 2).sum() / counts.mean())
    assert 0.001 < stats.chi2.cdf(dispersion, 999) < 0.999


def test_poisson_arrivals_are_uniform_over_the_stage() -> None:
    offsets = schedule(stage(rate=100.0, warmup=20.0, duration=80.0), 3)
    assert stats.kstest(offsets / 100e9, "uniform").pvalue > 1e-4


def test_constant_sends_every_nth_of_a_second_over_warmup_and_window() -> None:
    offsets = schedule(stage("constant", 4.0, 0.5, 1.0), 99)
    assert offsets.tolist() == [0, 250_000_000, 500_000_000, 750_000_000, 1_000_000_000, 1_250_000_000]


def test_same_seed_same_arrivals_other_seed_other_arrivals() -> None:
    assert np.array_equal(schedule(stage(name="a"), [1, 2, 3]), schedule(stage(name="b"), [1, 2, 3]))
    assert not np.array_equal(schedule(stage(), [1, 2, 3])[:5], schedule(stage(), [1, 2, 4])[:5])


def test_closed_stage_has_no_schedule() -> None:
    closed = Stage.model_validate({"name": "c", "arrival": "closed", "concurrency": 2, "output": Output(fixed=4)})
    with pytest.raises(ValueError, match="`c` with arrival `closed`"):
        schedule(closed, 0)


@settings(max_examples=150, deadline=None)
@given(
    arrival=st.sampled_from(["constant", "poisson"]), rate=st.floats(0.01, 500), warmup=st.floats(0, 5), duration=st.floats(0.001, 10),
    seed=st.integers(0, 2**40),
)
def test_any_schedule_is_ascending_and_inside_the_stage(arrival: str, rate: float, warmup: float, duration: float, seed: int) -> None:
    offsets = schedule(stage(arrival, rate, warmup, duration), seed)
    assert offsets.dtype == np.int64
    assert (np.diff(offsets) >= 0).all()
    if len(offsets):
        assert offsets[0] >= 0
        assert offsets[-1] < (warmup + duration) * 1e9
    expected = rate * (warmup + duration)
    slack = 1 if arrival == "constant" else 8 * expected**0.5 + 12
    assert abs(len(offsets) - expected) <= slack
