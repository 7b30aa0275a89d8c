"""Which processes belong to a server, to the client, to the sampler, or to none of them; and the CPU time each group has used.

A process belongs to the server whose session it is in; else to its nearest ancestor that is a root (a server's first process, the run,
the sampler); else, or where that is the run, to the server whose mark its environment carries (`PERFBENCH_SERVER`, which `serve` gives
each server that it starts). The mark comes last: an environment may be overwritten (setproctitle) or not ours to read.

What a process is, is decided once, when it is first seen: a machine with 1,500 processes then costs one directory listing a reading,
not 1,500 files.
"""

from __future__ import annotations

import contextlib
import os

import psutil

CLIENT = "client"
SAMPLER = "sampler"
MARK_VARIABLE = "PERFBENCH_SERVER"


def server_group(server: str) -> str:
    """The name of a server's group."""
    return f"server {server}"


class ProcessGroups:
    """Membership and CPU accounting over all processes of this machine. Not thread-safe: one thread refreshes and reads."""

    def __init__(self, client_root: int, sampler_root: int) -> None:
        self._fixed = {client_root: CLIENT, sampler_root: SAMPLER}
        self._roots = dict(self._fixed)
        self._marks: dict[str, str] = {}
        self._seen: set[int] = set()
        self._group: dict[int, str | None] = {}
        self._members: dict[int, psutil.Process] = {}
        self._cpu_last: dict[int, float] = {}
        self._cpu_total: dict[str, float] = {}

    def set_servers(self, roots: dict[str, int]) -> None:
        """Server name -> its first process. Every process is classified anew."""
        self._roots = {**self._fixed, **{pid: server_group(server) for server, pid in roots.items()}}
        marks = {_mark(pid): group for pid, group in self._roots.items() if pid not in self._fixed}
        self._marks = {mark: group for mark, group in marks.items() if mark is not None}
        self._group.clear()
        self._members.clear()

    def refresh(self) -> None:
        """Find new and ended processes, and add the CPU time that members used since the last call."""
        pids = set(psutil.pids())
        for gone in self._group.keys() - pids:
            self._forget(gone)
        for pid in pids - self._group.keys():
            group = self._classify(pid)
            self._group[pid] = group
            if group is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._members[pid] = psutil.Process(pid)
        for pid, process in list(self._members.items()):
            self._account(pid, process)
        self._seen = pids

    def all_pids(self) -> set[int]:
        """Every process of this pid namespace, at the last refresh."""
        return self._seen

    def group_of(self, pid: int) -> str | None:
        """The group of a process, None for a foreign one."""
        return self._group.get(pid)

    def members(self, group: str) -> list[psutil.Process]:
        """Processes of a group, alive at the last refresh."""
        return [process for pid, process in self._members.items() if self._group.get(pid) == group]

    def cpu_s(self, group: str) -> float:
        """CPU seconds (user and system) that a group has used since it was first seen. Never falls: ended processes stay counted."""
        return self._cpu_total.get(group, 0.0)

    def all_cpu_s(self) -> float:
        """CPU seconds of all groups together."""
        return sum(self._cpu_total.values())

    def _forget(self, pid: int) -> None:
        self._group.pop(pid, None)
        self._members.pop(pid, None)
        self._cpu_last.pop(pid, None)

    def _account(self, pid: int, process: psutil.Process) -> None:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            return
        except psutil.AccessDenied:
            return  # another user's process in the tree: its CPU stays with `other`
        used = times.user + times.system
        group = self._group[pid]
        assert group is not None
        # A process that was there before we looked starts at what it had used; one that began since, at 0.
        before = self._cpu_last.get(pid, 0.0 if self._seen and pid not in self._seen else used)
        self._cpu_total[group] = self._cpu_total.get(group, 0.0) + max(0.0, used - before)
        self._cpu_last[pid] = used

    def _classify(self, pid: int) -> str | None:
        by_session = self._by_session(pid)
        if by_session is not None:
            return by_session
        by_ancestry = self._by_ancestry(pid)
        if by_ancestry not in (None, CLIENT):
            return by_ancestry
        # An orphan of a server may have been adopted by the run (as a container's first process, say).
        return self._marks.get(_mark(pid) or "", by_ancestry) if self._marks else by_ancestry

    def _by_session(self, pid: int) -> str | None:
        try:
            group = self._roots.get(os.getsid(pid))
        except (ProcessLookupError, PermissionError):
            return None
        # The run shares its session with the shell and all its jobs; only servers have one of their own.
        return None if group in (CLIENT, SAMPLER) else group

    def _by_ancestry(self, pid: int) -> str | None:
        at = pid
        for _ in range(1024):  # a chain of parents is short; a loop in it can only come from pids that were re-used while we read
            if at in self._roots:
                return self._roots[at]
            if self._group.get(at) is not None:
                return self._group[at]
            try:
                at = psutil.Process(at).ppid()
            except psutil.Error:
                return None
            if at == 0:
                return None
        return None


def _mark(pid: int) -> str | None:
    """The mark in the environment that a process was started with; None without one, or when it cannot be read."""
    try:
        return psutil.Process(pid).environ().get(MARK_VARIABLE)
    except (psutil.Error, OSError):
        return None
