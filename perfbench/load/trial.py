"""The order that the main path gives to the load process: one trial, complete. Plain data, so that it can cross processes and hosts."""

from __future__ import annotations

import msgspec


class WorkerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where what one worker sent is kept."""

    spool_path: str
    records_path: str


class TrialSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. Paths are absolute; times in seconds unless named otherwise."""

    trial: str
    variant: str
    url: str
    """Of the server, up to, not including, the request path."""
    path: str
    """`/v1/chat/completions` or `/v1/completions`."""
    api_key_env: str | None
    """Name of the environment variable with the key; the load process reads it itself, so that no file ever holds the key."""
    bodies_path: str
    """JSONL: one `Body` a line, in sending order. A trial that needs more starts again from the top."""
    arrival: str
    """`closed`: `concurrency` requests are kept in flight. Anything else is open loop and follows the schedule."""
    concurrency: int | None
    think_time_s: float = 0.0
    """Closed loop: from the end of a response to the next request of its stream."""
    schedule_path: str | None
    """Parquet with one column, `offset_ns`: arrival times after the start of the trial, over warm-up and window. The load process gets it as plain int64."""
    warmup_s: float
    duration_s: float | None
    """Of the window; None: it ends when `requests` were sent."""
    requests: int | None = None
    """Closed loop: requests that are due in the window; the last of them to be sent ends it."""
    least_requests: int = 0
    """Closed loop: a window in which fewer were due goes on until so many were, or until it has lasted `stretch_to_s`."""
    stretch_to_s: float = 0.0
    drain_s: float
    max_in_flight: int
    request_timeout_s: float
    keep_text: bool
    limits_s: dict[str, float] = {}
    """Latency limits by metric: reports then say how many requests were late."""
    report_every_s: float = 1.0
    records_path: str
    spool_path: str
    further: list[WorkerFiles] = []
    """Of workers 1, 2, ... where several load processes share the trial."""
    worker: int = 0
    """In an order to one of several: which one it is. It sends requests worker, worker + workers, worker + 2 workers, ..."""
    workers: int = 1

    def files_of(self, worker: int) -> WorkerFiles:
        """Where worker number `worker` of the trial keeps what it sent."""
        return self.further[worker - 1] if worker else WorkerFiles(spool_path=self.spool_path, records_path=self.records_path)


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a trial."""

    prompt_id: str
    body: msgspec.Raw
    """JSON, sent as it stands."""
    adapter: str | None = None
    """The adapter it asks for, where requests of one trial are spread over several."""
    turns: list[str] = []
    """Conversations: what the user says in each later turn."""
    think_time_s: float = 0.0
    """Conversations: from the end of an answer to the next turn."""
