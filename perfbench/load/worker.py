"""A worker: Locust's worker runner, which drives its part of each trial that a master orders.

    python -m perfbench.load.worker HOST PORT [--here]          (`perfbench worker` on another machine; the master itself, with --here)

It reads the endpoint's key from its own environment. Where it sees the master's run folder it leaves its spool there; otherwise it fetches what it needs and
keeps a folder of its own until the master has taken everything out of it. When the master is lost, or somebody ends the worker, it sends nothing more,
saves, and says where its requests lie. With --here it ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import gevent
import gevent.event
import gevent.hub
import gevent.queue
import msgspec

import perfbench
from perfbench.errors import EXIT_INTERRUPTED, LoadError
from perfbench.load import cluster
from perfbench.load.cluster import Begin, Ended, Fetch, FileName, Go, Hello, Message, Piece, Ping, Pong, Prepared, Release
from perfbench.load.drive import Trial
from perfbench.load.messages import Cancel, Refused
from perfbench.load.process import end_with_parent, prepare_process
from perfbench.load.trial import TrialSpec

_LOST_AFTER_TICKS = 10
"""Seconds without a heartbeat of the master. Counted in ticks of our own loop, so that a loop that was held up does not take it for the master's silence."""
_PIECE_TIMEOUT_S = 30.0
_SAVE_TIMEOUT_S = 10.0
_FAREWELL_S = 0.3


class Worker:
    """One worker, from its connection to its end."""

    def __init__(self, host: str, port: int) -> None:
        self._master = f"{host}:{port}"
        self._begins: gevent.queue.Queue[Begin] = gevent.queue.Queue()
        self._pieces: gevent.queue.Queue[Piece] = gevent.queue.Queue()
        self._go: gevent.event.AsyncResult[int] = gevent.event.AsyncResult()
        self._idle = gevent.event.Event()
        self._idle.set()
        self._trial: Trial | None = None
        self._spool: Path | None = None
        self._folder: Path | None = None
        """Where the master's is not seen."""
        self._leaving = ""
        self._environment = cluster.environment()
        try:
            self._runner: Any = self._environment.create_worker_runner(host, port)
        except (ConnectionError, OSError) as error:
            raise LoadError(f"no master has answered at {self._master}: {error or 'no answer in time'}; start it, or correct --master") from None
        self._runner.register_message(cluster.TYPE, self._on_message)

    def serve(self) -> None:
        """Drive what the master orders until it says that it is done."""
        self._send(Hello(host=socket.gethostname(), pid=os.getpid(), version=perfbench.__version__, clock_id=cluster.clock_id()))
        _say(f"connected to the master at {self._master}")
        gevent.spawn(self._watch_master)
        driving = gevent.spawn(self._drive_all)
        self._runner.greenlet.join()  # ends when the master says quit
        if self._trial is not None:
            self.leave(f"the master at {self._master} has ended in the middle of a trial", LoadError.exit_code)
        driving.kill()
        self._remove_files()
        _say("the master is done")

    def leave(self, reason: str, code: int) -> NoReturn:
        """Send nothing more, save, tell the master and whoever reads, and end."""
        if self._leaving:
            _exit(code)
        self._leaving = reason
        spool, trial = self._spool, self._trial
        if trial is not None:
            self._cancel(drain=False)
            self._idle.wait(_SAVE_TIMEOUT_S)
        with contextlib.suppress(Exception):  # the master may be gone
            self._environment.events.quitting.fire(environment=self._environment)
            gevent.sleep(_FAREWELL_S)
        if trial is None:
            self._remove_files()
        _say(reason + (f"; what trial {trial.spec.trial} had sent is in {spool}" if trial is not None else ""))
        _exit(code)

    # -- trials

    def _drive_all(self) -> None:
        while True:
            begin = self._begins.get()
            self._idle.clear()
            try:
                self._drive(begin)
            except LoadError as error:
                self._send(Refused(error.message, error.hint))
            finally:
                self._trial = None
                self._idle.set()

    def _drive(self, begin: Begin) -> None:
        shared = _sees(begin)
        spec = begin.spec if shared else self._with_own_files(begin.spec)
        self._spool = Path(spec.spool_path)
        self._trial = Trial(spec, self._environment, self._send, self._agree_on_start)
        outcome = self._trial.run()
        self._runner.worker_state = "ready"
        self._send(Refused(self._leaving) if self._leaving else Ended(outcome, shared))

    def _agree_on_start(self) -> int:
        self._go = gevent.event.AsyncResult()
        self._send(Prepared())
        started_ns: int = self._go.get()
        return started_ns

    def _cancel(self, *, drain: bool) -> None:
        if self._trial is not None:
            self._trial.cancel(drain=drain)
            if not self._go.ready():
                self._go.set(time.monotonic_ns())

    # -- files

    def _with_own_files(self, spec: TrialSpec) -> TrialSpec:
        """The trial with its files here, fetched from the master."""
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="perfbench-worker-"))
        bodies, schedule = self._folder / "bodies", self._folder / "schedule"
        self._fetch("bodies", bodies)
        if spec.schedule_path is not None:
            self._fetch("schedule", schedule)
        spool = self._folder / f"{spec.trial}.w{spec.worker}.spool"
        return msgspec.structs.replace(
            spec, bodies_path=str(bodies), schedule_path=None if spec.schedule_path is None else str(schedule), spool_path=str(spool)
        )

    def _fetch(self, file: FileName, path: Path) -> None:
        with path.open("wb") as opened:
            while True:
                self._send(Fetch(file, opened.tell()))
                try:
                    piece = self._pieces.get(timeout=_PIECE_TIMEOUT_S)
                except gevent.queue.Empty:
                    raise LoadError(f"the master did not send the trial's {file} within {_PIECE_TIMEOUT_S:g} s") from None
                if not piece.data:
                    return
                opened.write(piece.data)

    def _remove_files(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- messages

    def _on_message(self, environment: Any, msg: Any, **_: Any) -> None:
        message = cluster.decode(msg.data)
        if isinstance(message, Ping):
            self._send(Pong(message.number, time.monotonic_ns()))
        elif isinstance(message, Begin):
            self._begins.put(message)
        elif isinstance(message, Go):
            self._go.set(message.started_ns)
        elif isinstance(message, Cancel):
            self._cancel(drain=message.drain)
        elif isinstance(message, Piece):
            self._pieces.put(message)
        elif isinstance(message, Fetch) and self._spool is not None:
            self._send(cluster.piece_of(self._spool, "spool", message.offset))
        elif isinstance(message, Release) and self._folder is not None and self._spool is not None:
            self._spool.unlink(missing_ok=True)
        elif isinstance(message, Refused):
            gevent.spawn(self.leave, message.message, LoadError.exit_code)

    def _send(self, message: Message) -> None:
        self._runner.send_message(cluster.TYPE, cluster.encode(message))

    def _watch_master(self) -> None:
        heard, silent = None, 0
        while silent < _LOST_AFTER_TICKS:
            gevent.sleep(1)
            silent = silent + 1 if self._runner.last_heartbeat_timestamp == heard else 0
            heard = self._runner.last_heartbeat_timestamp
        self.leave(f"the master at {self._master} is lost: no sign of life for {_LOST_AFTER_TICKS} s", LoadError.exit_code)


def _sees(begin: Begin) -> bool:
    """Whether this is the master's folder too."""
    try:
        return Path(begin.probe_path).read_text() == begin.probe_text
    except OSError:
        return False


def _say(sentence: str) -> None:
    sys.stderr.write(f"perfbench worker: {sentence}\n")
    sys.stderr.flush()


def _exit(code: int) -> NoReturn:
    os._exit(code)


def main() -> None:
    """Entry point of a worker process."""
    host, port, *flags = sys.argv[1:]
    prepare_process()
    if "--here" in flags:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gevent.spawn(end_with_parent)
    else:
        _say(f"waiting for the master at {host}:{port}; Ctrl-C ends the worker")
    try:
        worker = Worker(host, int(port))
    except LoadError as error:
        _say(str(error))
        _exit(LoadError.exit_code)
    except KeyboardInterrupt:
        _exit(EXIT_INTERRUPTED)
    if "--here" not in flags:
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, worker.leave, "ended by its user", EXIT_INTERRUPTED)
    worker.serve()
    _exit(0)


if __name__ == "__main__":
    main()
