"""One clock for everything: kernel receive stamps (CLOCK_REALTIME) brought to CLOCK_MONOTONIC.

The kernel stamps segments in wall-clock time, which is slewed and may be stepped. The offset to the monotonic clock is measured anew
each second by the tightest of several bracketed readings: a reading of the wall clock between two of the monotonic clock is off by
at most half of their distance, so the narrowest bracket is the best one.
"""

from __future__ import annotations

import time

_READINGS = 9
_EARLY_NS = 50_000
"""A stamp that lies further in the future than this can only come from a clock step: two readings of one clock differ by far less."""


class RealtimeOffset:
    """Offset from CLOCK_REALTIME to CLOCK_MONOTONIC, and the largest change of it that was seen."""

    def __init__(self) -> None:
        self.offset_ns = _measure_offset_ns()
        self.step_max_ns = 0

    def measure(self) -> None:
        """Take the offset anew, and note how far it has moved."""
        offset_ns = _measure_offset_ns()
        self.step_max_ns = max(self.step_max_ns, abs(offset_ns - self.offset_ns))
        self.offset_ns = offset_ns

    def monotonic_ns(self, realtime_ns: int, now_ns: int) -> int:
        """A kernel stamp on the monotonic clock. `now_ns` is CLOCK_MONOTONIC after the read: no stamp can be later."""
        stamp_ns = realtime_ns + self.offset_ns
        if stamp_ns <= now_ns:
            return stamp_ns
        if stamp_ns > now_ns + _EARLY_NS:
            self.measure()
            stamp_ns = realtime_ns + self.offset_ns
        return min(stamp_ns, now_ns)


def _measure_offset_ns() -> int:
    best_width, best_offset = None, 0
    for _ in range(_READINGS):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        after = time.monotonic_ns()
        if best_width is None or after - before < best_width:
            best_width, best_offset = after - before, (before + after) // 2 - realtime
    return best_offset
