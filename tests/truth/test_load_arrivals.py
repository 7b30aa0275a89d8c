"""Who sends when: open loop keeps its schedule whatever the server does, closed loop keeps N in flight."""

from __future__ import annotations

import itertools
import statistics

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
