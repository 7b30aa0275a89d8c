"""One request and its response while they happen (`Exchange`), and as they lie in the spool (`RawExchange`).

Nothing is decoded here: while load is driven only stamps and bytes are kept.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import msgspec

from perfbench.load.framing import ResponseEnd
from perfbench.load.request_book import Request
from perfbench.records import ErrorKind

FIRST_CONTENT = re.compile(rb'"(?:content|reasoning_content|reasoning|text)":\s*"[^"]')


class RawExchange(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange that has ended, undecoded: stamps and bytes, and all that a record needs beside them."""

    request_id: str
    trial: str
    variant: str
    worker: int
    prompt_id: str
    scheduled_ns: int
    sent_ns: int | None
    end_ns: int
    error: ErrorKind | None
    error_message: str | None
    kernel_stamps: bool
    """Every read carried a stamp of the kernel."""
    keep_text: bool
    read_ns: bytes
    """int64, native order: when each read's last segment arrived."""
    read_lengths: bytes
    """int64, native order: bytes in each read."""
    raw: bytes
    """The response as received, head and framing included."""
    adapter: str | None = None


class Exchange:
    """One request in flight. The wire appends to it; it ends once, by its response or by an error."""

    __slots__ = (
        "adapter", "connection", "conversation", "end", "end_ns", "error", "error_message", "kernel_stamps", "prompt_id", "raw", "read_lengths", "read_ns",
        "request", "request_id", "scheduled_ns", "sent_ns", "started_ns", "waiter",
    )

    def __init__(self, request: Request, scheduled_ns: int) -> None:
        self.request_id = request.request_id
        self.prompt_id = request.prompt_id
        self.adapter = request.adapter
        self.conversation = request.conversation
        self.request = request.content
        """Head and body, complete."""
        self.scheduled_ns = scheduled_ns
        self.started_ns = 0
        """When it was given to the wire: the request's time limit counts from here."""
        self.sent_ns: int | None = None
        self.end_ns = 0
        self.error: ErrorKind | None = None
        self.error_message: str | None = None
        self.kernel_stamps = True
        self.read_ns = array("q")
        self.read_lengths = array("q")
        self.raw = bytearray()
        self.end = ResponseEnd()
        self.connection: Any = None
        self.waiter: Any = None
        """The greenlet that waits for the end; None in an open loop, where nobody does."""

    @property
    def ok(self) -> bool:
        """No error that can be seen without decoding."""
        return self.error is None and self.end.status == 200

    def first_content_ns(self) -> int | None:
        """A quick look for the live display: when the first bytes that look like content arrived. Records are decoded properly."""
        found = FIRST_CONTENT.search(self.raw)
        if found is None:
            return None
        return self.read_ns[bisect_right(list(accumulate(self.read_lengths)), found.end() - 1)]

    def to_raw(self, trial: str, variant: str, worker: int, *, keep_text: bool, secret: bytes | None) -> RawExchange:
        """For the spool. `secret` is blotted out at equal length, should the server have echoed it."""
        raw = bytes(self.raw)
        if secret and secret in raw:
            raw = raw.replace(secret, b"*" * len(secret))
        return RawExchange(
            request_id=self.request_id, trial=trial, variant=variant, worker=worker, prompt_id=self.prompt_id, scheduled_ns=self.scheduled_ns,
            sent_ns=self.sent_ns, end_ns=self.end_ns, error=self.error, error_message=self.error_message,
            kernel_stamps=self.kernel_stamps and len(self.read_ns) > 0, keep_text=keep_text,
            read_ns=self.read_ns.tobytes(), read_lengths=self.read_lengths.tobytes(), raw=raw, adapter=self.adapter,
        )
