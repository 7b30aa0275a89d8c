"""What one request, one reading and one trial leave behind."""

from __future__ import annotations

from typing import Literal

import msgspec

RequestStatus = Literal["ok", "failed"]
ErrorKind = Literal["connect", "send", "http", "timeout", "disconnected", "protocol", "server", "cancelled"]
"""connect: no connection. send: the request was not taken. http: a status other than 200. timeout: the scenario's limit.
disconnected: closed before the end. protocol: bytes that are no HTTP or no SSE. server: an error event inside the stream.
cancelled: we ended it (end of the drain, Ctrl-C)."""
Stamp = Literal["kernel", "user"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it happened (DESIGN 7.1)."""

    request_id: str
    trial: str
    variant: str
    worker: int
    prompt_id: str
    scheduled_ns: int
    """When the arrival process wanted it sent. Closed loop: when its stream became free."""
    sent_ns: int | None
    """First byte handed to the kernel; None if it never was."""
    first_token_ns: int | None
    last_token_ns: int | None
    end_ns: int
    """End of the response, or the moment it failed."""
    chunk_ns: list[int]
    """Arrival of each chunk with content or reasoning."""
    chunk_tokens: list[int] | None
    """Tokens in each of these chunks where the server says so, else None."""
    prompt_tokens: int | None
    output_tokens: int | None
    """By the server's usage."""
    cached_tokens: int | None
    status: RequestStatus
    error: ErrorKind | None = None
    error_message: str | None = None
    http_status: int | None = None
    finish_reason: str | None = None
    stamp: Stamp
    coalesced_reads: int = 0
    """Reads that returned more than one chunk: the earlier chunks of such a read carry the stamp of its last segment."""
    bytes_received: int = 0
    output_text: str | None = None
    adapter: str | None = None
    """The adapter that was asked for, where requests of one trial are spread over several."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One telemetry reading. `source` is nvml, host, server or client; `name` carries its unit (`host_rss_bytes`)."""

    t_ns: int
    source: str
    name: str
    value: float
    unit: str
    labels: dict[str, str] = {}


class WorkerOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several load processes did in a trial, and how its clock was brought to the master's."""

    worker: int
    """As in the records."""
    host: str
    requests: int
    client_cpu_s: float | None
    """CPU seconds over the measured window."""
    send_lag_p99_s: float | None
    """sent - scheduled, over the requests scheduled in the window."""
    loop_lag_max_s: float | None
    clock_offset_ns: int
    """The worker's CLOCK_MONOTONIC minus the master's, taken off all its times; 0 where both read the same clock."""
    clock_rtt_ns: int | None
    """Round trip of the quickest exchange that it was measured with: it is off by at most half of that. None for the same clock."""
    clock_drift_ns: int | None
    """How much the offset had changed when the trial was over."""
    shared_folder: bool
    """Its records came through a folder that both see; otherwise by message."""


class TrialOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the load process says of one finished trial."""

    trial: str
    started_ns: int
    """Start of the warm-up: scheduled times count from here."""
    measure_from_ns: int
    measure_until_ns: int
    """No request is sent after it; the drain follows."""
    ended_ns: int
    requests_ok: int
    requests_failed: int
    held_back: int = 0
    """Open loop: arrivals not sent on time because the limit on requests in flight was reached."""
    client_cpu_s: float | None = None
    """CPU seconds of the load process over the measured window."""
    gc_collections: int = 0
    loop_lag_max_s: float | None = None
    """Longest time between a kernel stamp and our reading of it, inside the window."""
    clock_step_max_s: float | None = None
    """Largest change of the CLOCK_REALTIME to CLOCK_MONOTONIC offset seen during the trial."""
    stamp: Stamp = "kernel"
    stopped_early: str | None = None
    """Why the trial was ended before its time; its window ends there. None for one that was driven to its end."""
    workers: list[WorkerOutcome] = []
    """Where several load processes drove the trial. The figures above are then those of the worst of them, counts their sum."""
