"""Finding and killing every process of a server, and a guard that does it when perfbench itself is killed.

A server's processes carry PERFBENCH_SERVER=<mark> in the environment they were started with and stand in the session of the first
of them; one that drops both is still a child of one that does not. All three ways are followed.

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
from collections.abc import Collection
from typing import NamedTuple

MARK_VARIABLE = "PERFBENCH_SERVER"


class _Process(NamedTuple):
    parent: int
    session: int
    zombie: bool


def processes_of(mark: str, session: int | None) -> set[int]:
    """Ids of all living processes of the server with this mark. `session` is the id of its first process, None if there was none.

    A zombie does not count: it is dead, and only waits for its parent to look.
    """
    table = _process_table()
    living = {pid for pid, process in table.items() if not process.zombie}
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    marked = {pid for pid in living if wanted in _environment(pid)}
    if session is not None and (session not in living or session in marked):
        # A living leader without the mark is a stranger who got the number after the server had ended.
        marked |= {pid for pid in living if table[pid].session == session}
    while True:
        children = {pid for pid in living if table[pid].parent in marked} - marked
        if not children:
            return marked - {os.getpid()}
        marked |= children


def _process_table() -> dict[int, _Process]:
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (pathlib would triple the guard's start)
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                # The name in brackets may hold blanks and brackets itself; what follows the last bracket is state, parent, group, session.
                state, parent, _, session = file.read().rpartition(b")")[2].split()[:4]
                table[int(name)] = _Process(int(parent), int(session), state in (b"Z", b"X"))
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
    deadline = time.monotonic() + terminate_s
    _signal(processes_of(mark, session), signal.SIGTERM)
    while (left := processes_of(mark, session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    deadline = time.monotonic() + kill_s
    while left and time.monotonic() < deadline:
        _signal(left, signal.SIGKILL)
        time.sleep(0.05)
        left = processes_of(mark, session)
    return left


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
