"""Memory of one variant's server against another's.

A server's steady memory is the median reading over the measured windows of one repeat. Servers that are restarted between repeats give one figure a
start; side by side they give one a repeat of the same start, which shows how readings wander and not what another start would take: that is allowed for
(`starts`). Repeats are paired and few, so the interval is Student's t over them; one repeat gives a difference and no interval. Variants on one server
take the same memory, and are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from perfbench.analyse.memory import over_devices
from perfbench.analyse.starts import NO_STARTS, START_DEGREES, StartVariance
from perfbench.analyse.stats import MOST_DEGREES, NO_INTERVAL, Floats, Interval, PairedDifference, p_value, student_t975
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.trials import AnalysedTrial
from perfbench.records import ServerInfo

MEMORIES = ("vram_bytes", "host_rss_bytes")
"""Device memory where it was measured; else the host's, under its own name."""


class MemoryReadings:
    """Steady memory by variant and repeat."""

    def __init__(self, trials: Sequence[AnalysedTrial], telemetry: Telemetry, servers: Mapping[str, ServerInfo]) -> None:
        """Readings are of windows that may be used: void trials enter no verdict."""
        self._trials, self._telemetry, self._servers = [trial for trial in trials if trial.usable], telemetry, servers

    def pair(self, left: str, right: str) -> tuple[str, list[tuple[float, float]], list[tuple[str, str]]] | None:
        """(metric, (left, right) bytes of each repeat that both have, their servers' starts); None for one server, and where neither kind was measured
        for both."""
        one, other = self._servers.get(left), self._servers.get(right)
        if one is None or other is None or one.name == other.name:
            return None
        for name in MEMORIES:
            found = [self._by_repeat(name, server) for server in (one, other)]
            common = sorted(found[0].keys() & found[1].keys())
            if common:
                labels = [(self._start(one, repeat), self._start(other, repeat)) for repeat in common]
                return name, [(found[0][repeat], found[1][repeat]) for repeat in common], labels
        return None

    def _start(self, server: ServerInfo, repeat: int) -> str:
        mine = (trial for trial in self._trials if trial.plan.repeat == repeat and trial.plan.variant in server.variants)
        return next((trial.start for trial in mine if trial.start is not None), server.name)

    def _by_repeat(self, name: str, server: ServerInfo) -> dict[int, float]:
        hosted = [trial for trial in self._trials if trial.plan.variant in server.variants]
        found: dict[int, float] = {}
        for repeat in {trial.plan.repeat for trial in hosted}:
            windows = [trial.outcome for trial in hosted if trial.plan.repeat == repeat]
            steady = over_devices(self._telemetry.gauge(name, server=server.name, windows=windows), "median")
            if steady is not None:
                found[repeat] = float(steady)
        return found


def few_paired(differences: Sequence[float] | Floats, starts: StartVariance = NO_STARTS) -> PairedDifference:
    """Mean, 95% interval and two-sided p-value by Student's t over the repeats, `starts.hidden` on top; no interval for one difference."""
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n == 0:
        return PairedDifference(None, NO_INTERVAL, None, 0)
    centre = float(values.mean())
    if n == 1:
        return PairedDifference(centre, NO_INTERVAL, None, 1)
    spread = float(values.var(ddof=1)) / n
    doubt = spread**2 / (n - 1) + starts.hidden**2 / START_DEGREES
    both = math.sqrt(spread + starts.hidden), (spread + starts.hidden) ** 2 / doubt if doubt > 0 else MOST_DEGREES
    # Of two repeats the spread is hardly known: what is known better must not make it look so.
    ways = (both, (math.sqrt(spread), n - 1.0))
    half = max(student_t975(degrees) * error for error, degrees in ways)
    return PairedDifference(centre, Interval(centre - half, centre + half), max(p_value(centre, error, degrees) for error, degrees in ways), n)
