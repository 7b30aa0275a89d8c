"""The parent's side of the load process: start it once a run, give it one trial after another, never leave it behind.

No gevent here: the main path stays an ordinary program, and the load has a process, an event loop and a garbage collector to itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from perfbench.errors import LoadError
from perfbench.load.messages import Cancel, Done, Order, Progress, Ready, Refused, Report, RunTrial, Waiting
from perfbench.load.parquet import plain_schedule, save_records
from perfbench.load.scale import ONE_PROCESS, Scale
from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome

_READ_BYTES = 1 << 16
_STOP_TIMEOUT_S = 5.0
_LOG_LINES = 5
_COMMAND = (sys.executable, "-m", "perfbench.load.process")


class LoadProcess:
    """Context manager around the load process, or the master of several; everything that they print goes to `log_path`.

    Entering it waits for all workers of `scale`; `on_wait` is told how many have come, and where the others are expected. `page` is then the address of
    Locust's page, None without one.
    """

    def __init__(self, log_path: Path, scale: Scale = ONE_PROCESS, on_wait: Callable[[Waiting], None] | None = None) -> None:
        self._log_path = log_path
        self._scale = scale
        self._on_wait = on_wait
        self.page: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._decoder = msgspec.json.Decoder(Report)

    @property
    def pid(self) -> int:
        """For whoever samples the client's own CPU and memory."""
        return self._running().pid

    def __enter__(self) -> Self:
        with self._log_path.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we say `cancel`.
            command = (*_COMMAND, msgspec.json.encode(self._scale).decode())
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        try:
            self.page = self._wait_until_ready().page
        except BaseException:
            self._stop()
            raise
        return self

    def _wait_until_ready(self) -> Ready:
        while True:
            report = self._next_report("while it started")
            if isinstance(report, Refused):
                raise LoadError(report.message, hint=report.hint)
            if isinstance(report, Waiting) and self._on_wait is not None:
                self._on_wait(report)
            if isinstance(report, Ready):
                return report

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop()

    def run(self, spec: TrialSpec, on_progress: Callable[[Progress], None] | None = None) -> TrialOutcome:
        """Drive one trial; returns when its records are on disk. `on_progress` is called about once a second.

        After `cancel()` the outcome is that of the part that was driven. A KeyboardInterrupt that arrives here cancels the trial, waits until it
        is saved, and goes on. Raises LoadError when the trial cannot be driven, the process has died, or the records cannot
        be written.
        """
        with plain_schedule(spec) as order:
            self._order(RunTrial(order))
            try:
                outcome = self._outcome(spec, on_progress)
            except KeyboardInterrupt:
                self.cancel()
                save_records(spec, self._outcome(spec, None))
                raise
        return save_records(spec, outcome)

    def cancel(self, *, drain: bool = False) -> None:
        """Stop sending, drain (shortly, unless `drain`), save; `run` then returns. May be called from a signal handler, another thread or `on_progress`;
        without a trial it does nothing."""
        self._order(Cancel(drain=drain))

    def _outcome(self, spec: TrialSpec, on_progress: Callable[[Progress], None] | None) -> TrialOutcome:
        while True:
            report = self._next_report(f"during trial {spec.trial}")
            if isinstance(report, Done):
                return report.outcome
            if isinstance(report, Refused):
                raise LoadError(report.message, hint=report.hint)
            if isinstance(report, Progress) and on_progress is not None:
                on_progress(report)

    def _order(self, order: Order) -> None:
        process = self._running()
        assert process.stdin is not None
        try:
            os.write(process.stdin.fileno(), msgspec.json.encode(order) + b"\n")
        except BrokenPipeError:
            raise self._death("before it could take an order") from None

    def _next_report(self, when: str) -> Report:
        process = self._running()
        assert process.stdout is not None
        while b"\n" not in self._buffer:
            piece = os.read(process.stdout.fileno(), _READ_BYTES)
            if not piece:
                raise self._death(when)
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        report: Report = self._decoder.decode(line)
        return report

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LoadError("the load process is not running; use LoadProcess in a `with` statement")
        return self._process

    def _death(self, when: str) -> LoadError:
        code = self._running().wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        lines = self._log_path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        last = f"; its last lines: {' | '.join(lines)}" if lines else ""
        return LoadError(f"the load process {how} {when}{last}", hint=f"its log is {self._log_path}; `perfbench run --resume` keeps what had finished")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
