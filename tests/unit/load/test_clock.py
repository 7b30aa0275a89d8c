"""Kernel stamps are wall-clock times: steps of that clock must neither move a stamp nor go unseen."""

from __future__ import annotations

import time

import pytest

from perfbench.load.clock import RealtimeOffset


def test_a_stamp_of_now_is_now() -> None:
    clock = RealtimeOffset()
    before = time.monotonic_ns()
    stamp = clock.monotonic_ns(time.time_ns(), before + 10**12)
    assert before - 100_000 < stamp < time.monotonic_ns() + 100_000


def test_no_stamp_lies_after_the_read() -> None:
    clock = RealtimeOffset()
    now = time.monotonic_ns()
    assert clock.monotonic_ns(now - clock.offset_ns + 20_000, now) == now


def test_a_step_forward_is_noticed_by_the_first_stamp_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RealtimeOffset()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 2_000_000_000)
    sent = time.monotonic_ns()
    stamp = clock.monotonic_ns(time.time_ns(), time.monotonic_ns() + 1_000)
    assert sent - 100_000 < stamp <= time.monotonic_ns() + 1_000
    assert abs(clock.step_max_ns - 2_000_000_000) < 1_000_000


def test_a_step_back_is_noticed_by_the_next_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RealtimeOffset()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 500_000_000)
    clock.measure()
    assert abs(clock.step_max_ns - 500_000_000) < 1_000_000
    before = time.monotonic_ns()
    assert abs(clock.monotonic_ns(time.time_ns(), before + 10**9) - before) < 1_000_000
