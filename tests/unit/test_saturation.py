"""When a running trial is ended early, and which trials are left out after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfbench.load.messages import Progress
from perfbench.records import TrialPlan
from perfbench.saturation import LEAST_REPORTS, SaturationWatch, _sigmas, why_skipped
from perfbench.scenario.model import Output, Stage


def stage(name: str = "one", arrival: str = "poisson", rate: float = 40.0, tokens: int = 8) -> Stage:
    return Stage(name=name, arrival=arrival, rate_per_s=rate, warmup_s=2, duration_s=60, output=Output(fixed=tokens))  # type: ignore[arg-type]


def report(second: int, *, in_flight: float, ttft_s: float | None, rate: float = 40.0) -> Progress:
    return Progress(
        trial="t", elapsed_s=second, length_s=62, sent=round(rate * second), in_flight=round(in_flight), ok=0, failed=0, held_back=0, ttft_p50_s=ttft_s,
        ttft_p95_s=None, chunks_per_s=0,
    )  # fmt: skip


def first_end(watch: SaturationWatch, reports: list[Progress]) -> int | None:
    return next((place for place, one in enumerate(reports) if watch.ends(one)), None)


def test_a_growing_queue_ends_the_trial_with_its_figures() -> None:
    watch = SaturationWatch(stage())
    end = first_end(watch, [report(second, in_flight=20 * second, ttft_s=0.5 * second) for second in range(1, 60)])
    assert end is not None and LEAST_REPORTS <= end + 1 - 1 <= 2 * LEAST_REPORTS
    assert watch.reason is not None
    assert "in flight grew from 40 to" in watch.reason and "cannot keep up with 40 requests/s" in watch.reason


def test_it_says_so_once() -> None:
    watch = SaturationWatch(stage())
    ends = [watch.ends(report(second, in_flight=20 * second, ttft_s=0.5 * second)) for second in range(1, 60)]
    assert ends.count(True) == 1


@pytest.mark.parametrize(
    "reports",
    [
        # a steady queue; one that fills while first tokens come in time (answers take longer than the warm-up); one whose growth is within chance
        [report(second, in_flight=100 + second % 5, ttft_s=0.5) for second in range(60)],
        [report(second, in_flight=40 * second, ttft_s=0.2 + 0.001 * second) for second in range(60)],
        [report(second, in_flight=10 + 0.5 * second, ttft_s=0.1 * (second + 1)) for second in range(60)],
        # a queue that grows by less than its own steps may: services of very different lengths
        [report(second, in_flight=70 + 2 * second + 30 * (-1) ** second, ttft_s=0.1 * (second + 1), rate=4) for second in range(60)],
        # nothing ends any more: a hang, which the time-out tells better
        [report(second, in_flight=40 * second, ttft_s=None) for second in range(60)],
    ],
)
def test_what_is_not_over_saturation(reports: list[Progress]) -> None:
    assert first_end(SaturationWatch(stage()), reports) is None


def test_a_load_that_is_meant_to_grow_is_let_grow() -> None:
    ramp = Stage(name="ramp", arrival="ramp", rate_per_s=1, to_rate_per_s=50, warmup_s=2, duration_s=60, output=Output(fixed=8))
    assert first_end(SaturationWatch(ramp), [report(second, in_flight=20 * second, ttft_s=second) for second in range(60)]) is None


class _Folder:
    """The two questions that `why_skipped` asks a run folder."""

    def __init__(self, outcomes: dict[str, Any], trials: list[TrialPlan]) -> None:
        self._outcomes = outcomes
        self.trials = trials

    def finished(self, event: str) -> dict[str, Any]:
        assert event == "trial_finished"
        return self._outcomes

    def manifest(self) -> Any:
        return self


@pytest.fixture
def scenario(tmp_path: Path) -> Any:
    """Stages at 40/s and 80/s of equal answers, and one at 80/s of shorter ones."""
    from perfbench.scenario.model import Scenario

    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n')
    stages = [
        {"name": name, "arrival": "poisson", "rate_per_s": rate, "duration_s": 5, "output": {"fixed": tokens}}
        for name, rate, tokens in (("slow", 40, 8), ("fast", 80, 8), ("short", 80, 2))
    ]
    endpoints = {name: {"url": "http://127.0.0.1:1", "model": "m"} for name in ("left", "right")}
    return Scenario.model_validate({"name": "s", "endpoints": endpoints, "load": {"data": str(tmp_path / "rows.jsonl"), "stages": stages}}, strict=False)


def plan(variant: str, stage: str) -> TrialPlan:
    return TrialPlan(trial=f"{variant}.{stage}.r0", variant=variant, stage=stage, repeat=0, arrival="poisson")


def test_higher_rates_of_the_same_requests_are_left_out(scenario: Any) -> None:
    outcome = {"trial": "left.slow.r0", "started_ns": 0, "measure_from_ns": 0, "measure_until_ns": 1, "ended_ns": 1, "requests_ok": 0, "requests_failed": 0}
    stopped = _Folder({"left.slow.r0": {**outcome, "stopped_early": "over-saturated"}}, [plan("left", "slow")])
    finished = _Folder({"left.slow.r0": outcome}, [plan("left", "slow")])
    reason = why_skipped(stopped, scenario, plan("left", "fast"))  # type: ignore[arg-type]
    assert reason == "skipped: left.slow.r0 was over-saturated at 40 requests/s, and this stage asks for 80"
    assert why_skipped(stopped, scenario, plan("left", "slow")) is None  # type: ignore[arg-type]
    assert why_skipped(stopped, scenario, plan("left", "short")) is None  # type: ignore[arg-type]
    assert why_skipped(stopped, scenario, plan("right", "fast")) is None  # type: ignore[arg-type]
    assert why_skipped(finished, scenario, plan("left", "fast")) is None  # type: ignore[arg-type]


def counted(second: int, *, sent: int, served: int) -> Progress:
    return Progress(
        trial="t", elapsed_s=second, length_s=62, sent=sent, in_flight=sent - served, ok=served, failed=0, held_back=0, ttft_p50_s=0.1 * second,
        ttft_p95_s=None, chunks_per_s=0,
    )  # fmt: skip


def test_what_arrives_by_chance_is_no_doubt_about_the_server() -> None:
    """80 or none arrive a second, and 30 are served: in flight -30, +50, -30, ..., but behind by exactly 10 a second. 10 n > 4 sqrt(40 n) from 7 on."""
    end = first_end(SaturationWatch(stage()), [counted(second, sent=80 * ((second + 1) // 2), served=30 * second) for second in range(1, 60)])
    assert end is not None and end <= 14


def test_services_that_vary_may_only_look_behind() -> None:
    """40 arrive a second, and 60 or none are served: behind by 10 a second, but 10 n > 3.6 x 30 sqrt(n) from 117 on only. Of 30 each time it is seen."""
    reports = [counted(second, sent=40 * second, served=60 * (second // 2)) for second in range(1, 60)]
    assert first_end(SaturationWatch(stage()), reports) is None
    assert first_end(SaturationWatch(stage()), [counted(second, sent=40 * second, served=30 * second) for second in range(1, 60)]) is not None


def test_fewer_requests_than_the_rate_brings_are_no_growth() -> None:
    """A burst is over: the schedule brings 5 a second now, all served, 35 less than its mean. Nothing waits longer than before."""
    assert first_end(SaturationWatch(stage(arrival="gamma")), [counted(second, sent=100 + 5 * second, served=5 * second) for second in range(1, 60)]) is None


def test_few_reports_need_more() -> None:
    """Student's t with 7 degrees of freedom beyond 3.6 standard deviations (p = 0.00016) is 6.55; of many reports 3.6."""
    assert _sigmas(7) == pytest.approx(6.55, abs=0.01)
    assert _sigmas(100_000) == pytest.approx(3.6, abs=0.001)
