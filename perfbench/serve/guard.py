"""Finding and killing every process of a server, and a guard that does it when perfbench itself is killed.

A server's processes carry PERFBENCH_SERVER=<mark> in the environment they were started with and stand in the session of the first
of them; one that drops both is still a child of one that does not. All three ways are followed, and whoever was found once stays
found, for a parent that ends leaves its children without a trace to it.

Run as a program (`python -I -S guard.py MARK`) this is the guard: standard input is a pipe that perfbench keeps open as long as it
lives and into which it writes the id of the server's session. When the pipe closes, or perfbench has ended in any way, kill -9
included, the guard kills what is left and ends. Only the standard library, so that it starts in milliseconds. Linux only (/proc).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

MARK_VARIABLE = "PERFBENCH_SERVER"


class _Process(NamedTuple):
    parent: int
    session: int
    started: int
    """In clock ticks since boot: with the id it names a process for good."""


def processes_of(mark: str, session: int | None, known: Mapping[int, int] = MappingProxyType({})) -> dict[int, int]:
    """All living processes of the server with this mark: {id: start time}. A zombie does not count, it is dead.

    `session` is the id of the server's first process, None if there was none; `known`, what an earlier look has found.
    """
    living = _living_processes()
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = {pid for pid in living if wanted in _environment(pid)}
    found |= {pid for pid, started in known.items() if pid in living and living[pid].started == started}
    if session is not None and (session not in living or session in found):
        # A living leader without the mark is a stranger who got the number after the server had ended.
        found |= {pid for pid in living if living[pid].session == session}
    while children := {pid for pid in living if living[pid].parent in found} - found:
        found |= children
    return {pid: living[pid].started for pid in found - {os.getpid()}}


def _living_processes() -> dict[int, _Process]:
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (pathlib would triple the guard's start)
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                # The name in brackets may hold blanks and brackets itself; after its last bracket stand fields 3 to 52 of proc(5).
                fields = file.read().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    table[int(name)] = _Process(parent=int(fields[1]), session=int(fields[3]), started=int(fields[19]))
    return table


def _environment(pid: int) -> Collection[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # ended meanwhile, or another user's
        return ()


def kill_processes(mark: str, session: int | None, *, terminate_s: float, kill_s: float = 10.0) -> set[int]:
    """End a server: SIGTERM to all its processes, after `terminate_s` SIGKILL. Returns those that live even then (none, as a rule).

    SIGTERM first, because vLLM then frees its shared memory and tells its workers; SIGKILL again and again, because a process may be
    starting another one at that moment.
    """
    left = processes_of(mark, session)
    deadline = time.monotonic() + terminate_s
    _signal(left, signal.SIGTERM)
    while (left := processes_of(mark, session, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    deadline = time.monotonic() + kill_s
    while left and time.monotonic() < deadline:
        _signal(left, signal.SIGKILL)
        time.sleep(0.05)
        left = processes_of(mark, session, left)
    return set(left)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _wait_for_end(pipe: int, parent: int) -> int | None:
    """Block until perfbench closes the pipe or ends; returns the session it has named. A process that perfbench forked may hold the
    pipe open for longer than perfbench lives, so its end is watched as well where the kernel can (pidfd, Linux 5.3)."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    with contextlib.suppress(OSError):
        poll.register(os.pidfd_open(parent), select.POLLIN)
    said = b""
    while pipe in {descriptor for descriptor, _ in poll.poll()}:
        chunk = os.read(pipe, 64)
        if not chunk:
            break
        said += chunk
    return int(said) if said.strip().isdigit() else None


def main() -> None:
    """The guard's whole life."""
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    session = _wait_for_end(0, parent)
    kill_processes(sys.argv[1], session, terminate_s=3.0)


if __name__ == "__main__":
    main()
