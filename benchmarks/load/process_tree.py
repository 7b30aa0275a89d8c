"""What a client costs, the same way for every client: CPU and memory of its whole process tree, read from outside."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MEMORY_EVERY_S = 0.5


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def cpu_s(pid: int) -> float:
    """User and system seconds of the tree so far, children that have ended included."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def machine_cpu_s() -> float:
    """CPU seconds of everything on the machine so far, idle and waiting left out."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / _TICKS


def memory_bytes(pid: int) -> int:
    """Resident memory of the tree. Pages of files and shared memory count once, in the process that has most: else ten workers were ten pythons."""
    own, shared = 0, 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            _, resident_pages, shared_pages, *_ = map(int, Path(f"/proc/{one}/statm").read_text().split())
            own += resident_pages - shared_pages
            shared = max(shared, shared_pages)
    return (own + shared) * _PAGE


class PeakMemory:
    """Watches a tree's memory twice a second, from a thread, until `stop`."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self._pid))
            self._stopped.wait(_MEMORY_EVERY_S)

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self.peak_bytes


def wait_until(condition: object, *, timeout_s: float, every_s: float = 0.05) -> bool:
    """Whether `condition()` has become true in time."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every_s)
    return False
