"""The load process: Locust in a process of its own, fed with trials over a pipe (`python -m perfbench.load.process`).

Orders come on standard input, reports go to what was standard output; everything else that is printed or logged goes to standard
error, which is the log. It ends when its input is closed or its parent is gone, so none is ever left behind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
from typing import Any

import gevent
import gevent.hub
import gevent.os
import gevent.queue
import locust.env
import locust.event
import msgspec

from perfbench.errors import LoadError
from perfbench.load.drive import Trial
from perfbench.load.messages import Cancel, Done, Order, Progress, Ready, Refused, Report, RunTrial
from perfbench.load.users import ScheduleUser, StreamUser

_READ_BYTES = 1 << 16
_PARENT_CHECK_S = 1.0


class Session:
    """The life of the load process: one trial after another, as ordered."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        self._waiting: gevent.queue.Queue[Trial] = gevent.queue.Queue()
        self._newest: Trial | None = None
        self._environment: Any = locust.env.Environment(user_classes=[StreamUser, ScheduleUser], events=locust.event.Events())
        self._environment.create_local_runner()
        gevent.os.make_nonblocking(orders)
        gevent.os.make_nonblocking(reports)

    def serve(self) -> None:
        """Forever: take a trial, drive it, report its outcome."""
        gevent.spawn(self._take_orders)
        gevent.spawn(_watch_parent)
        self._report(Ready())
        while True:
            trial = self._waiting.get()
            try:
                self._report(Done(trial.run()))
            except LoadError as error:
                self._report(Refused(error.message, error.hint))

    def _take_orders(self) -> None:
        decoder = msgspec.json.Decoder(Order)
        buffer = b""
        while piece := gevent.os.nb_read(self._orders, _READ_BYTES):
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                self._obey(decoder.decode(line))
        os._exit(0)  # the parent has closed the pipe or is gone; what had ended is in the spool

    def _obey(self, order: Order) -> None:
        if isinstance(order, RunTrial):
            self._newest = Trial(order.spec, self._environment, self._report_if_room)
            self._waiting.put(self._newest)
        elif isinstance(order, Cancel) and self._newest is not None:
            self._newest.cancel(drain=order.drain)

    def _report(self, report: Report) -> None:
        line = msgspec.json.encode(report) + b"\n"
        while line:
            line = line[gevent.os.nb_write(self._reports, line) :]

    def _report_if_room(self, progress: Progress) -> None:
        """A parent that does not read must not hold up the load. Lines are far below PIPE_BUF, so they go whole or not at all."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._reports, msgspec.json.encode(progress) + b"\n")


def _watch_parent() -> None:
    """A pipe's other end may have been inherited by a process that lives on; the parent's own end is what counts."""
    parent = os.getppid()
    while os.getppid() == parent:
        gevent.sleep(_PARENT_CHECK_S)
    os._exit(1)


def main() -> None:
    """Entry point of the load process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the parent decides what it means here
    reports = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # An error in the hub's callbacks or in a greenlet of ours is a bug: it ends the process with a traceback in the log, never a silent stall.
    gevent.hub.get_hub().SYSTEM_ERROR = (Exception, KeyboardInterrupt, SystemExit)
    Session(sys.stdin.fileno(), reports).serve()


if __name__ == "__main__":
    main()
