"""Waking a greenlet at an absolute time of CLOCK_MONOTONIC: a timerfd for the way, a short spin for the last of it.

libev, and so `gevent.sleep`, counts from its own cached time in milliseconds; measured against the schedule that costs 0.2 to 0.5 ms
in the median. A timerfd wakes within about 0.1 ms, and a spin over that remainder brings the send to the schedule
(research/loadgen.md). While it spins nothing is read, but receive stamps are the kernel's, so nothing measured moves.
"""

from __future__ import annotations

import ctypes
import os
import time

import gevent.hub

_TFD_TIMER_ABSTIME = 1
_SPIN_NS = 100_000
_NS_PER_S = 1_000_000_000


class _TimeSpec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _TimerSpec(ctypes.Structure):
    _fields_ = [("interval", _TimeSpec), ("value", _TimeSpec)]


class Timer:
    """One timerfd in gevent's loop, for one greenlet at a time."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._hub = gevent.hub.get_hub()
        self._watcher = self._hub.loop.io(self._file, 1)

    def sleep_until(self, when_ns: int) -> None:
        """Return at `when_ns` or as soon after it as can be; at once when it has passed."""
        wake_ns = when_ns - _SPIN_NS
        if wake_ns > time.monotonic_ns():
            spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(wake_ns // _NS_PER_S, wake_ns % _NS_PER_S))
            if self._libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
                raise OSError(ctypes.get_errno(), "timerfd_settime failed")
            self._hub.wait(self._watcher)
            os.read(self._file, 8)
        while time.monotonic_ns() < when_ns:
            pass

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        os.close(self._file)
