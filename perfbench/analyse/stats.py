"""Percentiles and paired differences of requests that are not independent. Pure numpy; seeded, so that a run analysed twice reads the same.

Requests of one trial share queues and batches: neighbours are alike, and the textbook interval s/sqrt(n) is too narrow. `intervals` holds the remedy for one
trial; here stands the one for two of them that were driven alike:

- `paired_interval`: circular block bootstrap (Politis & Romano 1992) over prompts in sending order inside each repeat, block length n^(1/3) (Hall, Horowitz
  & Jing 1995), widened for small n as in Hesterberg 2015, "What teachers should know about the bootstrap", 5.3; repeats, and starts of the servers, are the
  second level (`over_repeats`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from perfbench.analyse.starts import NO_STARTS, START_DEGREES, StartVariance

Floats = npt.NDArray[np.float64]

MOST_DEGREES = 1e6
"""Student's t is the normal curve long before."""
CONFLICT_P = 0.05
"""Repeats that disagree so much that one in twenty would by chance are not what the allowance was made for."""
MIN_PAIRED = 8
"""Fewer prompts than this give no interval: a bootstrap of so few values cannot show what it has not seen."""
TIME_BATCHES = 8
"""As in `intervals`: long enough to hold what lasts for a tenth of the window."""
MIN_BLOCKS = 3
"""Two cannot show how blocks differ."""
REPLICATES = 2000
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


def student_t975(degrees: float) -> float:
    """97.5th percentile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def paired_interval(
    repeats: Sequence[Floats], *, seed: int, starts: StartVariance = NO_STARTS, spans: float = 1.0, drift: Sequence[float] | None = None
) -> PairedDifference:  # fmt: skip
    """Mean paired difference with a 95% interval.

    repeats[r] holds one difference a prompt, in sending order; every repeat counts the same. `starts` is what other starts of the servers would add, in the
    square of the difference's unit; `spans` is how many neighbours are alike because one request is in all of them; `drift` is what the mean of each
    repeat varies by at the least (`time_variance`): blocks of prompts hold little of a machine that drifts for seconds. No interval below MIN_PAIRED prompts
    in a repeat, or below MIN_BLOCKS blocks.
    """
    series = [values for values in repeats if len(values)]
    n = sum(len(values) for values in series)
    if not series:
        return PairedDifference(None, NO_INTERVAL, None, 0)
    means = np.array([values.mean() for values in series])
    centre = float(means.mean())
    if min(len(values) for values in series) < MIN_PAIRED or min(block_count(len(values), spans) for values in series) < MIN_BLOCKS:
        return PairedDifference(centre, NO_INTERVAL, None, n)
    rng = np.random.default_rng(seed)
    deviations = np.stack([_block_deviations(values - values.mean(), rng, spans) for values in series])
    if drift is not None:
        least = np.array([one for one, values in zip(drift, repeats, strict=True) if len(values)])
        own = np.var(deviations, axis=1)
        deviations *= np.sqrt(np.divide(np.maximum(own, least), own, out=np.ones_like(own), where=own > 0))[:, None]
    drawn = over_repeats(means, deviations, starts, rng)
    low, high = np.quantile(drawn.draws, [0.025, 0.975])
    return PairedDifference(centre, Interval(centre + float(low), centre + float(high)), p_value(centre, drawn.error, drawn.degrees), n)


def time_variance(values: Floats) -> float:
    """Of the mean of a series in time order, by the spread of its TIME_BATCHES batches, widened for their number; 0 for a series too short for two a batch."""
    if len(values) < 2 * TIME_BATCHES:
        return 0.0
    edges = np.linspace(0, len(values), TIME_BATCHES + 1).astype(np.int64)
    means = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return float(np.var(means, ddof=1)) / TIME_BATCHES * (student_t975(TIME_BATCHES - 1) / Z975) ** 2


class Drawn(NamedTuple):
    """How far off a mean over repeats may be: REPLICATES draws whose 2.5% and 97.5% ends are the interval's, standard error, degrees of freedom."""

    draws: Floats
    error: float
    degrees: float


def over_repeats(means: Floats, deviations: Floats, starts: StartVariance, rng: np.random.Generator) -> Drawn:
    """Repeats as clusters. `deviations[r]` are draws of what repeat r's mean is off by, as its own requests show it.

    The variance of one repeat's mean is what its requests show plus what starts add (`starts.seen`), moderated by the repeats' own spread: the former counts
    as START_DEGREES degrees of freedom and the spread as R - 1 (Smyth 2004, "Linear models and empirical Bayes methods", moderated t). So one repeat rests
    on the allowance, two on both, and many on themselves. Where the spread is far beyond what is known (F test at CONFLICT_P), the repeats speak alone.
    What no repeat shows, `starts.hidden`, comes on top. Student's t with Satterthwaite's degrees of freedom takes in how well each part is known.
    """
    from scipy.special import fdtrc

    count = len(means)
    inner = float(np.mean(np.var(deviations, axis=1)))
    known, spread = inner + starts.seen, float(np.var(means, ddof=1)) if count > 1 else 0.0
    conflict = spread > 0 and (known == 0 or fdtrc(count - 1, START_DEGREES, spread / known) < CONFLICT_P)
    weight = 0.0 if conflict else START_DEGREES / (START_DEGREES + count - 1)
    visible = (weight * known + (1 - weight) * spread) / count
    variance = max(inner / count, visible + starts.hidden)
    doubt = (weight * starts.seen / count + starts.hidden) ** 2 / START_DEGREES
    doubt += ((1 - weight) * spread / count) ** 2 / (count - 1) if count > 1 else 0.0
    degrees = min(variance**2 / doubt, MOST_DEGREES) if doubt > 0 else MOST_DEGREES
    more = math.sqrt(max(0.0, variance - inner / count))
    draws = deviations.mean(axis=0) + more * rng.permutation(_normal_scores())
    return Drawn(draws * (student_t975(degrees) / Z975), math.sqrt(variance), degrees)


def block_length(n: int, spans: float) -> int:
    """n^(1/3), and no block is shorter than what is alike because of one request."""
    return max(math.ceil(math.cbrt(n)), math.ceil(spans))


def block_count(n: int, spans: float) -> int:
    """Of the blocks that n values are drawn in."""
    return math.ceil(n / block_length(n, spans))


def _block_deviations(centred: Floats, rng: np.random.Generator, spans: float) -> Floats:
    """REPLICATES block-resampled means of a centred series, widened for its size."""
    n = len(centred)
    length, blocks = block_length(n, spans), block_count(n, spans)
    ring = np.concatenate([[0.0], np.cumsum(np.concatenate([centred, centred[: length - 1]]))])
    block_sums = ring[length:] - ring[:-length]
    # Blocks are the independent units, and there are few of them.
    widen = student_t975(blocks - 1) / Z975 * math.sqrt(blocks / (blocks - 1))
    starts = rng.integers(0, n, (REPLICATES, blocks))
    return np.asarray(block_sums[starts].sum(axis=1) / (blocks * length) * widen)


def _normal_scores() -> Floats:
    """REPLICATES values whose spread and ends are the normal curve's: drawn ones would miss by 2%."""
    from scipy.special import ndtri

    return np.asarray(ndtri((np.arange(REPLICATES) + 0.5) / REPLICATES))


def p_value(value: float, error: float, degrees: float) -> float:
    """Two-sided, of a value against 0 by Student's t: finer than the draws' count, as Holm needs over many comparisons."""
    from scipy.special import stdtr

    return 2 * float(stdtr(degrees, -abs(value) / error)) if error > 0 else float(value == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment: reject where the adjusted p is below alpha, and the family errs once at most with probability alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
