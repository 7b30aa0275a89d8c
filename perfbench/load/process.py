"""The load: Locust in a process of its own, fed with trials over a pipe (`python -m perfbench.load.process SCALE`).

Orders come on standard input, reports go to what was standard output; everything else that is printed or logged goes to standard
error, which is the log. It ends when its input is closed or its parent is gone, so none is ever left behind.

Alone it drives the trials itself; where SCALE (JSON of `scale.Scale`) asks for several processes, for workers elsewhere or for Locust's page, it is their
`master` and drives nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Protocol

import gevent
import gevent.hub
import gevent.os
import gevent.queue
import msgspec

from perfbench.errors import LoadError
from perfbench.load import cluster
from perfbench.load.drive import Trial
from perfbench.load.messages import Cancel, Done, Order, Progress, Ready, Refused, Report, RunTrial
from perfbench.load.open_files import raise_limit
from perfbench.load.scale import Scale
from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome

_READ_BYTES = 1 << 16
_PARENT_CHECK_S = 1.0


class _Driver(Protocol):
    """What carries out a trial: this process alone, or a master with its workers."""

    page: str | None

    def run(self, spec: TrialSpec, *, cancelled: bool) -> TrialOutcome:
        """Raises LoadError. `cancelled`: before it began."""

    def cancel(self, *, drain: bool) -> None: ...

    def close(self) -> None: ...


class Alone:
    """Drives trials in this process."""

    page: str | None = None

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._environment = cluster.environment()
        self._environment.create_local_runner()
        self._trial: Trial | None = None

    def run(self, spec: TrialSpec, *, cancelled: bool) -> TrialOutcome:
        self._trial = Trial(spec, self._environment, self._report)
        if cancelled:
            self._trial.cancel()
        return self._trial.run()

    def cancel(self, *, drain: bool) -> None:
        if self._trial is not None:
            self._trial.cancel(drain=drain)

    def close(self) -> None:
        """Nothing is left to close."""


class Session:
    """The life of the load process: one trial after another, as ordered."""

    def __init__(self, orders: int, reports: int, scale: Scale) -> None:
        self._orders = orders
        self._reports = reports
        self._scale = scale
        self._waiting: gevent.queue.Queue[TrialSpec] = gevent.queue.Queue()
        self._cancel_next = False
        self._driver: _Driver | None = None
        gevent.os.make_nonblocking(orders)
        gevent.os.make_nonblocking(reports)

    def serve(self) -> None:
        """Forever: take a trial, have it driven, report its outcome."""
        gevent.spawn(self._take_orders)
        gevent.spawn(end_with_parent)
        try:
            driver = self._driver = self._start()
        except LoadError as error:
            self._report(Refused(error.message, error.hint))
            return
        self._report(Ready(driver.page))
        while True:
            spec = self._waiting.get()
            cancelled, self._cancel_next = self._cancel_next, False
            try:
                self._report(Done(driver.run(spec, cancelled=cancelled)))
            except LoadError as error:
                self._report(Refused(error.message, error.hint))

    def _start(self) -> _Driver:
        if not self._scale.led:
            return Alone(self._report_if_room)
        from perfbench.load.master import Master

        master = Master(self._scale, self._report_if_room)
        self._driver = master  # so that it is closed when the parent leaves while workers are waited for
        master.start()
        return master

    def _take_orders(self) -> None:
        decoder = msgspec.json.Decoder(Order)
        buffer = b""
        while piece := gevent.os.nb_read(self._orders, _READ_BYTES):
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                self._obey(decoder.decode(line))
        if self._driver is not None:
            self._driver.close()
        os._exit(0)  # the parent has closed the pipe or is gone; what had ended is in the spool

    def _obey(self, order: Order) -> None:
        if isinstance(order, RunTrial):
            self._waiting.put(order.spec)
        elif isinstance(order, Cancel) and self._driver is not None:
            self._cancel_next = not self._waiting.empty()
            self._driver.cancel(drain=order.drain)

    def _report(self, report: Report) -> None:
        line = msgspec.json.encode(report) + b"\n"
        while line:
            line = line[gevent.os.nb_write(self._reports, line) :]

    def _report_if_room(self, report: Report) -> None:
        """A parent that does not read must not hold up the load. Lines are far below PIPE_BUF, so they go whole or not at all."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._reports, msgspec.json.encode(report) + b"\n")


def end_with_parent() -> None:
    """A pipe's other end may have been inherited by a process that lives on; the parent's own end is what counts."""
    parent = os.getppid()
    while os.getppid() == parent:
        gevent.sleep(_PARENT_CHECK_S)
    os._exit(1)


def prepare_process() -> None:
    """What every process that drives or leads needs: as many open files as may be, and an end with a traceback where a bug would be a silent stall."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    raise_limit()
    # An error in the hub's callbacks or in a greenlet of ours is a bug.
    gevent.hub.get_hub().SYSTEM_ERROR = (Exception, KeyboardInterrupt, SystemExit)


def main() -> None:
    """Entry point of the load process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the parent decides what it means here
    reports = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepare_process()
    Session(sys.stdin.fileno(), reports, msgspec.json.decode(sys.argv[1], type=Scale)).serve()


if __name__ == "__main__":
    main()
