"""The master: Locust's master runner, which drives nothing itself and leads workers through one trial after another.

Workers on this machine are new Python processes, started here; Locust's `--processes` forks instead, which would copy an event loop, sockets and threads
that stand already. Workers elsewhere (`perfbench worker`) connect by themselves. A trial: clocks are compared, every worker makes its part ready, the master
says the common start time, and when all have ended it collects what they wrote, by the folder that both see or by message. If one is lost, the others
are cancelled and saved, and one sentence says which.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import gevent
import gevent.queue
import locust.runners
import msgspec
from locust.exception import RPCError

import perfbench
from perfbench.errors import LoadError
from perfbench.load import cluster
from perfbench.load.cluster import Begin, Ended, Fetch, Go, Hello, Message, Piece, Ping, Pong, Prepared, Release
from perfbench.load.messages import Cancel, Progress, Refused, Waiting
from perfbench.load.page import serve_page
from perfbench.load.scale import Scale, merged, worker_spec, workers_of
from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome, WorkerOutcome

_NS_PER_S = 1_000_000_000
_PINGS = 21
_LEAD_S = 0.25
"""From "go" to the start: far more than a message takes; a worker that hears it late sends late, and its send lag says so."""
_LOST_AFTER_S = 10
"""Without a heartbeat. Locust gives up after 3 s, which a busy worker may well need (locust#1707)."""
_LOOK_EVERY_S = 0.5
_WAIT_MAX_S = 600.0
_SAVE_TIMEOUT_S = 60.0
_PROGRESS_SHARE = 0.9
"""Of the workers' own interval: their reports do not come at the same moment."""

Answer = TypeVar("Answer", bound=msgspec.Struct)


class _Worker:
    """A worker as the master sees it."""

    def __init__(self, client_id: str, hello: Hello) -> None:
        self.client_id = client_id
        self.hello = hello
        self.number = 0
        self.shared = True
        self.progress: Progress | None = None
        self.fault = ""

    @property
    def name(self) -> str:
        return f"load worker {self.number} (process {self.hello.pid} on {self.hello.host})"


class _Clock(msgspec.Struct, frozen=True):
    """A worker's CLOCK_MONOTONIC against ours."""

    offset_ns: int
    rtt_ns: int | None


class Master:
    """Start it, then `run` trials; `cancel` may be called at any time from another greenlet. `report` is told of progress and of waiting."""

    def __init__(self, scale: Scale, report: Callable[[Progress | Waiting], None]) -> None:
        self._scale = scale
        self._report = report
        self._environment = cluster.environment()
        self._inbox: gevent.queue.Queue[tuple[str, Message, int]] = gevent.queue.Queue()
        self._here: list[subprocess.Popen[bytes]] = []
        self._workers: list[_Worker] = []
        self._driving: list[_Worker] = []
        self._files: dict[str, str | None] = {}
        self._cancelled = False
        self._reported_s, self._report_every_s = 0.0, 1.0
        self.page: str | None = None

    def start(self) -> None:
        """Listen, start the workers of this machine, wait for all; raises LoadError."""
        self._runner = self._listen()
        self._runner.register_message(cluster.TYPE, self._on_message)
        if self._scale.page:
            self.page = serve_page(self._environment)
        port = self._runner.server.port
        for _ in range(self._scale.processes):
            command = [sys.executable, "-m", "perfbench.load.worker", "127.0.0.1", str(port), "--here"]
            self._here.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), stderr=sys.stderr.fileno()))
        self._wait_for_workers(port)

    def _listen(self) -> Any:
        host, port = self._scale.listen_host, self._scale.listen_port
        try:
            return self._environment.create_master_runner(host, port)
        except (RPCError, SystemExit, OSError):  # Locust exits where the port is taken
            raise LoadError(f"nobody can listen on {host}:{port}; it is taken, or no address of this machine: give another with --listen") from None

    def _wait_for_workers(self, port: int) -> None:
        deadline = time.monotonic() + _WAIT_MAX_S
        told = -1
        while len(self._workers) < self._scale.total:
            if len(self._workers) > told:
                told = len(self._workers)
                self._report(Waiting(told, self._scale.total, f"{self._scale.listen_host}:{port}"))
            found = self._next(_LOOK_EVERY_S)
            if found is not None and isinstance(found[1], Hello):
                self._welcome(found[0], found[1])
            if any(process.poll() is not None for process in self._here):
                raise LoadError("a load worker of this machine ended while it started", hint="its last words are in load.log")
            if time.monotonic() > deadline:
                raise LoadError(f"only {told} of {self._scale.total} load workers have connected to port {port} within {_WAIT_MAX_S / 60:.0f} minutes")
        self._workers.sort(key=lambda worker: (worker.hello.host, worker.hello.pid))
        for number, worker in enumerate(self._workers):
            worker.number = number

    def _welcome(self, client_id: str, hello: Hello) -> None:
        if hello.version != perfbench.__version__:
            self._send(client_id, Refused(f"the master runs perfbench {perfbench.__version__}, this worker {hello.version}; install the same"))
        elif len(self._workers) < self._scale.total:
            self._workers.append(_Worker(client_id, hello))

    # -- one trial

    def run(self, spec: TrialSpec, *, cancelled: bool) -> TrialOutcome:
        """Drive a trial with all workers; raises LoadError when one refuses or is lost, after the others have saved what they have."""
        self._cancelled, self._report_every_s = cancelled, spec.report_every_s
        active = self._driving = self._workers[: workers_of(spec, len(self._workers))]
        for worker in active:
            worker.progress, worker.fault = None, ""
        self._files = {"bodies": spec.bodies_path, "schedule": spec.schedule_path}
        self._show_running(running=True)
        clocks = [self._compare_clocks(worker) for worker in active]
        try:
            with _probe(spec) as (probe_path, probe_text):
                for worker in active:
                    part = worker_spec(spec, worker.number, len(active))
                    self._send(worker.client_id, Begin(spec=part, probe_path=probe_path, probe_text=probe_text))
                self._collect(Prepared)
            started_ns = time.monotonic_ns() + round(_LEAD_S * _NS_PER_S)
            for worker, clock in zip(active, clocks, strict=True):
                self._send(worker.client_id, Go(started_ns + clock.offset_ns))
            if self._cancelled:
                self._send_all(Cancel())
            outcomes = self._collect(Ended)
        except LoadError:
            self._save_others(spec)
            raise
        finally:
            self._show_running(running=False)
        self._collect_spools(spec, outcomes)
        drifts = [self._compare_clocks(worker).offset_ns - clock.offset_ns for worker, clock in zip(active, clocks, strict=True)]
        return merged(
            [ended.outcome for ended in outcomes],
            [_worker_outcome(*each) for each in zip(active, outcomes, clocks, drifts, strict=True)],
        )

    def cancel(self, *, drain: bool) -> None:
        """Send nothing more, drain (shortly, unless `drain`), save."""
        self._cancelled = True
        self._send_all(Cancel(drain=drain))

    def close(self) -> None:
        """Let the workers go, and end those of this machine."""
        self._runner.quit()
        for process in self._here:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.0)
            if process.poll() is None:
                process.kill()
                process.wait()

    def _collect(self, kind: type[Answer]) -> list[Answer]:
        """What every driving worker answers with; raises LoadError as soon as one cannot."""
        answers: dict[str, Answer] = {}
        while len(answers) < len(self._driving):
            found = self._next(_LOOK_EVERY_S)
            if found is not None:
                client_id, message, _ = found
                if isinstance(message, kind):
                    answers[client_id] = message
                else:
                    self._attend(client_id, message)
            self._check(done=answers.keys())
        return [answers[worker.client_id] for worker in self._driving]

    def _attend(self, client_id: str, message: Message) -> None:
        worker = next((worker for worker in self._driving if worker.client_id == client_id), None)
        if worker is None:
            return
        if isinstance(message, Progress):
            worker.progress = message
            self._tell_progress()
        elif isinstance(message, Fetch):
            path = self._files.get(message.file)
            self._send(client_id, _piece_or_end(path, message))
        elif isinstance(message, Refused):
            worker.fault = message.message
            raise LoadError(f"{worker.name}: {message.message}", hint=message.hint)

    def _check(self, done: Any = ()) -> None:
        """Raise LoadError for a worker that is gone."""
        for worker in self._driving:
            if worker.client_id in done or worker.fault:
                continue
            node = self._runner.clients.get(worker.client_id)
            process = next((process for process in self._here if process.pid == worker.hello.pid and process.poll() is not None), None)
            if node is None or process is not None or node.heartbeat < locust.runners.HEARTBEAT_LIVENESS - _LOST_AFTER_S:
                worker.fault = "has ended" if process is not None or node is None else f"has sent no sign of life for {_LOST_AFTER_S} s"
                saved = "what the others sent is saved" if len(self._driving) > 1 else "what it had sent is in its spool"
                raise LoadError(f"{worker.name} {worker.fault}; {saved}", hint="its last words are in load.log, or on its machine")

    def _save_others(self, spec: TrialSpec) -> None:
        """Cancel the workers that are left, wait until they have saved, and take what they wrote; spools that nobody brings stay away."""
        self._driving = [worker for worker in self._driving if not worker.fault]
        self._send_all(Cancel())
        deadline = time.monotonic() + _SAVE_TIMEOUT_S
        waiting = {worker.client_id: worker for worker in self._driving}
        while waiting and time.monotonic() < deadline:
            found = self._next(_LOOK_EVERY_S)
            if found is not None and isinstance(found[1], (Ended, Refused)) and (worker := waiting.pop(found[0], None)) is not None:
                worker.shared = not isinstance(found[1], Ended) or found[1].shared
            for worker in list(waiting.values()):
                node = self._runner.clients.get(worker.client_id)
                if node is None or node.heartbeat < locust.runners.HEARTBEAT_LIVENESS - _LOST_AFTER_S:
                    del waiting[worker.client_id]
        with contextlib.suppress(LoadError):
            for worker in self._driving:
                if not worker.shared:
                    self._pull(worker, Path(spec.files_of(worker.number).spool_path))

    # -- files

    def _collect_spools(self, spec: TrialSpec, outcomes: list[Ended]) -> None:
        for worker, ended in zip(self._driving, outcomes, strict=True):
            worker.shared = ended.shared
            if not ended.shared:
                self._pull(worker, Path(spec.files_of(worker.number).spool_path))
            self._send(worker.client_id, Release())

    def _pull(self, worker: _Worker, path: Path) -> None:
        """Fetch a worker's spool, a piece at a time; whole or not at all."""
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            while data := self._piece(worker, file.tell()).data:
                file.write(data)
        part.replace(path)

    def _piece(self, worker: _Worker, offset: int) -> Piece:
        self._send(worker.client_id, Fetch("spool", offset))
        while True:
            found = self._next(_LOOK_EVERY_S)
            if found is not None and found[0] == worker.client_id and isinstance(found[1], Piece) and found[1].offset == offset:
                return found[1]
            self._check()

    # -- clocks

    def _compare_clocks(self, worker: _Worker) -> _Clock:
        """How far the worker's clock is ahead of ours: by the quickest of several exchanges, which is off by at most half of its round trip."""
        if worker.hello.clock_id and worker.hello.clock_id == cluster.clock_id():
            return _Clock(0, None)
        best: tuple[int, int] | None = None
        for number in range(_PINGS):
            sent_ns = time.monotonic_ns()
            self._send(worker.client_id, Ping(number))
            while True:
                found = self._next(_LOOK_EVERY_S)
                if found is not None and found[0] == worker.client_id and isinstance(found[1], Pong) and found[1].number == number:
                    rtt_ns = found[2] - sent_ns
                    offset_ns = found[1].t_ns - (sent_ns + found[2]) // 2
                    best = min(best or (rtt_ns, offset_ns), (rtt_ns, offset_ns))
                    break
                self._check()
        assert best is not None
        return _Clock(best[1], best[0])

    # -- messages

    def _on_message(self, environment: Any, msg: Any, **_: Any) -> None:
        with contextlib.suppress(msgspec.DecodeError, TypeError):  # no message of ours: the port is open to whoever reaches it
            self._inbox.put((msg.node_id, cluster.decode(msg.data), time.monotonic_ns()))

    def _next(self, timeout_s: float) -> tuple[str, Message, int] | None:
        try:
            found: tuple[str, Message, int] = self._inbox.get(timeout=timeout_s)
        except gevent.queue.Empty:
            return None
        return found

    def _send(self, client_id: str, message: Message) -> None:
        self._runner.send_message(cluster.TYPE, cluster.encode(message), client_id=client_id)

    def _send_all(self, message: Message) -> None:
        for worker in self._driving:
            self._send(worker.client_id, message)

    # -- for people

    def _tell_progress(self) -> None:
        """All workers together, when each has said something."""
        known = [worker.progress for worker in self._driving if worker.progress is not None]
        if len(known) < len(self._driving) or time.monotonic() - self._reported_s < self._report_every_s * _PROGRESS_SHARE:
            return
        self._reported_s = time.monotonic()
        lengths = [each.length_s for each in known if each.length_s is not None]
        middles = [each.ttft_p50_s for each in known if each.ttft_p50_s is not None]
        highest = [each.ttft_p95_s for each in known if each.ttft_p95_s is not None]
        self._report(
            Progress(
                trial=known[0].trial, elapsed_s=max(each.elapsed_s for each in known), length_s=min(lengths) if lengths else None,
                sent=sum(each.sent for each in known), in_flight=sum(each.in_flight for each in known), ok=sum(each.ok for each in known),
                failed=sum(each.failed for each in known), held_back=sum(each.held_back for each in known),
                ttft_p50_s=median(middles) if middles else None, ttft_p95_s=max(highest) if highest else None,
                chunks_per_s=sum(each.chunks_per_s for each in known),
                judged=_added([each.judged for each in known]), late=_added([each.late for each in known]),
            )
        )  # fmt: skip

    def _show_running(self, *, running: bool) -> None:
        """What Locust's page says of the run: its figures begin anew with each trial."""
        if self.page is None:
            return
        if running:
            self._runner.stats.clear_all()
        self._runner.update_state(locust.runners.STATE_RUNNING if running else locust.runners.STATE_STOPPED)


def _added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """By key, over all."""
    return {key: sum(count.get(key, 0) for count in counts) for key in {key for count in counts for key in count}}


def _piece_or_end(path: str | None, asked: Fetch) -> Piece:
    """The piece that was asked for; the end at once where there is no such file."""
    return Piece(asked.file, asked.offset, b"") if path is None else cluster.piece_of(path, asked.file, asked.offset)


def _worker_outcome(worker: _Worker, ended: Ended, clock: _Clock, drift_ns: int) -> WorkerOutcome:
    return WorkerOutcome(
        worker=worker.number, host=worker.hello.host, requests=0, client_cpu_s=ended.outcome.client_cpu_s, send_lag_p99_s=None,
        loop_lag_max_s=ended.outcome.loop_lag_max_s, clock_offset_ns=clock.offset_ns, clock_rtt_ns=clock.rtt_ns,
        clock_drift_ns=None if clock.rtt_ns is None else drift_ns, shared_folder=ended.shared,
    )  # fmt: skip


@contextmanager
def _probe(spec: TrialSpec) -> Iterator[tuple[str, str]]:
    """A file beside the spool, and what stands in it: a worker that can read it sees the same folder."""
    path, text = Path(spec.spool_path).with_suffix(".probe"), secrets.token_hex(16)
    path.write_text(text)
    try:
        yield str(path), text
    finally:
        path.unlink(missing_ok=True)
