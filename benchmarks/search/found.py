"""What a method finds, how long its windows are, and how an answer is read off measured rates: the same for all methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_S, WARMUP_S, DRAIN_S = 4.0, 0.5, 4.0
SWEEP_SIZE, THROUGHPUT_STREAMS = 10, 512


@dataclass(frozen=True)
class Found:
    """What one method says, and what it cost."""

    case: str
    method: str
    rate_per_s: float | None
    server_s: float
    trials: int
    truth_per_s: float | None = None
    wall_s: float | None = None
    """From its start to its end, processes that start included."""
    machine_cores: float | None = None
    """CPU of the whole machine meanwhile."""
    seen: str = ""
    """What it measured, where the answer alone says little."""

    @property
    def off(self) -> float | None:
        """The answer's distance from the truth, as a share."""
        return self.rate_per_s / self.truth_per_s - 1 if self.rate_per_s and self.truth_per_s else None


def read_off(rates: Sequence[float], p95_s: Sequence[float], limit_s: float) -> float | None:
    """Where the curve crosses the limit; None where it lies on one side."""
    place = split([value <= limit_s for value in p95_s])
    if not 0 < place < len(rates):
        return None
    below, above = p95_s[place - 1], p95_s[place]
    share = (limit_s - below) / (above - below) if below <= limit_s < above < float("inf") else 0.5
    return rates[place - 1] + share * (rates[place] - rates[place - 1])


def split(met: Sequence[bool]) -> int:
    """How many rates from below count as meeting the limit: so that the fewest contradict it, since one disturbed window says nothing of those above it."""
    return min(range(len(met) + 1), key=lambda place: (met[:place].count(False) + met[place:].count(True), place))
