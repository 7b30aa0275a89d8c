"""What a master and its workers say to each other, as the content of Locust's own messages (msgpack over ZeroMQ), all under one type.

    worker -> master   Hello, Pong, Fetch, Piece, Prepared, Progress, Ended, Refused
    master -> worker   Ping, Begin, Go, Fetch, Piece, Cancel, Release, Refused

A file goes over in pieces, each asked for by whoever needs it when it has the one before (`Fetch`, `Piece`): so a transfer can never flood the other side's
event loop, and is only made when the two do not see the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from perfbench.load.messages import Cancel, Progress, Refused
from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome

TYPE = "perfbench"
"""Of every message that is ours; Locust has its own beside it (client_ready, heartbeat, stats, quit)."""
_PIECE_BYTES = 1 << 18
FileName = Literal["bodies", "schedule", "spool"]


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A worker is there."""

    host: str
    pid: int
    version: str
    """Of perfbench."""
    clock_id: str
    """Equal for two processes that read the same CLOCK_MONOTONIC."""


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Answered at once by `Pong`, to compare clocks."""

    number: int


class Pong(msgspec.Struct, frozen=True, tag=True):
    """The worker's CLOCK_MONOTONIC when the ping reached it."""

    number: int
    t_ns: int


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make this trial ready: connections, bodies, users. Answered by `Prepared` or `Refused`."""

    spec: TrialSpec
    probe_path: str
    probe_text: str
    """What stands in it. A worker that reads it there sees the master's folder, and leaves its spool in it."""


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """Nothing is left to do before the start."""


class Go(msgspec.Struct, frozen=True, tag=True):
    """Start then, by the worker's own clock."""

    started_ns: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """The trial is over; its spool is whole."""

    outcome: TrialOutcome
    shared: bool
    """The spool lies where the master sees it."""


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Send me the piece of this file that begins there."""

    file: FileName
    offset: int


class Piece(msgspec.Struct, frozen=True, tag=True):
    """A piece of a file; an empty one is its end."""

    file: FileName
    offset: int
    data: bytes


class Release(msgspec.Struct, frozen=True, tag=True):
    """The master has everything of the trial; the worker may remove its files."""


Message = Hello | Ping | Pong | Begin | Prepared | Go | Ended | Fetch | Piece | Release | Progress | Cancel | Refused

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def decode(data: bytes) -> Message:
    """Raises msgspec.DecodeError for what is no message of this version."""
    message: Message = _decode(data)
    return message


def piece_of(path: str | Path, file: FileName, offset: int) -> Piece:
    """The piece of a file that was asked for."""
    with open(path, "rb") as opened:
        opened.seek(offset)
        return Piece(file, offset, opened.read(_PIECE_BYTES))


def environment() -> Any:
    """A Locust environment with the users that drive trials."""
    import locust.env
    import locust.event

    from perfbench.load.users import ScheduleUser, StreamUser

    return locust.env.Environment(user_classes=[StreamUser, ScheduleUser], events=locust.event.Events())


def clock_id() -> str:
    """Which CLOCK_MONOTONIC this process reads: the kernel's boot, and the time namespace, which may shift it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return ""
