"""Connections of one trial: opened before they are needed, used again while the server keeps them, replaced when it does not.

A request never waits here. Where no connection is idle, it gets one that still connects and is sent the moment that stands; the send stamp says when.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent

from perfbench.errors import LoadError
from perfbench.load.address import Address
from perfbench.load.exchange import Exchange
from perfbench.load.wire import Connection, Reader

_CONNECTING_AT_ONCE = 64
"""Below the listen backlog of common servers (128 and up): a SYN that finds it full is sent again only after a second."""
_OPEN_TIMEOUT_S = 30.0
_IDLE_MAX_NS = 3_000_000_000
"""uvicorn, and so vLLM, closes a connection after 5 s of silence; closing ours first avoids sending into a connection that is being closed."""
_TEND_EVERY_S = 0.05
_SPARE_WINDOW_NS = 250_000_000
_SPARE_LEAST = 8


class Pool:
    """Idle connections, newest last. `spare` says how many to keep ready; 0 leaves it to the streams that own them."""

    def __init__(self, reader: Reader, address: Address, url: str) -> None:
        self._reader = reader
        self._address = address
        self._url = url
        self._idle: list[Connection] = []
        self._opening: set[Connection] = set()
        self._last_failure = ""

    def open(self, count: int) -> None:
        """Have `count` idle connections before the window; raises LoadError when the server takes none."""
        deadline = time.monotonic() + _OPEN_TIMEOUT_S
        while len(self._idle) < count and time.monotonic() < deadline and not self._last_failure:
            self._connect_more(count)
            gevent.sleep(0.001)
        if not self._idle:
            reason = self._last_failure.removeprefix("no connection: ") or "no answer"
            untrusted = "certificate" in reason
            remedy = "correct it or the URL, or name the certificates to trust in SSL_CERT_FILE" if untrusted else "start the server, or correct the URL"
            raise LoadError(f"no connection to {self._url}: {reason}; {remedy}")

    def keep_ready(self, spare: int) -> None:
        """Forever: replace what has been taken and what has stood idle for so long that the server may be about to close it."""
        while True:
            gevent.sleep(_TEND_EVERY_S)
            oldest_ns = time.monotonic_ns() - _IDLE_MAX_NS
            while self._idle and self._idle[0].idle_since_ns < oldest_ns:
                self._idle.pop(0).close()
            self._last_failure = ""
            self._connect_more(spare)

    def _connect_more(self, count: int) -> None:
        missing = count - len(self._idle) - len(self._opening)
        for _ in range(min(missing, _CONNECTING_AT_ONCE - len(self._opening))):
            try:
                self._opening.add(Connection(self._reader, self._address))
            except OSError as error:
                self._last_failure = f"no socket: {error.strerror}"
                return

    def send(self, exchange: Exchange) -> None:
        """Send on an idle connection, or on a new one as soon as that stands."""
        try:
            connection = self._idle.pop() if self._idle else Connection(self._reader, self._address)
        except OSError as error:
            exchange.error, exchange.error_message = "connect", f"no socket: {error.strerror}; raise the limit on open files (ulimit -n)"
            self._reader.finish(exchange, time.monotonic_ns())
        else:
            connection.send(exchange)

    # -- called by the reader

    def on_idle(self, connection: Connection) -> None:
        self._opening.discard(connection)
        connection.idle_since_ns = time.monotonic_ns()
        self._idle.append(connection)

    def on_lost(self, connection: Connection, reason: str) -> None:
        if connection in self._opening:
            self._opening.discard(connection)
            self._last_failure = reason
        elif connection in self._idle:
            self._idle.remove(connection)


def spare_for(offsets_ns: Sequence[int]) -> int:
    """Connections to keep ready for arrivals at these times: the most in any quarter of a second, and a few more."""
    most = first = 0
    for last, offset_ns in enumerate(offsets_ns):
        while offsets_ns[first] < offset_ns - _SPARE_WINDOW_NS:
            first += 1
        most = max(most, last - first + 1)
    return most + _SPARE_LEAST
