"""HTTP/1.1 framing by httptools: when a response has ended (while it arrives), and what its body was, byte by byte (after the window).

Every read is fed to httptools as it comes. A look at the last bytes (`0\\r\\n\\r\\n`, `[DONE]`) would save about half a microsecond a
token, and would be wrong for sized bodies, for trailers, for errors, and where the end itself is split over two reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

import httptools


class ProtocolError(Exception):
    """Bytes that are no HTTP response."""


class ResponseEnd:
    """Fed with every read of one response as it arrives; says when the response has ended."""

    __slots__ = ("_framed", "_parser", "ended", "keep_alive", "status")

    def __init__(self) -> None:
        self.ended = False
        self.keep_alive = False
        self.status: int | None = None
        self._framed = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: memoryview | bytes) -> None:
        """Take one read; raises ProtocolError when it is no HTTP."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.ended:
                raise ProtocolError(str(error) or type(error).__name__) from None
            self.keep_alive = False  # the response was whole; what follows it is not ours

    def end_of_file(self) -> bool:
        """The server closed: True when that is how this response ends (neither sized nor chunked)."""
        self.ended = self.ended or (self.status is not None and not self._framed)
        return self.ended

    def release(self) -> None:
        """Let go of the parser: it refers back to this object, and the cyclic garbage collector is off while load is driven."""
        self._parser = None

    # -- called by httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-length" or (lower == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # 1xx are followed by the answer itself
            self.status = status

    def on_message_complete(self) -> None:
        if self.status is not None and not self.ended:
            self.ended = True
            self.keep_alive = self._parser.should_keep_alive()


class Response:
    """A response taken apart after the window: status, content type, body, and which read delivered which byte of the body."""

    def __init__(self, raw: bytes, read_lengths: Iterable[int]) -> None:
        self.status: int | None = None
        self.content_type = ""
        self._pieces: list[bytes] = []
        self._complete = False
        self._body_ends: list[int] = []
        self._parser = httptools.HttpResponseParser(self)
        view = memoryview(raw)
        start = size = 0
        for end in accumulate(read_lengths):
            before = len(self._pieces)
            broken = not self._feed(view[start:end])
            size += sum(map(len, self._pieces[before:]))
            self._body_ends.append(size)
            start = end
            if broken:
                break
        self._parser = None
        self.body = b"".join(self._pieces)

    def _feed(self, data: memoryview) -> bool:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return not self._complete

    def read_of(self, body_end: int) -> int:
        """Number of the read after which the first `body_end` bytes of the body were here; `body_end` is at least 1."""
        return bisect_left(self._body_ends, body_end)

    # -- called by httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value.decode("latin-1").lower()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self.status = status if status >= 200 else None

    def on_body(self, piece: bytes) -> None:
        if not self._complete:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self._complete = self._complete or self.status is not None
