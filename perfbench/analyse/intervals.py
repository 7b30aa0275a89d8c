"""How sure a mean, a percentile or a rate of one trial is: 95% intervals for requests that are not independent.

One method for all three, batch means (Schmeiser 1982, "Batch size effects in the analysis of simulation output"): the trial, in time order, is cut into a few
long batches; their means are nearly independent once a batch outlasts the correlation, and Student's t with batches - 1 degrees of freedom does the rest.
Of a percentile the series is the indicator "not above it", which gives the share's error, and the order statistics at the ends of that share are the interval
(Conover 1999, 3.2, with the error of a dependent series in place of the binomial's), interpolated between two values that were measured (Nyblom 1992): whole
ones held the truth 98 times in 100 where values are few. Of a rate it is what ended in equal slices of the window. The intervals of a rate and, in closed loop,
of a mean of positive values are taken on the logarithm: neither is ever negative, and a price is one over a rate.

A queue is calm for long and crowded for short, so that most windows are calmer than the truth and their batches alike: 9 in 10 false intervals were too low.
In open loop the two ends of a mean and of a percentile's share are therefore Willink's (2005, "A confidence interval and test for the mean of an
asymmetric distribution"), as Skart takes them for batch means (Tafazzoli et al. 2011): t becomes (cbrt(1 + skew (t - skew / 6)) - 1) x 3 / skew, with
the normal curve's t and stretched to Student's. The skewness of the mean is that of SKEW_BATCHES batches over the root of their number, times SKEW_SHOWN,
since batches so short show half of it, and at most MOST_SKEW, beyond which the cube root would run away. The share above a percentile is taken on its
logarithm too, so that its interval does not reach beyond the largest value.

Batches: in closed loop 8, since a fixed number of streams bounds how much one request can delay others. In open loop a queue can grow without bound and its
memory is long, so 5, each longer. Of a rate in closed loop as many, from 8 down to 4, as let each stream end ENDED_A_SLICE requests in a slice: where it ends
fewer, what the slice's edges cut off is most of the spread, and the intervals held the truth 99 times in 100. A stream that ends fewer than MIN_ENDED_A_STREAM
in the whole window says too little: none.

When there is none. A queue near its capacity remembers for longer than a short window lasts: then every window looks calmer than the truth, and no
method can tell from inside. So an interval is given only where the requests are worth MIN_INDEPENDENT independent ones: n / tau, where tau, the
integrated autocorrelation time (Geyer 1992, initial monotone sequence), is the larger of that of the metric and, in open loop, that of the number in
flight, which shows the queue's memory even while latencies look independent. A percentile further needs MIN_ABOVE independent values above it. The
figures come from benchmarks/statistics (RESULTS.md there: coverage on queues at 30% to 80% load). None says that the window was too short.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from perfbench.analyse.stats import NO_INTERVAL, Z975, Floats, Interval, student_t975

CLOSED_BATCHES = 8
OPEN_BATCHES = 5
MIN_INDEPENDENT = {"closed": 15.0, "open": 100.0}
"""Below them, simulated intervals are false more often than 1 in 20 by more than chance."""
MIN_ABOVE = 7.5
"""p95 needs 150 independent values, p99 750; with 5 above it, the few intervals of 100 values held the p95 in 87 of 100."""
ENDED_A_SLICE = 2.5
MIN_ENDED_A_STREAM = 2.0
LEAST_SLICES = 4
SKEW_BATCHES = 40
"""At least 2.5 independent values each."""
SKEW_SHOWN = 2.0
MOST_SKEW = 0.42
SMALL_SKEW = 1e-6
"""Below it the formula is t itself, but for what floating point loses."""
MIN_ENDED = 16
"""Fewer requests than this in a window give its rate no interval: two a slice."""


class Dependence(NamedTuple):
    """What the requests of one trial have in common: how many batches to cut, and the autocorrelation time of the number in flight (1 in closed loop)."""

    batches: int
    queue_time: float
    needed: float
    streams: float | None = None
    """Of a closed loop, as far as they sent."""
    skewed: bool = False
    """A queue without bound: its crowded moments are far from its mean, its calm ones near."""

    def independent(self, series: Floats) -> float:
        """How many independent values a series in time order is worth."""
        return len(series) / max(correlation_time(series), self.queue_time) if len(series) else 0.0


def dependence(*, closed: bool, in_flight: Floats) -> Dependence:
    """`in_flight`: the number in flight when each measured request was due, in time order; in closed loop all the other streams."""
    if closed:
        return Dependence(CLOSED_BATCHES, 1.0, MIN_INDEPENDENT["closed"], 1.0 + float(in_flight.mean()) if len(in_flight) else None)
    return Dependence(OPEN_BATCHES, correlation_time(in_flight), MIN_INDEPENDENT["open"], skewed=True)


def correlation_time(series: Floats) -> float:
    """Integrated autocorrelation time, at least 1: so many neighbours tell as much as one independent value. 1 for a constant series.

    1 + 2 x the sum of autocorrelations, over pairs of lags as long as they are positive and made to fall monotonically.
    """
    n = len(series)
    if n < 4 or np.ptp(series) == 0:
        return 1.0
    centred = series - series.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    correlations = np.fft.irfft(spectrum)[:n]
    correlations /= correlations[0]
    pairs = correlations[0 : n // 2 * 2 : 2] + correlations[1 : n // 2 * 2 : 2]
    falling = np.minimum.accumulate(pairs)
    until = int(np.argmax(falling <= 0)) if np.any(falling <= 0) else len(falling)
    return max(1.0, float(2 * falling[:until].sum() - 1))


def mean_interval(sums: Floats, given: Dependence, counts: Floats | None = None) -> Interval:
    """95% interval of the mean of a series in time order; None where it is worth too few independent values.

    With `counts`, value i is the sum of counts[i] pooled readings (all chunk gaps of a request) and the mean is sum(sums) / sum(counts).
    """
    weights = np.ones(len(sums)) if counts is None else counts
    if np.any(weights <= 0) or given.independent(sums / weights) < given.needed:
        return NO_INTERVAL
    centre = float(np.sum(sums) / np.sum(weights))
    down, up = _reach(sums, weights, given)
    if centre <= 0 or np.any(sums < 0):
        return Interval(centre - down, centre + up)
    if given.skewed:
        return Interval(max(0.0, centre - down), centre + up)
    return Interval(centre * math.exp(-down / centre), centre * math.exp(up / centre))


def percentile_interval(values: Floats, percent: float, given: Dependence, counts: Floats | None = None) -> Interval:
    """95% interval of a percentile (as `stats.percentile` defines it), in time order; each end lies between two values that were measured.

    With `counts`, neighbours belong together: the first counts[0] values to the first request, and so on. None where the series is worth too few independent
    values, or the interval would reach beyond the largest or the smallest of them.
    """
    n, share = len(values), percent / 100
    if n == 0:
        return NO_INTERVAL
    below = (values <= np.quantile(values, share, method="inverted_cdf")).astype(np.float64)
    weights = np.ones(n) if counts is None else counts
    starts = np.concatenate([[0], np.cumsum(weights)[:-1]]).astype(np.int64)
    per_request = np.add.reduceat(below, starts) / weights
    independent = given.independent(per_request)
    if independent < given.needed or independent * min(share, 1 - share) < MIN_ABOVE:
        return NO_INTERVAL
    # Of the share above: the rare side, and the one that is skewed to the right.
    down, up = _reach((1 - per_request) * weights, weights, given)
    if given.skewed:
        down, up = (1 - share) * math.expm1(down / (1 - share)), -(1 - share) * math.expm1(-up / (1 - share))
    # The number of values below the truth is whole, so that its curve is off by half of one.
    low, high, middle = n * (share - down) + 0.5, n * (share + up) + 0.5, math.ceil(n * share - 1e-9)
    if low < 1 or high > n:
        return NO_INTERVAL
    return Interval(_between(values, min(low, middle)), _between(values, max(high, middle)))


def _between(values: Floats, place: float) -> float:
    """The value at a place, from 1, that need not be whole."""
    below = math.floor(place)
    ordered = np.partition(values, (below - 1, min(below, len(values) - 1)))
    first, second = float(ordered[below - 1]), float(ordered[min(below, len(values) - 1)])
    return first + (place - below) * (second - first)


def rate_interval(ended_s: Floats, amounts: Floats, seconds: float, given: Dependence, *, queues: Floats | None = None) -> Interval:
    """95% interval of sum(amounts) / seconds; `ended_s` counts from the start of a window of `seconds`.

    `queues` is a series that depends on the queue (which requests were good): in open loop a rate of such is as hard to know as a latency. The rate of all
    that ended is not: in a steady queue as many end as begin, and arrivals forget at once.
    """
    if len(ended_s) < MIN_ENDED or seconds <= 0 or (queues is not None and given.independent(queues) < given.needed):
        return NO_INTERVAL
    count = _slices(len(ended_s), given)
    if not count:
        return NO_INTERVAL
    slices = np.minimum((ended_s * count / seconds).astype(np.int64), count - 1)
    rates = np.bincount(slices, weights=amounts, minlength=count) * count / seconds
    centre, half = float(rates.mean()), max(_half(rates), _edge_half(amounts, seconds, given))
    return Interval(centre * math.exp(-half / centre), centre * math.exp(half / centre)) if centre > 0 else Interval(0.0, half)


def _edge_half(amounts: Floats, seconds: float, given: Dependence) -> float:
    """What a window's two edges cut off of each stream's request, at the least: streams that end in step can leave as many in every slice, and no spread."""
    if given.streams is None:
        return 0.0
    return Z975 * math.sqrt(given.streams / 6) * float(amounts.mean()) / seconds


def _slices(ended: int, given: Dependence) -> int:
    """How many a rate's window is cut into; 0 for a closed loop whose streams have ended too few."""
    if given.streams is None:
        return given.batches
    if ended < MIN_ENDED_A_STREAM * given.streams:
        return 0
    return min(given.batches, max(LEAST_SLICES, int(ended / (ENDED_A_SLICE * given.streams))))


def _reach(sums: Floats, weights: Floats, given: Dependence) -> tuple[float, float]:
    """How far the 95% interval of sum(sums) / sum(weights) reaches down and up."""
    means = _batch_means(sums, weights, given.batches)
    half = _half(means)
    if not given.skewed or len(sums) < 2 * SKEW_BATCHES:
        return half, half
    fine = _batch_means(sums, weights, SKEW_BATCHES)
    spread = float(np.std(fine))
    skew = float(np.mean((fine - fine.mean()) ** 3)) / spread**3 / math.sqrt(SKEW_BATCHES) * SKEW_SHOWN if spread > 0 else 0.0
    return half * willink(Z975, skew) / Z975, half * -willink(-Z975, skew) / Z975


def willink(t: float, skew: float) -> float:
    """The value that takes the place of Student's t for a mean of such skewness: nearer on the side of the short tail."""
    skew = min(MOST_SKEW, max(-MOST_SKEW, skew))
    return t if abs(skew) < SMALL_SKEW else float(np.cbrt(1 + skew * (t - skew / 6)) - 1) * 3 / skew


def _batch_means(sums: Floats, weights: Floats, batches: int) -> Floats:
    edges = _edges(len(sums), batches)
    return np.asarray(np.add.reduceat(sums, edges) / np.add.reduceat(weights, edges))


def _edges(n: int, batches: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.linspace(0, n, batches + 1).astype(np.int64)[:-1]


def _half(means: Floats) -> float:
    return student_t975(len(means) - 1) * float(np.std(means, ddof=1)) / math.sqrt(len(means))
