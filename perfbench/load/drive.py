"""One trial inside the load process, from the order to its outcome.

Before the window: bodies, schedule and connections are made ready, Locust's users are spawned and wait, garbage is collected and the
collector switched off. In the window: users send, the wire stamps, ended exchanges go to the spool one by one. After it: a drain. The parent
makes records of the spool (`parquet`); of a killed process it holds all but what was in flight.
"""

from __future__ import annotations

import gc
import secrets
import time
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.hub
import gevent.pool
import locust.runners

from perfbench.errors import LoadError
from perfbench.load.address import resolve
from perfbench.load.decode import decode
from perfbench.load.exchange import Exchange, RawExchange
from perfbench.load.live import LiveCounts
from perfbench.load.messages import Progress
from perfbench.load.open_files import check_open_files
from perfbench.load.pauses import Pauses
from perfbench.load.pool import Pool, spare_for
from perfbench.load.request_book import RequestBook, read_bodies, read_key
from perfbench.load.trial import TrialSpec
from perfbench.load.users import ScheduleUser, StreamUser
from perfbench.load.wire import Reader
from perfbench.records import TrialOutcome
from perfbench.spool import Spool

_NS_PER_S = 1_000_000_000
_LEAD_S = 0.05
"""From "all ready" to the start: the helpers run, and a first arrival at 0 is not late."""
_LATE_NS = 50_000_000
"""An arrival due at the very end of the window may be sent this much after it; later than that it counts as not sent."""
_CANCEL_DRAIN_S = 2.0
_TIMEOUT_CHECK_S = 0.02
_NEVER_NS = 1 << 62


def _start_soon() -> int:
    """The start of a trial that waits for nobody else."""
    return time.monotonic_ns() + round(_LEAD_S * _NS_PER_S)


class Trial:
    """One trial, or one worker's part of it. `run` drives it to its end; `cancel` may be called at any time from another greenlet.

    `agree_on_start` is called when nothing is left to do before it, and returns when to start; workers of one trial wait in it for the common time.
    """

    def __init__(self, spec: TrialSpec, environment: Any, report: Callable[[Progress], None], agree_on_start: Callable[[], int] = _start_soon) -> None:
        self.spec = spec
        self.started_ns = 0
        """Start of the warm-up; the schedule's offsets count from here."""
        self.held_back = 0
        self.offsets_ns = array("q")
        self._environment = environment
        self._report = report
        self._agree_on_start = agree_on_start
        self._measure_from_ns = 0
        self._until_ns = 0
        self._due = 0
        self._full_ns = _NEVER_NS
        """When the window has lasted `duration_s`; it may go on for `least_requests`."""
        self._cancelled_ns: int | None = None
        self._drain_s = spec.drain_s
        self._sent = 0
        """Prompts and conversations; `_later_turns` counts the requests that follow in one."""
        self._later_turns = 0
        self._conversations = gevent.pool.Group()
        """Open loop: one greenlet a conversation that thinks, or waits for room."""
        self._in_flight: dict[Exchange, None] = {}
        self._ended: deque[Exchange] = deque()
        self._wake_finisher = gevent.event.Event()
        self._ready = gevent.event.Event()
        self._room = gevent.event.Event()
        self._closing = gevent.event.Event()
        self._live = LiveCounts(spec.limits_s)

    # -- for the users

    @property
    def open(self) -> bool:
        """Whether a new request may be sent."""
        return self._cancelled_ns is None and time.monotonic_ns() < self._until_ns

    def may_send_late(self) -> bool:
        """Whether an arrival that was due inside the window may still be sent."""
        return self._cancelled_ns is None and time.monotonic_ns() < self._until_ns + _LATE_NS

    def wait_until_ready(self) -> None:
        """Return when `started_ns` is known: a little before it."""
        self._ready.wait()

    def prepare(self, scheduled_ns: int) -> Exchange:
        """The next request, complete, so that nothing but the sending is left for its time."""
        return Exchange(self._book.request(self.spec.worker + self._sent * self.spec.workers), scheduled_ns)

    def next_turn(self, ended: Exchange) -> Exchange | None:
        """What follows in the conversation of `ended`, due its think time later; None where it is over: all is said, or the turn has failed.

        Here an answer is decoded while load is driven, because the next turn carries it. That runs in the conversation's own greenlet, never where
        bytes are stamped; it costs about 3 us a token (measured in benchmarks), which others may be sent later by.
        """
        conversation, spec = ended.conversation, self.spec
        if conversation is None or not conversation.left or not ended.ok:
            return None
        answer = decode(ended.to_raw(spec.trial, spec.variant, spec.worker, keep_text=True, secret=None))
        if answer.status != "ok":
            return None
        return Exchange(self._book.next_turn(conversation, answer.output_text or ""), ended.end_ns + conversation.think_time_ns)

    def send(self, exchange: Exchange) -> None:
        """Send it and return at once."""
        if exchange.conversation is None or exchange.conversation.turn == 1:
            self._sent += 1
        else:
            self._later_turns += 1
        exchange.started_ns = time.monotonic_ns()
        self._in_flight[exchange] = None
        self._pool.send(exchange)
        if (self.spec.requests is not None or self.spec.least_requests) and exchange.scheduled_ns >= self._measure_from_ns:
            self._count_down()

    def _count_down(self) -> None:
        """The last request that the window asks for ends it, at once and for all streams."""
        self._due += 1
        if self.spec.requests is not None:
            enough = self._due == self.spec.requests
        else:
            enough = self._due >= self.spec.least_requests and time.monotonic_ns() >= self._full_ns
        if enough:
            self._until_ns = time.monotonic_ns()
            self._closing.set()

    def send_and_wait(self, exchange: Exchange) -> Exchange:
        """Send it and return it when it has ended."""
        exchange.waiter = gevent.getcurrent()
        self.send(exchange)
        gevent.hub.get_hub().switch()
        return exchange

    def has_room(self) -> bool:
        return len(self._in_flight) < self.spec.max_in_flight

    def wait_for_room(self) -> None:
        """Return when a request may be sent, or when no more will be."""
        while not self.has_room() and self.may_send_late():
            self._room.clear()
            self._room.wait(max(0.0, (self._until_ns + _LATE_NS - time.monotonic_ns()) / _NS_PER_S))

    # -- for the process

    def cancel(self, *, drain: bool = False) -> None:
        """Send nothing more, drain (shortly, unless `drain`), save."""
        if self._cancelled_ns is None or not drain:
            self._drain_s = self.spec.drain_s if drain else min(self.spec.drain_s, _CANCEL_DRAIN_S)
        if self._cancelled_ns is None:
            self._cancelled_ns = time.monotonic_ns()
            self._closing.set()
            self._room.set()

    def run(self) -> TrialOutcome:
        """Drive the trial into its spool; raises LoadError when it cannot be started. Requests are counted by the parent, which decodes them."""
        spec = self.spec
        address = resolve(spec.url)
        key = read_key(spec.api_key_env)
        self._secret = key.encode() if key else None
        self._book = RequestBook(address, spec.path, read_bodies(spec.bodies_path), f"{spec.trial}-{secrets.token_hex(3)}-", key)
        if spec.schedule_path is not None:
            whole = array("q")
            whole.frombytes(Path(spec.schedule_path).read_bytes())
            self.offsets_ns = whole[spec.worker :: spec.workers]
        self._reader = Reader(self._on_end, self._on_idle, self._on_lost)
        self._pool = Pool(self._reader, address, spec.url)
        pauses = None if spec.concurrency is None else Pauses(self._reader)
        helpers = [gevent.spawn(self._finish_ended), gevent.spawn(self._watch_timeouts), gevent.spawn(self._watch_clock)]
        try:
            self._open_connections(helpers)
            self._open_spool()
            self._spawn_users()
            outcome = self._drive(helpers)
        finally:
            self._environment.runner.stop()
            gevent.killall(helpers)
            self._conversations.kill()
            if pauses is not None:
                pauses.close()
            self._reader.close()
        self._spool.close()
        return outcome

    # -- before the window

    def _open_connections(self, helpers: list[Any]) -> None:
        if self.spec.concurrency is not None:
            check_open_files(self.spec.concurrency)
            self._pool.open(self.spec.concurrency)
            if self.spec.think_time_s:  # long enough to be idle until the server closes the connection
                helpers.append(gevent.spawn(self._pool.keep_ready, self.spec.concurrency))
            return
        spare = min(self.spec.max_in_flight, spare_for(self.offsets_ns))
        check_open_files(spare)
        self._pool.open(spare)
        helpers.append(gevent.spawn(self._pool.keep_ready, spare))

    def _open_spool(self) -> None:
        path = Path(self.spec.spool_path)
        if path.exists():
            raise LoadError(f"{path} holds requests of a trial that was cut off; recover it before the trial runs again (`perfbench run --resume` does)")
        self._spool: Spool[RawExchange] = Spool(path)

    def _spawn_users(self) -> None:
        self._environment.trial = self
        count, user = (1, ScheduleUser) if self.spec.concurrency is None else (self.spec.concurrency, StreamUser)
        runner = self._environment.runner
        if isinstance(runner, locust.runners.WorkerRunner):  # the master has said how many; Locust's own dispatch knows nothing of shares
            runner.start_worker({user.__name__: count})
        else:
            runner.start(count, spawn_rate=count, user_classes=[user])
        while runner.user_count < count:
            gevent.sleep(0.005)

    # -- the window

    def _drive(self, helpers: list[Any]) -> TrialOutcome:
        spec = self.spec
        gc.collect()
        gc.freeze()
        gc.disable()
        collections = _collections()
        try:
            self.started_ns = self._agree_on_start()
            self._measure_from_ns = self.started_ns + round(spec.warmup_s * _NS_PER_S)
            self._full_ns = _NEVER_NS if spec.duration_s is None else self._measure_from_ns + round(spec.duration_s * _NS_PER_S)
            self._until_ns = max(self._full_ns, self._measure_from_ns + round(spec.stretch_to_s * _NS_PER_S)) if spec.least_requests else self._full_ns
            helpers.append(gevent.spawn(self._report_progress))
            self._ready.set()
            in_window = self._sleep_until(self._measure_from_ns)
            self._reader.lag_max_ns = 0
            cpu_s = time.process_time()
            self._sleep_until(self._full_ns)
            if self._due >= spec.least_requests:
                self._until_ns = min(self._until_ns, self._full_ns)
            self._sleep_until(self._until_ns)
            client_cpu_s = time.process_time() - cpu_s if in_window else None
            lag_max_ns = self._reader.lag_max_ns
            self._drain()
        finally:
            gc_collections = _collections() - collections
            gc.enable()
            gc.unfreeze()
        return TrialOutcome(
            trial=spec.trial, started_ns=self.started_ns, measure_from_ns=self._measure_from_ns, measure_until_ns=self._closed_ns,
            ended_ns=time.monotonic_ns(), requests_ok=0, requests_failed=0, held_back=self.held_back,
            client_cpu_s=client_cpu_s, gc_collections=gc_collections,
            loop_lag_max_s=lag_max_ns / _NS_PER_S if self._reader.kernel_stamps else None,
            clock_step_max_s=self._reader.clock.step_max_ns / _NS_PER_S,
            stamp="kernel" if self._reader.kernel_stamps else "user",
        )

    @property
    def _closed_ns(self) -> int:
        """When the window ended, by time, by count or because the trial was cancelled."""
        return self._until_ns if self._cancelled_ns is None else min(self._until_ns, self._cancelled_ns)

    def _sleep_until(self, when_ns: int) -> bool:
        """Or until enough was sent. False as soon as the trial is cancelled."""
        self._closing.wait(max(0.0, (when_ns - time.monotonic_ns()) / _NS_PER_S))
        return self._cancelled_ns is None

    def _drain(self) -> None:
        """Wait for requests in flight, end those that remain, and hand everything to the spool."""
        cancelled = self._cancelled_ns is not None
        gevent.sleep(_LATE_NS / _NS_PER_S)
        self._conversations.join(timeout=_LATE_NS / _NS_PER_S)  # those that waited for room in vain leave their records
        drain_s = self._drain_s
        deadline_ns = time.monotonic_ns() + round(drain_s * _NS_PER_S)
        while self._in_flight and time.monotonic_ns() < deadline_ns:
            gevent.sleep(0.005)
            if self._drain_s < drain_s:  # cancelled while it drained
                cancelled, drain_s = True, self._drain_s
                deadline_ns = min(deadline_ns, time.monotonic_ns() + round(drain_s * _NS_PER_S))
        reason = "still in flight when the trial was stopped" if cancelled else "still in flight at the end of the drain"
        for exchange in list(self._in_flight):
            exchange.connection.fail("cancelled", reason)
        self._leave_unsent()
        while self._ended:
            self._finish(self._ended.popleft())

    def _leave_unsent(self) -> None:
        """Arrivals that were due and were never sent leave records too: a limit must not hide what it held back."""
        for offset_ns in self.offsets_ns[self._sent :]:
            if self.started_ns + offset_ns >= self._closed_ns:
                break
            self._leave(self.prepare(self.started_ns + offset_ns))
            self._sent += 1

    def _leave(self, exchange: Exchange) -> None:
        exchange.error, exchange.error_message = "cancelled", "held back until no more was sent"
        exchange.end_ns = time.monotonic_ns()
        self._ended.append(exchange)

    # -- open loop: the later turns of a conversation

    def _go_on(self, ended: Exchange) -> None:
        """Think, and send the next turn, which is held back like an arrival. A turn that is due after the window is not sent."""
        following = self.next_turn(ended)
        if following is None or following.scheduled_ns >= self._until_ns:
            return
        while (left_ns := following.scheduled_ns - time.monotonic_ns()) > 0:
            gevent.sleep(left_ns / _NS_PER_S)
        if self._cancelled_ns is not None:
            return
        if not self.has_room():
            self.held_back += 1
            self.wait_for_room()
        if self.may_send_late():
            self.send(following)
        else:
            self._leave(following)

    # -- called by the wire: in the hub or in any greenlet, never waiting

    def _on_end(self, exchange: Exchange) -> None:
        self._in_flight.pop(exchange, None)
        if exchange.waiter is not None:
            gevent.hub.get_hub().loop.run_callback(exchange.waiter.switch)
            exchange.waiter = None
        elif exchange.conversation is not None and exchange.conversation.left and exchange.ok:
            self._conversations.spawn(self._go_on, exchange)
        self._room.set()
        self._ended.append(exchange)
        self._wake_finisher.set()

    def _on_idle(self, connection: Any) -> None:
        self._pool.on_idle(connection)

    def _on_lost(self, connection: Any, reason: str) -> None:
        self._pool.on_lost(connection, reason)

    # -- beside the window

    def _finish_ended(self) -> None:
        """Forever: put ended exchanges into the spool, after whoever waited for them has sent the next request."""
        while True:
            self._wake_finisher.wait()
            self._wake_finisher.clear()
            while self._ended:
                self._finish(self._ended.popleft())
                gevent.sleep(0)

    def _finish(self, exchange: Exchange) -> None:
        spec = self.spec
        self._spool.append(exchange.to_raw(spec.trial, spec.variant, spec.worker, keep_text=spec.keep_text, secret=self._secret))
        self._live.take(exchange, self._measure_from_ns)
        self._environment.events.request.fire(
            request_type="POST", name=spec.trial, response_time=(exchange.end_ns - (exchange.sent_ns or exchange.end_ns)) / 1e6,
            response_length=len(exchange.raw), exception=None if exchange.ok else LoadError(exchange.error_message or f"HTTP {exchange.end.status}"),
            context={},
        )

    def _watch_timeouts(self) -> None:
        """Forever: end requests that have taken too long. They are in the order in which they were started."""
        limit_ns = round(self.spec.request_timeout_s * _NS_PER_S)
        while True:
            gevent.sleep(_TIMEOUT_CHECK_S)
            oldest_ns = time.monotonic_ns() - limit_ns
            for exchange in list(self._in_flight):
                if exchange.started_ns > oldest_ns:
                    break
                exchange.connection.fail("timeout", f"no end after {self.spec.request_timeout_s:g} s")

    def _watch_clock(self) -> None:
        while True:
            gevent.sleep(1)
            self._reader.clock.measure()

    def _report_progress(self) -> None:
        while True:
            gevent.sleep(self.spec.report_every_s)
            elapsed_s = (time.monotonic_ns() - self.started_ns) / _NS_PER_S
            self._report(
                self._live.progress(
                    trial=self.spec.trial, elapsed_s=elapsed_s, length_s=self._length_s(elapsed_s), sent=self._sent + self._later_turns,
                    in_flight=self._in_flight, measure_from_ns=self._measure_from_ns, held_back=self.held_back, reads=self._reader.reads,
                )
            )

    def _length_s(self, elapsed_s: float) -> float | None:
        """Of warm-up and window; where requests are counted, at the pace so far."""
        spec = self.spec
        if spec.duration_s is not None:
            return spec.warmup_s + spec.duration_s
        assert spec.requests is not None
        return spec.warmup_s + (elapsed_s - spec.warmup_s) * spec.requests / self._due if self._due > 0 else None


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())
