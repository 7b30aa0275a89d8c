"""Where the share of late requests passes what an SLO allows, from probes at several loads. Pure.

Near the edge the odds of being late grow as a power of the load: logit(share) = logit(allowed) + slope x log(load / edge). Every probe counts with the requests
that it judged and those that were late, whether it was clear or not, so stopping a probe early makes its word weaker and not wrong. Edge and slope are unknown;
their posterior, flat in the logarithms of both, is summed over a grid, and the slope is summed out. Of several limits the edge is the lowest.

Requests of a queue are late together: so many count as one as the pooled variance of batch means shows (plan.sequential.inflation), which is little known as
long as few were late, so the pool begins with PRIOR_LATE late requests of inflation PRIOR_INFLATION. Far above the edge the odds grow faster than a power,
and a probe there would make the slope at the edge look steep: a share counts as no more than FAR times the allowed odds.

In simulated searches (windows of 4 s; the three servers of benchmarks/search) the 95% interval held the truth in 95 to 100 of 100, and the edge was within 5%
in 78 to 85; judging by the gap between the last good and the first bad probe, in 32 to 48 and 27 to 48.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SLOPES = np.geomspace(4.0, 40.0, 14)
"""Of the log-odds over the logarithm of the load."""
PRIOR_INFLATION = 20.0
PRIOR_LATE = 20.0
FAR = 6.0
_BEYOND = 0.7
"""The grid goes on so far beyond the probes, in logarithms: half of the lowest, twice the highest."""
_STEP = 0.005
_MUCH_LATE = 0.5
"""With a greater share late, batches are all alike, and show no inflation."""


class Count(NamedTuple):
    """What a probe showed of one limit."""

    judged: int
    late: int
    inflation: float
    allowed: float
    """Share of late requests that the limit allows."""
    saturated: bool = False
    """Requests piled up: they would all be late in time."""


class Edge(NamedTuple):
    """The load at which the SLO begins to be missed: median, and intervals that hold it with 95% and with 80% probability."""

    load: float
    low: float
    high: float
    likely_low: float
    likely_high: float


def edge_of(probes: Sequence[tuple[float, Mapping[str, Count]]]) -> Edge:
    """`probes` are loads with what each showed, by limit; at least one, with one limit or more."""
    logs = np.log([load for load, _ in probes])
    grid: Floats = np.arange(logs.min() - _BEYOND, logs.max() + _BEYOND, _STEP)
    above = np.ones(len(grid))
    for metric in probes[0][1]:
        # The edge is above a load where those of all limits are.
        above *= 1 - np.cumsum(_posterior(grid, logs, [counts[metric] for _, counts in probes]))
    below = 1 - above
    quantiles = [float(np.exp(grid[min(int(np.searchsorted(below, share)), len(grid) - 1)])) for share in (0.5, 0.025, 0.975, 0.1, 0.9)]
    return Edge(*quantiles)


def _posterior(grid: Floats, logs: Floats, counts: Sequence[Count]) -> Floats:
    """Probability of each place of the grid for one limit."""
    inflation = _pooled(counts)
    odds = counts[0].allowed / (1 - counts[0].allowed)
    most = FAR * odds / (1 + FAR * odds)
    found = np.zeros((len(SLOPES), len(grid)))
    for at, count in zip(logs, counts, strict=True):
        late = most * count.judged if count.saturated else min(count.late, most * count.judged)
        log_odds = np.log(odds) + SLOPES[:, None] * (at - grid[None, :])
        found += (late * log_odds - count.judged * np.logaddexp(0.0, log_odds)) / inflation
    weights: Floats = np.exp(found - found.max()).sum(axis=0)
    weights /= weights.sum()
    return weights


def _pooled(counts: Sequence[Count]) -> float:
    told = [(one.late * (1 - one.late / one.judged), one.inflation) for one in counts if 0 < one.late < _MUCH_LATE * one.judged]
    weights = PRIOR_LATE + sum(weight for weight, _ in told)
    return (PRIOR_LATE * PRIOR_INFLATION + sum(weight * inflation for weight, inflation in told)) / weights
