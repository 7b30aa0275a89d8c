"""The wire: every socket of the process, each watched by a watcher of gevent's hub.

Method (measured in docs/LOG.md): the watcher's callback reads its socket with a non-blocking `recvmsg` that also brings the
kernel's receive stamp (SO_TIMESTAMPNS), appends stamp, length and bytes to the exchange, and asks httptools whether the response has
ended. No greenlet runs per token; whoever waits for a response wakes once, when it has ended. A late reader therefore delays nothing that
is reported: `lag_max_ns` says how late it was. Where the kernel gives no stamp, the time after the read stands in, and the exchange says so.

Under TLS the same read feeds a buffer in memory (`tls`), and decrypted bytes have the stamp of the segment that completed their record. The handshake
is part of connecting. `sent_ns` is taken when the request is encrypted and its first byte is about to be handed to the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import gevent.hub
import gevent.monkey

from perfbench.load.address import Address
from perfbench.load.clock import RealtimeOffset
from perfbench.load.exchange import Exchange
from perfbench.load.framing import ProtocolError
from perfbench.load.tls import Tls, TlsError
from perfbench.records import ErrorKind

_SO_TIMESTAMPNS = 35
"""From asm-generic/socket.h, the same number for the option and for the control message; Python has no name for it."""
_TIMESPEC = struct.Struct("@qq")
_unpack_timespec = _TIMESPEC.unpack
_STAMP = (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
"""Level and type of its control message."""
_CONTROL_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 64
_READ_BYTES = 1 << 18
_now_ns = time.monotonic_ns
_READABLE, _WRITABLE = 1, 2
"""As libev names them. It reports a broken connection as both."""

# Locust has patched it; the wire never waits in it, so it takes the plain one.
_plain_socket: Callable[..., socket.socket] = gevent.monkey.get_original("socket", "socket")


class Connection:
    """One socket: connecting (TLS handshake included), idle, or busy with one exchange."""

    __slots__ = (
        "_connect_error", "_server_name", "_unsent", "connected", "exchange", "file", "idle_since_ns", "reader", "ready", "receive", "sock", "tls", "watcher",
    )  # fmt: skip

    def __init__(self, reader: Reader, address: Address) -> None:
        self.reader = reader
        self.connected = False
        """The socket is."""
        self.ready = False
        """A request can be sent: connected and, under TLS, the handshake is over."""
        self.tls: Tls | None = None
        self._server_name = address.tls_name
        self.exchange: Exchange | None = None
        self.idle_since_ns = 0
        self.watcher: Any = None
        """Gevent's, the reader's."""
        self._unsent: memoryview | None = None
        self.sock = _plain_socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.receive = self.sock.recvmsg_into
        self.file = self.sock.fileno()
        if address.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # no such option here: the reader falls back by itself
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        reader.add(self)
        # Refused at once or later, the watcher reports it (an unconnected socket hangs up); but the code is told only once, here or by SO_ERROR.
        self._connect_error = self.sock.connect_ex(address.sockaddr)

    def send(self, exchange: Exchange) -> None:
        """Send the exchange's request: now, or as soon as the connection stands."""
        exchange.connection = self
        self.exchange = exchange
        if not self.ready:
            return
        try:
            request = exchange.request if self.tls is None else self.tls.encrypt(exchange.request)
        except TlsError as error:
            self.fail("send", f"the request was not taken: {error}")
            return
        if self._unsent is None:
            self._unsent = memoryview(request)
            exchange.sent_ns = time.monotonic_ns()
            self._send_on()
        else:  # the end of a handshake still waits for room
            exchange.sent_ns = time.monotonic_ns()
            self._unsent = memoryview(bytes(self._unsent) + request)

    def _send_on(self) -> None:
        """Hand over what the kernel takes; the rest follows when the socket can be written again."""
        assert self._unsent is not None
        try:
            taken = self.sock.send(self._unsent)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            if self.ready:
                self.fail("send", f"the request was not taken: {_reason(error)}")
            else:
                self.fail("connect", f"no connection: TLS: the server ended the handshake: {_reason(error)}")
            return
        if taken == len(self._unsent):
            self._unsent = None
        else:
            self._unsent = self._unsent[taken:]
            self.reader.want(self, writable=True)

    def on_writable(self) -> None:
        """The connection stands, or has failed; or there is room for the rest of a request."""
        if self.connected:
            self.reader.want(self, writable=False)
            if self._unsent is not None:
                self._send_on()
            return
        code = self._connect_error if self._connect_error not in (0, errno.EINPROGRESS) else self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail("connect", f"no connection: {os.strerror(code)}")
            return
        self.connected = True
        self.reader.want(self, writable=False)
        if self._server_name is None:
            self._become_ready()
        else:
            self.tls = Tls(self._server_name)
            self.on_handshake()

    def on_handshake(self) -> None:
        """Continue the TLS handshake with what has been received."""
        assert self.tls is not None
        try:
            self.tls.handshake()
        except TlsError as error:
            self.fail("connect", f"no connection: {error}")
            return
        if self.speak(self.tls.to_send()) and self.tls.established:
            self._become_ready()

    def speak(self, data: bytes) -> bool:
        """Send what TLS itself has to say; False when the connection has failed over it."""
        if data:
            waiting = self._unsent is not None
            self._unsent = memoryview(bytes(self._unsent or b"") + data)
            if not waiting:
                self._send_on()
        return self.file >= 0

    def _become_ready(self) -> None:
        self.ready = True
        if self.exchange is not None:
            self.send(self.exchange)
        else:
            self.reader.on_idle(self)

    @property
    def sending(self) -> bool:
        """Part of a request has not been taken yet."""
        return self._unsent is not None

    def fail(self, kind: ErrorKind, message: str) -> None:
        """End the exchange, if there is one, with an error; and the connection with it."""
        exchange = self.exchange
        self.close()
        if exchange is None:
            self.reader.on_lost(self, message)
            return
        exchange.error, exchange.error_message = kind, message
        self.reader.finish(exchange, time.monotonic_ns())

    def close(self) -> None:
        """Close the socket; may be called twice."""
        if self.file >= 0:
            self.reader.remove(self)
            if self.tls is not None:
                self._say_goodbye(self.tls)
            self.sock.close()
            self.file = -1
            self.exchange = None

    def _say_goodbye(self, tls: Tls) -> None:
        """The alert that tells the server why, or that nothing more comes; if there is no room for it, it is left out."""
        data = tls.close_notify() if tls.established else tls.to_send()
        if data and self._unsent is None:
            with contextlib.suppress(OSError):
                self.sock.send(data)


class Reader:
    """Reads every socket of the process in one callback.

    `on_end(exchange)` is called once for each exchange, `on_idle(connection)` when a connection can take a request, and `on_lost(connection,
    reason)` when one without a request has closed. All three run in the hub or in any greenlet, and must not wait.
    """

    def __init__(
        self, on_end: Callable[[Exchange], None], on_idle: Callable[[Connection], None], on_lost: Callable[[Connection, str], None]
    ) -> None:
        self.on_end = on_end
        self.on_idle = on_idle
        self.on_lost = on_lost
        self.clock = RealtimeOffset()
        self.reads = 0
        self.kernel_stamps = True
        """No read so far has come without one."""
        self.lag_max_ns = 0
        self._connections: set[Connection] = set()
        buffer = bytearray(_READ_BYTES)
        self._buffers = (buffer,)
        self._view = memoryview(buffer)
        self._loop = gevent.hub.get_hub().loop

    def add(self, connection: Connection) -> None:
        self._connections.add(connection)
        connection.watcher = self._loop.io(connection.file, _READABLE | _WRITABLE)
        connection.watcher.start(self._on_ready, connection, pass_events=True)

    def want(self, connection: Connection, *, writable: bool) -> None:
        watcher = connection.watcher
        watcher.stop()
        watcher.events = _READABLE | _WRITABLE if writable else _READABLE
        watcher.start(self._on_ready, connection, pass_events=True)

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.watcher.stop()
        connection.watcher.close()
        connection.watcher = None

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def _on_ready(self, events: int, connection: Connection) -> None:
        """Something may be written, or read. This and `_deliver` run for every token: few calls, no more."""
        if events != _READABLE or not connection.connected:
            connection.on_writable()
            if not (events & _READABLE and connection.connected and connection.file >= 0):
                return
        try:
            length, control, _, _ = connection.receive(self._buffers, _CONTROL_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            connection.fail("disconnected", f"the connection broke before the end of the response: {_reason(error)}")
            return
        now_ns = _now_ns()
        data: memoryview | bytes = self._view[:length]
        if connection.tls is not None:
            decrypted = self._decrypt(connection, connection.tls, length)
            if decrypted is None:
                return
            data = decrypted
        exchange = connection.exchange
        if exchange is None:
            connection.close()  # the server has closed an idle connection, or speaks unasked
            self.on_lost(connection, "closed while idle")
            return
        if data:
            self._deliver(connection, exchange, data, control, now_ns)
        if connection.exchange is exchange and (length == 0 or (connection.tls is not None and connection.tls.closed)):
            self._end_of_file(connection, exchange, now_ns)

    def _decrypt(self, connection: Connection, tls: Tls, length: int) -> bytes | None:
        """What this read has brought of an answer; b"" at the connection's end, None where there is nothing to deliver (yet)."""
        if length == 0 and not connection.ready:
            connection.fail("connect", "no connection: TLS: the server closed the connection during the handshake")
            return None
        tls.receive(self._view[:length])
        if not connection.ready:
            connection.on_handshake()
            if not connection.ready or connection.file < 0:
                return None
        try:
            data = tls.decrypted()
        except TlsError as error:
            connection.fail("protocol", f"the connection broke before the end of the response: {error}")
            return None
        if not connection.speak(tls.to_send()):
            return None
        return data if data or length == 0 or tls.closed else None

    def _deliver(
        self, connection: Connection, exchange: Exchange, data: memoryview | bytes, control: list[tuple[int, int, bytes]], now_ns: int
    ) -> None:
        """Stamp a read with the time when its last segment arrived, on CLOCK_MONOTONIC, and keep it."""
        self.reads += 1
        stamp_ns = now_ns
        if control and control[0][:2] == _STAMP:  # nothing else has been asked for
            seconds, nanoseconds = _unpack_timespec(control[0][2])
            stamp_ns = self.clock.monotonic_ns(seconds * 1_000_000_000 + nanoseconds, now_ns)
            self.lag_max_ns = max(self.lag_max_ns, now_ns - stamp_ns)
        else:
            exchange.kernel_stamps = self.kernel_stamps = False
        exchange.read_ns.append(stamp_ns)
        exchange.read_lengths.append(len(data))
        exchange.raw += data
        end = exchange.end
        try:
            end.feed(data)
        except ProtocolError as error:
            connection.fail("protocol", f"the answer is no HTTP: {error}")
            return
        if end.ended:
            self._let_go(connection, exchange)
            self.finish(exchange, stamp_ns)

    def _let_go(self, connection: Connection, exchange: Exchange) -> None:
        """The answer is whole: the connection can be used again, or closes."""
        connection.exchange = None
        closing = connection.tls is not None and connection.tls.closed
        if exchange.end.keep_alive and not connection.sending and not closing:
            self.on_idle(connection)
        else:  # a server that answers before it has the whole request cannot be sent another on this connection
            connection.close()
            self.on_lost(connection, "closed by agreement")

    def _end_of_file(self, connection: Connection, exchange: Exchange, now_ns: int) -> None:
        if connection.tls is not None and not connection.tls.closed:
            # RFC 9112, 9.8: without close-notify an answer of unknown length may have been cut off by anybody.
            connection.fail("disconnected", "the server closed the connection before the end of the response, without a close-notify of TLS")
        elif exchange.end.end_of_file():
            connection.close()
            self.on_lost(connection, "closed by agreement")
            self.finish(exchange, exchange.read_ns[-1])
        else:
            connection.fail("disconnected", "the server closed the connection before the end of the response")

    def finish(self, exchange: Exchange, end_ns: int) -> None:
        """Hand an ended exchange on, free of references back to the wire."""
        exchange.end_ns = end_ns
        exchange.connection = None
        exchange.request = b""
        exchange.end.release()
        self.on_end(exchange)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
