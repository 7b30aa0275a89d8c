"""Who sends when: open loop keeps its schedule whatever the server does, closed loop keeps N in flight."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import numpy as np
import pytest

from perfbench.load.arrivals import schedule
from perfbench.scenario.model import Output, Stage
from tests.truth.conftest import Drive, request_body


def test_open_loop_keeps_its_schedule_while_the_server_hangs(drive: Drive) -> None:
    """2 s to the first token: whoever waits for responses sends the second request 2 s late."""
    stage = Stage.model_validate({"name": "s", "arrival": "poisson", "rate_per_s": 40.0, "warmup_s": 0.5, "duration_s": 1.5, "output": Output(fixed=1)})
    offsets_ns = schedule(stage, 5)
    driven = drive([request_body(ttft_ms=2000, gap_ms=1, tokens=2)], offsets_s=list(offsets_ns / 1e9), warmup_s=0.5, duration_s=1.5)
    assert [record.scheduled_ns - driven.outcome.started_ns for record in driven.records] == offsets_ns.tolist()
    lag_ns = [record.sent_ns - record.scheduled_ns for record in driven.records]
    assert min(lag_ns) >= 0
    assert statistics.median(lag_ns) < 2_000_000
    assert max(lag_ns) < 500_000_000
    seen_gaps = np.diff(sorted(answer.received_ns for answer in driven.answers.values()))
    assert np.median(np.abs(seen_gaps - np.diff(offsets_ns))) < 2_000_000
    assert (driven.outcome.requests_ok, driven.outcome.held_back) == (len(offsets_ns), 0)


def test_idle_connections_stand_ready_for_a_burst(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=100, gap_ms=1, tokens=2)], offsets_s=[0.2] * 30, duration_s=0.8)
    assert driven.outcome.requests_ok == 30
    assert len({answer.connection for answer in driven.answers.values()}) == 30
    assert statistics.median(record.sent_ns - record.scheduled_ns for record in driven.records) < 20_000_000


def test_the_limit_in_flight_holds_back_counts_and_keeps_the_arrivals_own_time(drive: Drive) -> None:
    offsets_s = [0.0, 0.01, 0.02, 0.03, 0.5]
    driven = drive([request_body(ttft_ms=200, gap_ms=0, tokens=1)], offsets_s=offsets_s, duration_s=1.0, max_in_flight=2)
    records, start = driven.records, driven.outcome.started_ns
    assert [record.scheduled_ns - start for record in records] == [round(offset * 1e9) for offset in offsets_s]
    assert driven.outcome.held_back == 2
    late_s = [(record.sent_ns - record.scheduled_ns) / 1e9 for record in records]
    assert late_s[2] == pytest.approx(0.18, abs=0.06)
    assert late_s[3] == pytest.approx(0.18, abs=0.06)
    assert late_s[4] < 0.05
    in_flight = [(record.sent_ns, 1) for record in records] + [(record.end_ns, -1) for record in records]
    assert max(np.cumsum([change for _, change in sorted(in_flight)])) == 2


def test_arrivals_held_back_to_the_end_leave_records_that_were_never_sent(drive: Drive) -> None:
    driven = drive([request_body(fault="hang")], offsets_s=[0.0, 0.05, 0.1], duration_s=0.2, drain_s=0.1, max_in_flight=1)
    assert [record.sent_ns is not None for record in driven.records] == [True, False, False]
    assert [record.error for record in driven.records] == ["cancelled"] * 3
    assert driven.records[2].error_message == "held back until no more was sent"
    assert len(driven.answers) == 1


def test_closed_loop_keeps_n_in_flight(drive: Drive) -> None:
    streams = 8
    driven = drive([request_body(ttft_ms=5, gap_ms=5, tokens=4 + number) for number in range(3)], concurrency=streams, duration_s=1.0)
    edges = sorted([(record.sent_ns, 1) for record in driven.records] + [(record.end_ns, -1) for record in driven.records])
    inside = [(at, change) for at, change in edges if at < driven.outcome.measure_until_ns]
    level, busy_ns = 0, 0
    for (at, change), (following, _) in itertools.pairwise(inside):
        level += change
        assert level <= streams
        busy_ns += level * (following - at)
    span_ns = inside[-1][0] - inside[0][0]
    assert busy_ns / span_ns > streams * 0.95
    assert all(record.status == "ok" for record in driven.records)


def test_closed_loop_request_is_due_when_its_stream_became_free(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=5, gap_ms=1, tokens=3)], concurrency=1, duration_s=0.3)
    assert driven.records[0].scheduled_ns == driven.outcome.started_ns
    assert [later.scheduled_ns for later in driven.records[1:]] == [earlier.end_ns for earlier in driven.records[:-1]]


def test_nothing_is_sent_after_the_window(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=2, gap_ms=1, tokens=2)], concurrency=4, warmup_s=0.1, duration_s=0.2)
    assert max(record.sent_ns for record in driven.records) < driven.outcome.measure_until_ns + 20_000_000
    assert all(record.status == "ok" for record in driven.records)


def test_a_stream_thinks_before_its_next_request(drive: Drive) -> None:
    think_s = 0.05
    driven = drive([request_body(ttft_ms=10, gap_ms=5, tokens=3)], concurrency=1, duration_s=0.8, think_time_s=think_s)
    pairs = list(itertools.pairwise(driven.records))
    assert len(pairs) > 6
    assert [later.scheduled_ns - earlier.end_ns for earlier, later in pairs] == [50_000_000] * len(pairs)
    assert min(later.sent_ns - later.scheduled_ns for _, later in pairs) >= 0
    assert statistics.median(later.sent_ns - later.scheduled_ns for _, later in pairs) < 5_000_000
    seen = sorted(driven.answers.values(), key=lambda answer: answer.received_ns)
    assert min(later.received_ns - earlier.end_ns for earlier, later in itertools.pairwise(seen)) >= think_s * 1e9


def test_streams_that_think_are_fewer_in_flight(drive: Drive) -> None:
    """Little's law: 20 streams that are served 20 ms and think 80 ms have 4 in flight and send 200 a second."""
    driven = drive([request_body(ttft_ms=10, gap_ms=10, tokens=2)], concurrency=20, duration_s=1.5, think_time_s=0.08)
    answered_s = sum(record.end_ns - record.sent_ns for record in driven.records) / 1e9
    assert answered_s / 1.5 == pytest.approx(4, rel=0.25)
    assert len(driven.records) / 1.5 == pytest.approx(200, rel=0.2)


def test_a_connection_that_idles_while_its_stream_thinks_is_replaced_before_it_is_needed(drive: Drive) -> None:
    """Servers close idle connections (uvicorn after 5 s); a request must not be sent into one that is closing."""
    driven = drive([request_body(ttft_ms=1, gap_ms=1, tokens=1)], concurrency=2, duration_s=4.0, think_time_s=3.5)
    assert driven.outcome.requests_failed == 0
    first, second = (
        {driven.answers[record.request_id].connection for record in driven.records if chosen(record.sent_ns - driven.outcome.started_ns)}
        for chosen in (lambda ns: ns < 1e9, lambda ns: ns >= 1e9)
    )
    assert len(second) == 2
    assert not first & second


@pytest.mark.parametrize(
    "shape",
    [
        {"arrival": "ramp", "rate_per_s": 20.0, "to_rate_per_s": 120.0},
        {"arrival": "spike", "rate_per_s": 15.0, "to_rate_per_s": 200.0, "spike_at_s": 0.5, "spike_s": 0.4},
        {"arrival": "gamma", "rate_per_s": 60.0, "burstiness": 0.2},
    ],
    ids=lambda shape: shape["arrival"],
)
def test_arrivals_with_a_changing_rate_reach_the_server_at_their_times(drive: Drive, shape: dict[str, Any]) -> None:
    stage = Stage.model_validate({"name": "s", "warmup_s": 0.2, "duration_s": 1.5, "output": Output(fixed=1), **shape})
    offsets_ns = schedule(stage, 8)
    driven = drive([request_body(ttft_ms=300, gap_ms=1, tokens=2)], offsets_s=list(offsets_ns / 1e9), warmup_s=0.2, duration_s=1.5)
    assert [record.scheduled_ns - driven.outcome.started_ns for record in driven.records] == offsets_ns.tolist()
    lag_ns = [record.sent_ns - record.scheduled_ns for record in driven.records]
    assert min(lag_ns) >= 0
    assert statistics.median(lag_ns) < 2_000_000
    arrived_ns = np.sort([answer.received_ns for answer in driven.answers.values()]) - driven.outcome.started_ns
    assert np.median(np.abs(arrived_ns - offsets_ns)) < 3_000_000


@pytest.mark.parametrize(("least", "stretch_to_s", "due"), [(4, 10.0, 4), (40, 1.0, 2), (0, 0.0, 0)])
def test_a_closed_window_that_answers_outlast_goes_on_for_its_requests(drive: Drive, least: int, stretch_to_s: float, due: int) -> None:
    """Answers take 0.6 s, the window 0.2 s after a warm-up of 0.2 s: two streams have four due at 1.2 s, two within 1 s, and none in the window itself."""
    body = request_body(ttft_ms=600, gap_ms=1, tokens=2)
    driven = drive([body], concurrency=2, warmup_s=0.2, duration_s=0.2, drain_s=2.0, least_requests=least, stretch_to_s=stretch_to_s)
    outcome = driven.outcome
    inside = [record for record in driven.records if outcome.measure_from_ns <= record.scheduled_ns < outcome.measure_until_ns]
    assert len(inside) == due
    assert all(record.status == "ok" for record in driven.records)
