"""What the main process and the load process say to each other: one JSON object a line over two pipes.

Orders go down (`RunTrial`, `Cancel`), reports come up (`Waiting`, `Ready`, `Progress`, `Done`, `Refused`). Closing the order pipe ends the load process.
"""

from __future__ import annotations

import msgspec

from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome


class RunTrial(msgspec.Struct, frozen=True, tag=True):
    """Drive this trial; answered by `Done` or `Refused`."""

    spec: TrialSpec


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Stop sending, drain, save; the trial is still answered by `Done`."""

    drain: bool = False
    """As after a whole window; False: shortly."""


class Waiting(msgspec.Struct, frozen=True, tag=True):
    """So many workers have connected, of so many; the others find the master there."""

    connected: int
    wanted: int
    address: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The load process has started and takes orders."""

    page: str | None = None
    """Address of Locust's page, where one was asked for."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How a trial stands, for the progress bar and for whoever decides how long it goes on. Never used for a result."""

    trial: str
    elapsed_s: float
    """Since the start of the warm-up."""
    length_s: float | None
    """Warm-up and window, estimated where the window is counted in requests; None where nobody can say yet. The drain comes after it."""
    sent: int
    in_flight: int
    ok: int
    failed: int
    held_back: int
    ttft_p50_s: float | None
    """Over the requests that ended since the last report; None where none did."""
    ttft_p95_s: float | None
    chunks_per_s: float
    """Reads from sockets a second since the last report: about one an output chunk."""
    judged: dict[str, int] = {}
    """Where the order holds limits: requests of the window that were judged so far, by metric."""
    late: dict[str, int] = {}
    """Those of them that missed the limit."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The trial is over and all of it is in the spool."""

    outcome: TrialOutcome


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The trial cannot be driven: one sentence, and a hint."""

    message: str
    hint: str | None = None


Order = RunTrial | Cancel
Report = Waiting | Ready | Progress | Done | Refused
