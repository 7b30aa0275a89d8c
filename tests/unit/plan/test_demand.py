"""Demand files: every source, every refusal, and rates by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfbench.errors import InputError, ScenarioError
from perfbench.plan.demand import HOURS, DemandFile, TraceArrays, demand_of, read_demand

PROFILE = [1.0] * 12 + [3.0] * 12


def _read(tmp_path: Path, text: str) -> DemandFile:
    path = tmp_path / "demand.yaml"
    path.write_text(text)
    return read_demand(path)


def _trace(offsets: list[float]) -> TraceArrays:
    arrivals = np.array(offsets, np.float64)
    return TraceArrays(arrivals, np.full(len(offsets), 1000.0), np.full(len(offsets), np.nan))


def test_a_peak_alone_is_every_hour_alike(tmp_path: Path) -> None:
    demand = demand_of(_read(tmp_path, "peak_per_s: 12"))
    assert (demand.peak_per_s, demand.mean_per_s, demand.hourly_per_s) == (12.0, 12.0, [12.0] * HOURS)
    assert demand.requests_per_month == 12 * 3600 * 730 and "every hour alike" in demand.source


def test_a_peak_with_a_profile(tmp_path: Path) -> None:
    """Half of the hours have a third of the peak: the mean is two thirds of it."""
    demand = demand_of(_read(tmp_path, f"peak_per_s: 12\nprofile: {PROFILE}\nhours_per_month: 100"))
    assert demand.hourly_per_s == [4.0] * 12 + [12.0] * 12 and demand.mean_per_s == 8.0
    assert demand.requests_per_month == 8 * 3600 * 100


def test_hours_with_a_burst(tmp_path: Path) -> None:
    demand = demand_of(_read(tmp_path, f"hourly_per_s: {PROFILE}\nburst: 2"))
    assert (demand.peak_per_s, demand.mean_per_s) == (6.0, 2.0)


def test_users(tmp_path: Path) -> None:
    """8,640 users with 20 requests a day are 2 a second on average; the busy half of the day has three quarters of them: 3 a second."""
    demand = demand_of(_read(tmp_path, f"users: {{count: 8640, requests_per_day: 20}}\nprofile: {PROFILE}"))
    assert demand.mean_per_s == pytest.approx(2.0) and demand.peak_per_s == pytest.approx(3.0)
    assert "8,640 users with 20 requests a day" in demand.source


def test_growth_compounds(tmp_path: Path) -> None:
    demand = demand_of(_read(tmp_path, "peak_per_s: 10\ngrowth: {percent_per_month: 10, months: 2}"))
    assert demand.peak_per_s == pytest.approx(12.1) and "10% a month over 2 months" in demand.source


def test_a_short_trace_is_every_hour(tmp_path: Path) -> None:
    """Two minutes and a bit: 60 requests in the first, 120 in the second; the last, cut off, is no peak."""
    (tmp_path / "t.csv").write_text("")
    offsets = [*np.arange(0, 60, 1.0), *np.arange(60, 120, 0.5), 120.1]
    demand = demand_of(_read(tmp_path, "trace: {path: ./t.csv, rate_scale: 10}"), _trace(offsets))
    assert demand.peak_per_s == pytest.approx(20.0)
    assert demand.hourly_per_s == [pytest.approx(181 / 120.1 * 10)] * HOURS
    assert demand.input_tokens == 1000.0 and demand.output_tokens is None
    assert "181 requests of t.csv" in demand.source and "less than a day" in demand.source


def test_a_trace_of_days_gives_the_hours(tmp_path: Path) -> None:
    """Two days and a half with an hourly request, 3,600 more in hour 5 of the first day: the half day is left out."""
    (tmp_path / "t.csv").write_text("")
    offsets = sorted([*np.arange(0, 2.5 * 86_400, 3600.0), *(5 * 3600 + np.arange(3600.0))])
    demand = demand_of(_read(tmp_path, "trace: {path: ./t.csv}"), _trace(offsets))
    assert demand.hourly_per_s[5] == pytest.approx((3600 + 2) / 7200) and demand.hourly_per_s[6] == pytest.approx(2 / 7200)
    assert demand.peak_per_s == pytest.approx(61 / 60) and "over 2 whole days" in demand.source


@settings(max_examples=50)
@given(offsets=st.lists(st.floats(0, 400_000), min_size=2, max_size=300), scale=st.floats(0.01, 100))
def test_a_trace_never_has_more_in_its_mean_than_in_its_peak(tmp_path_factory: pytest.TempPathFactory, offsets: list[float], scale: float) -> None:
    folder = tmp_path_factory.mktemp("trace")
    (folder / "t.csv").write_text("")
    given_file = _read(folder, f"trace: {{path: ./t.csv, rate_scale: {scale}}}")
    ordered = sorted(offsets)
    if ordered[-1] - ordered[0] < 120:
        return
    demand = demand_of(given_file, _trace([offset - ordered[0] for offset in ordered]))
    assert demand.peak_per_s > 0 and min(demand.hourly_per_s) >= 0


@pytest.mark.parametrize("text", ["peak_per_s: 0", "users: {count: 0, requests_per_day: 3}", "users: {count: 3, requests_per_day: 0}"])
def test_a_demand_of_zero_has_its_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="the demand is zero: there is nothing to plan"):
        demand_of(_read(tmp_path, text))


def test_a_trace_that_lasts_no_time_is_a_demand_of_zero(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(InputError, match="the demand is zero"):
        demand_of(_read(tmp_path, "trace: {path: ./t.csv}"), _trace([0.0]))


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("peak_per_s: -1", "peak_per_s", "greater than or equal to 0"),
        ("peak_per_s: .inf", "peak_per_s", "finite"),
        ("peak_per_second: 1", "peak_per_second", "did you mean `peak_per_s`?"),
        ("peak_per_s: 1\nusers: {count: 1, requests_per_day: 1}", "", "exactly one of `peak_per_s`, `hourly_per_s`, `users` and `trace`, got peak_per_s"),
        ("head_room: 0.1", "", "got none"),
        ("hourly_per_s: [1, 2]", "hourly_per_s", "expected at least 24 entries, got 2"),
        (f"hourly_per_s: {[0] * 24}", "hourly_per_s", "a demand of zero needs no plan"),
        (f"hourly_per_s: {[1] * 24}\nprofile: {[1] * 24}", "", "`profile` belongs to `peak_per_s` or `users`"),
        ("peak_per_s: 1\nburst: 2", "", "`burst` belongs to"),
        ("peak_per_s: 1\nhead_room: 1", "head_room", "less than 1"),
        ("peak_per_s: 1\nspare_replicas: -1", "spare_replicas", "greater than or equal to 0"),
        ("peak_per_s: 1\ncost: {gpu_hour_usd: 1, server_hour_usd: 1}", "cost", "exactly one of"),
        ("peak_per_s: 1\nfine_tunes: {counts: [0]}", "fine_tunes.counts[0]", "greater than or equal to 1"),
        ("peak_per_s: 1\nfine_tunes: {skews: [0]}", "fine_tunes.skews", "did you mean `skew`?"),
        ("trace: {path: ./none.csv}", "trace.path", "does not exist"),
        ("peak_per_s: 1\npeak_per_s: 2", "line 2, column 1", "stands there twice"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_key_and_sentence(tmp_path: Path, text: str, key: str, says: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        _read(tmp_path, text)
    found = {finding.key: finding.problem for finding in raised.value.findings}
    assert says in found[key], found


def test_all_findings_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="3 problems"):
        _read(tmp_path, "peak_per_s: x\nhead_room: 2\nspare: 1")
