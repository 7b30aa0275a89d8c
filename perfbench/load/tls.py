"""TLS over bytes in memory: the wire reads and writes the socket itself, so that the kernel's stamps stay what they are.

Method: an `ssl.SSLObject` between two memory buffers (RFC 8446 by OpenSSL). Certificate and host name are always verified, against the system's trust
store or what SSL_CERT_FILE names. One context a process: making one costs 25 ms.
"""

from __future__ import annotations

import contextlib
import ssl
from functools import cache

_PLAIN_BYTES = 1 << 16
_PLAIN_HTTP_REASONS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""What OpenSSL calls bytes that are no TLS record."""


class TlsError(Exception):
    """TLS was refused, broke, or met a certificate that is not to be trusted. The text begins with "TLS"."""


class Tls:
    """The client's end of one TLS connection. `established` and `closed` (the server said close-notify) tell how far it is."""

    __slots__ = ("_incoming", "_object", "_outgoing", "closed", "established")

    def __init__(self, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = _context().wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.established = False
        self.closed = False

    def handshake(self) -> None:
        """Go as far as the bytes received allow; raises TlsError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from None
        self.established = True

    def receive(self, data: memoryview) -> None:
        """Take bytes off the socket."""
        self._incoming.write(data)

    def decrypted(self) -> bytes:
        """What the records that are whole by now held; may be nothing. Raises TlsError for records that are damaged, and for alerts."""
        pieces = []
        try:
            while piece := self._object.read(_PLAIN_BYTES):
                pieces.append(piece)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """The records that carry `data`, to be sent as they are, before any that is encrypted later. Raises TlsError on a connection that has broken."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._object.write(view) :]
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from None
        return self._outgoing.read()

    def to_send(self) -> bytes:
        """What TLS itself has to say: handshake, alerts, new keys."""
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """Our close-notify, which the other side need not answer."""
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()


@cache
def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate is not accepted: {error.verify_message}"
    if error.reason in _PLAIN_HTTP_REASONS:
        return "TLS: the server does not speak it; does its URL begin with http://?"
    return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
