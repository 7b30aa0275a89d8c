"""Locust's users: who sends when. One class a kind of arrival; both drive the trial that stands in their environment.

Closed loop: each user carries one stream and sends its next request when its last response has ended and it has thought; without think time N users
keep N in flight.
Open loop: a single user walks the absolute schedule and never waits for a response. Locust's own wait times and shapes cannot do
that: they follow the responses or the spawner (research/loadgen.md).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gevent
from locust import User, task
from locust.exception import StopUser

from perfbench.load.timer import Timer

if TYPE_CHECKING:
    from perfbench.load.drive import Trial

_CONNECT_PAUSE_S = 0.1
"""After a refused connection: without it a stream would fail thousands of times a second against a server that is down."""
_SENDS_WITHOUT_PAUSE = 16
"""A dispatcher that is behind its schedule lets the reader run after so many sends."""


class StreamUser(User):  # type: ignore[misc]  # Locust has no types
    """Closed loop: one stream."""

    @task  # type: ignore[untyped-decorator]
    def carry_stream(self) -> None:
        """Send, wait for the end, think, send again, until the window is over. A request is due its think time after the response before it has ended."""
        trial: Trial = self.environment.trial
        trial.wait_until_ready()
        due_ns = trial.started_ns
        think_ns = round(trial.spec.think_time_s * 1e9)
        _sleep_until(due_ns)
        while trial.open:
            exchange = trial.send_and_wait(trial.prepare(due_ns))
            while (following := trial.next_turn(exchange)) is not None:
                _sleep_until(following.scheduled_ns)
                if not trial.open:
                    raise StopUser
                exchange = trial.send_and_wait(following)
            due_ns = exchange.end_ns + think_ns
            if exchange.error == "connect":
                gevent.sleep(_CONNECT_PAUSE_S)
                due_ns = time.monotonic_ns() + think_ns
            _sleep_until(due_ns)
        raise StopUser


def _sleep_until(when_ns: int) -> None:
    """Never earlier, and up to a millisecond later: a stream has no timer of its own, there may be thousands."""
    while (left_ns := when_ns - time.monotonic_ns()) > 0:
        gevent.sleep(left_ns / 1e9)


class ScheduleUser(User):  # type: ignore[misc]  # Locust has no types
    """Open loop: the dispatcher."""

    @task  # type: ignore[untyped-decorator]
    def walk_schedule(self) -> None:
        """Send each arrival at its time. At the limit of requests in flight an arrival is held back, counted, and sent late under its own time."""
        trial: Trial = self.environment.trial
        trial.wait_until_ready()
        timer = Timer()
        try:
            self._walk(trial, timer)
        finally:
            timer.close()
        raise StopUser

    @staticmethod
    def _walk(trial: Trial, timer: Timer) -> None:
        sends_without_pause = 0
        for offset_ns in trial.offsets_ns:
            due_ns = trial.started_ns + offset_ns
            exchange = trial.prepare(due_ns)
            if due_ns > time.monotonic_ns():
                sends_without_pause = 0
                timer.sleep_until(due_ns)
            elif sends_without_pause >= _SENDS_WITHOUT_PAUSE:
                sends_without_pause = 0
                gevent.sleep(0)
            if not trial.has_room():
                trial.held_back += 1
                trial.wait_for_room()
            if not trial.may_send_late():
                break
            trial.send(exchange)
            sends_without_pause += 1
