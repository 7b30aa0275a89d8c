"""Short pauses of a busy reader, so that one wake-up brings several tokens.

Waking up for one token costs more than reading it. Beyond a rate of reads that no single model server's user would notice, the loop therefore pauses before it
waits for sockets. What arrives in a pause keeps the kernel's stamp. Two pieces that the server sends on one connection within a pause are
read together and share the stamp of the later one, as they also do when a reader is late: the record counts them (`coalesced_reads`), and the error
is at most the time between the two, which is less than the pause. A stream's next request waits for the end of a pause, so an open loop, whose sends have
their times, does not pause; nor does a reader that has to stamp for itself. Measured in benchmarks/load; docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent.hub
import gevent.monkey

from perfbench.load.wire import Reader

_BUSY_PER_S = 5_000
"""Reads a second from which on the reader pauses: below, waking up costs less than a tenth of a core."""
_LOOK_S = 0.05
_PAUSE_S = 500e-6
"""At 24,000 tokens/s 0.15, 0.3 and 0.5 ms saved 8, 17 and 27% of the CPU."""
_ENOUGH = 32
"""Reads that one wake-up brought; a loop that gets as many is no longer woken for single tokens, and must not fall behind."""

# Locust has patched it: the pause is to be the whole process's, not a greenlet's.
_sleep: Callable[[float], None] = gevent.monkey.get_original("time", "sleep")


class Pauses:
    """Watches how busy a reader is, and lets the loop pause while it is. Closed with its trial."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._reads_at_look = reader.reads
        self._reads_at_wait = reader.reads
        loop = gevent.hub.get_hub().loop
        self._before_wait = loop.prepare()
        self._before_wait.priority = loop.MINPRI  # after gevent's own, which runs the greenlets that are due
        self._looking = loop.timer(_LOOK_S, _LOOK_S)
        self._looking.start(self._look)

    def _look(self) -> None:
        reads, self._reads_at_look = self._reader.reads - self._reads_at_look, self._reader.reads
        busy = self._reader.kernel_stamps and reads >= _BUSY_PER_S * _LOOK_S
        if busy and not self._before_wait.active:
            self._before_wait.start(self._pause)
        elif not busy and self._before_wait.active:
            self._before_wait.stop()

    def _pause(self) -> None:
        if self._reader.reads - self._reads_at_wait < _ENOUGH:
            _sleep(_PAUSE_S)
        self._reads_at_wait = self._reader.reads

    def close(self) -> None:
        for watcher in (self._before_wait, self._looking):
            watcher.stop()
            watcher.close()
