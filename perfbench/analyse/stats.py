"""Percentiles and paired differences of requests that are not independent. Pure numpy; seeded, so that a run analysed twice reads the same.

Requests of one trial share queues and batches: neighbours are alike, and the textbook interval s/sqrt(n) is too narrow. `intervals` holds the remedy for one
trial; here stands the one for two of them that were driven alike:

- `paired_interval`: circular block bootstrap (Politis & Romano 1992) over prompts in sending order inside each repeat, block length n^(1/3) (Hall, Horowitz
  & Jing 1995), widened for small n as in Hesterberg 2015, "What teachers should know about the bootstrap", 5.3; where there are several repeats, their
  disagreement comes on top as a second level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BATCHES = 8
"""Degrees of freedom that each repeat's own noise is credited with when repeats are tested for disagreement."""
MIN_PAIRED = 8
"""Fewer prompts than this give no interval: a bootstrap of so few values cannot show what it has not seen."""
REPLICATES = 2000
DISAGREE_P = 0.25
"""Repeats are treated as alike only where there is no sign of the contrary: the level at which Bancroft (1964) pools variances."""
Z975 = 1.959963984540054


class Interval(NamedTuple):
    """A 95% interval; both ends None where n is too small for one."""

    low: float | None
    high: float | None


class PairedDifference(NamedTuple):
    """Mean difference, its 95% interval and the two-sided p-value that the interval stands for; n is the number of prompts."""

    difference: float | None
    interval: Interval
    p_value: float | None
    n: int


NO_INTERVAL = Interval(None, None)


def percentile(values: Floats, percent: float) -> float | None:
    """The smallest value that at least `percent` percent of the values do not exceed (numpy's `inverted_cdf`, definition 1 of Hyndman & Fan 1996).

    It is a value that was measured, and "p95 <= limit" then means exactly "at least 95% of requests are within the limit". None where fewer than one value
    is expected above it, n (1 - p) < 1: p50 needs 2 values, p90 10, p95 20, p99 100; below that it would be the maximum by another name. May be
    infinite when failed requests are given as infinitely slow.
    """
    if len(values) * (100 - percent) < 100:
        return None
    return float(np.quantile(values, percent / 100, method="inverted_cdf"))


def student_t975(degrees: int) -> float:
    """97.5th percentile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def paired_interval(repeats: Sequence[Floats], *, seed: int) -> PairedDifference:
    """Mean paired difference with a 95% interval.

    repeats[r] holds one difference a prompt, in sending order; every repeat counts the same. With one repeat the interval speaks of this trial's prompts only:
    what changes from one start of a server to the next is seen with two or more. No interval below MIN_PAIRED prompts in a repeat.
    """
    series = [values for values in repeats if len(values)]
    n = sum(len(values) for values in series)
    if not series:
        return PairedDifference(None, NO_INTERVAL, None, 0)
    means = np.array([values.mean() for values in series])
    centre = float(means.mean())
    if min(len(values) for values in series) < MIN_PAIRED:
        return PairedDifference(centre, NO_INTERVAL, None, n)
    rng = np.random.default_rng(seed)
    deviations = np.stack([_block_deviations(values - values.mean(), rng) for values in series])
    shifts = deviations.mean(axis=0) + between_repeats(means, deviations) * rng.standard_normal(REPLICATES)
    low, high = np.quantile(shifts, [0.025, 0.975])
    return PairedDifference(centre, Interval(centre + float(low), centre + float(high)), _p_value(centre, shifts), n)


def between_repeats(means: Floats, deviations: Floats) -> float:
    """Standard error that the repeats' own disagreement adds; 0 for one repeat, which cannot show it.

    Normal and not resampled: two or three repeats have only a handful of resamples. The repeats' spread holds their inner noise too, which makes the sum
    careful. Where they disagree by more than that noise (F test at DISAGREE_P), they are what the interval rests on, so Student's t for so few widens it.
    """
    from scipy.special import fdtrc

    count = len(means)
    if count < 2:
        return 0.0
    spread, noise = float(np.var(means, ddof=1)), float(np.mean(np.var(deviations, axis=1)))
    disagree = spread > 0 and (noise == 0 or fdtrc(count - 1, count * BATCHES, spread / noise) < DISAGREE_P)
    return math.sqrt(spread / count) * (student_t975(count - 1) / Z975 if disagree else 1.0)


def _block_deviations(centred: Floats, rng: np.random.Generator) -> Floats:
    """REPLICATES block-resampled means of a centred series, widened for its size."""
    n = len(centred)
    length = math.ceil(n ** (1 / 3))
    blocks = math.ceil(n / length)
    ring = np.concatenate([[0.0], np.cumsum(np.concatenate([centred, centred[: length - 1]]))])
    block_sums = ring[length:] - ring[:-length]
    # Blocks are the independent units, and there are few of them.
    widen = student_t975(blocks - 1) / Z975 * math.sqrt(blocks / (blocks - 1))
    starts = rng.integers(0, n, (REPLICATES, blocks))
    return np.asarray(block_sums[starts].sum(axis=1) / (blocks * length) * widen)


def _p_value(centre: float, shifts: Floats) -> float:
    """Two-sided, from the normal curve with the replicates' spread: finer than the replicates' count, as Holm needs over many comparisons."""
    spread = float(np.std(shifts))
    if spread == 0.0:
        return 1.0 if centre == 0.0 else 0.0
    return math.erfc(abs(centre) / spread / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment: reject where the adjusted p is below alpha, and the family errs once at most with probability alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
