"""An end for work that somebody else's text decides: a template that never ends, a pattern that backtracks for years.

Measured in CPU time of this process, so that a busy machine ends nothing. A signal does it, and only a process's main thread gets signals: elsewhere
there is no limit.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside the block once it has taken so many seconds of CPU time. Not to be nested."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise TimeoutError
