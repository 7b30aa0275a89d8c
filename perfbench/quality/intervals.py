"""Intervals and tests for shares and for paired differences. Pure functions over numbers.

wilson: one share. tango, newcombe: difference of two paired shares. mcnemar_p: exact test of the same. paired_means: difference of
two paired means (BCa bootstrap). Draws: bootstrap of statistics of the whole set (macro-F1, BLEU), as functions of sample weights,
over samples or over groups of them. n_to_decide: how many samples would settle a non-inferiority question.

Differences are `variant - base`. b counts the samples that only base passes, c those that only the variant passes, n all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 10_000
_SEED = 20251124
"""Bootstraps are repeatable: the same records give the same report."""
_CELLS = 5_000_000
"""Weights drawn at once: 40 MB."""


def normal_quantile(level: float) -> float:
    """z of a two-sided interval: 1.96 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def expanded(level: float, n: int) -> float:
    """The level at which a bootstrap of n units is read, so that it covers `level` (Hesterberg 2015, Am Stat 69:371-386, "expanded percentile").

    A bootstrap spreads by sqrt((n - 1) / n) too little and takes the normal distribution for Student's: of limits that 5% may lie beyond, 8% do at 12
    units and 6% at 24 (benchmarks/quality/decision.py). Indistinguishable from `level` at a few hundred.
    """
    from scipy.special import ndtr, stdtrit

    if n < 2:
        return level
    wider = float(2 * ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.5 + level / 2)) - 1)
    return min(wider, 1 - 2 / RESAMPLES)  # the outermost resamples: no more can be read from them


def wilson(passed: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for passed / n (Wilson 1927). (0, 1) for n = 0."""
    return wilson_share(passed / n, n, level) if n else (0.0, 1.0)


def wilson_share(share: float, n: float, level: float = 0.95) -> Interval:
    """The same for a share of so many independent trials, of which there may be a fraction."""
    z = normal_quantile(level)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def tango(b: int, c: int, n: int, level: float = 0.95) -> Interval:
    """Tango's score interval for the difference of two paired shares, (c - b) / n (Tango 1998, Stat Med 17:891-908).

    The limits are where the score statistic T(d) = (c - b - n d) / sqrt(n (2 q + d (1 - d))) is +z and -z; q is the share
    of `only base passes` that is most likely if the difference is d. With no discordant pair the limits are +-z^2 / (n + z^2).
    (-1, 1) for n = 0.
    """
    from scipy.optimize import brentq

    if n == 0:
        return -1.0, 1.0
    z = normal_quantile(level)
    difference = (c - b) / n
    edge = 1 - 1e-12

    def low(d: float) -> float:
        return _tango_score(d, b, c, n) - z

    def high(d: float) -> float:
        return _tango_score(d, b, c, n) + z

    lower = -1.0 if difference == -1 else float(brentq(low, -edge, difference, xtol=1e-12))
    upper = 1.0 if difference == 1 else float(brentq(high, difference, edge, xtol=1e-12))
    return lower, upper


def _tango_score(d: float, b: int, c: int, n: int) -> float:
    linear = -(b + c) + (2 * n - c + b) * d
    root = math.sqrt(max(0.0, linear * linear + 8 * n * b * d * (1 - d)))
    q = max(0.0, (root - linear) / (4 * n))
    variance = n * max(0.0, 2 * q + d * (1 - d))
    distance = c - b - n * d
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def newcombe(both: int, b: int, c: int, n: int, level: float = 0.95) -> Interval:
    """Newcombe's square-and-add interval for (c - b) / n (Newcombe 1998, Stat Med 17:2635-50, method 10). Not used to decide: it
    is the second opinion that the tests hold Tango's against. `both` counts the samples that both pass."""
    base, variant = (both + b) / n, (both + c) / n
    (base_low, base_high), (low, high) = wilson(both + b, n, level), wilson(both + c, n, level)
    phi = _newcombe_phi(both, b, c, n)
    difference = variant - base

    def spread(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))

    return difference - spread(variant - low, base_high - base), difference + spread(high - variant, base - base_low)


def _newcombe_phi(both: int, b: int, c: int, n: int) -> float:
    neither = n - both - b - c
    product = (both + b) * (c + neither) * (both + c) * (b + neither)
    if product == 0:
        return 0.0
    determinant = both * neither - b * c
    corrected = max(0.0, determinant - n / 2) if determinant > 0 else float(determinant)
    return corrected / math.sqrt(product)


def mcnemar_p(b: int, c: int) -> float:
    """Exact two-sided p that base and variant pass equally often (McNemar, binomial). p > 0.05 does not mean that they do."""
    from statsmodels.stats.contingency_tables import mcnemar

    return min(1.0, float(mcnemar([[0, b], [c, 0]], exact=True).pvalue))


def mean_interval(values: Array, level: float = 0.95) -> Interval:
    """BCa bootstrap interval of a mean (Efron 1987), `expanded` for few values, of scores in -1..1 or 0..1.

    Where all values are equal a bootstrap would claim certainty. Then the share of samples that may still differ is at most
    z^2 / (n + z^2), as in `tango` without a discordant pair, and each differs by at most 1.
    """
    from scipy.stats import bootstrap

    n, mean = len(values), float(np.mean(values)) if len(values) else 0.0
    if n < 2 or np.ptp(values) < 1e-12:
        z = normal_quantile(level)
        unseen = z * z / (n + z * z)
        return max(-1.0, mean - unseen), min(1.0, mean + unseen)
    result = bootstrap(
        (values,), np.mean, confidence_level=expanded(level, n), n_resamples=RESAMPLES, method="BCa", batch=max(1, _CELLS // n),
        rng=np.random.default_rng(_SEED),
    )  # fmt: skip
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return min(low, mean), max(high, mean)


class Draws:
    """A bootstrap of statistics of the whole set, drawn once; percentile intervals at any level, `expanded` for few units.

    `statistics` takes weights (resamples x n: how often each sample was drawn) and returns resamples x m; both variants of a pair are
    drawn together. With `clusters` (the group of every sample, 0, 1, ...) whole groups are drawn instead of samples: those of one group
    are not independent (cluster bootstrap). `values` are the m estimates themselves.
    """

    def __init__(self, statistics: Callable[[Array], Array], n: int, values: Array, clusters: Sequence[int] | None = None) -> None:
        random = np.random.default_rng(_SEED)
        size = max(1, _CELLS // max(1, n))
        units = n if clusters is None else max(clusters) + 1
        of_group = None if clusters is None else np.eye(units)[list(clusters)].T
        blocks = []
        for at in range(0, RESAMPLES, size):
            weights = _weights(random, min(size, RESAMPLES - at), units)
            blocks.append(statistics(weights if of_group is None else weights @ of_group))
        self._drawn = np.concatenate(blocks)
        self._values, self._units = values.tolist(), units

    def intervals(self, level: float = 0.95) -> list[Interval]:
        """One interval for each statistic. Where (nearly) every resample gives the same value it is widened as in `mean_interval`."""
        z = normal_quantile(level)
        unseen = z * z / (self._units + z * z)
        intervals: list[Interval] = []
        for column, value in zip(self._drawn.T, self._values, strict=True):
            read_at = expanded(level, self._units)
            low, high = np.quantile(column, [(1 - read_at) / 2, (1 + read_at) / 2])
            if high - low < 1e-12:
                low, high = max(-1.0, value - unseen), min(1.0, value + unseen)
            intervals.append((min(float(low), value), max(float(high), value)))
        return intervals

    def standard_errors(self) -> list[float]:
        """Standard deviation of each statistic over the resamples."""
        return [float(column.std()) for column in self._drawn.T]


def weighted_mean(values: Array) -> Callable[[Array], Array]:
    """The mean of per-sample values as a statistic for `Draws`."""

    def statistic(weights: Array) -> Array:
        total = weights.sum(axis=1)
        return np.asarray((weights @ values) / np.maximum(total, 1e-12))[:, None]

    return statistic


def clustered_standard_error(values: Array, clusters: Sequence[int]) -> float:
    """Standard error of a mean whose samples come in groups (Miller 2024, "Adding Error Bars to Evals", equation for clustered SE).

    sqrt(sum over groups of (sum of the group's deviations from the mean)^2) / n.
    """
    deviations = np.bincount(np.asarray(clusters), weights=values - values.mean())
    return float(math.sqrt(float((deviations**2).sum())) / len(values))


def _weights(random: np.random.Generator, resamples: int, n: int) -> Array:
    drawn = random.integers(0, n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)


def n_to_decide(difference: float, variance: float, margin: float) -> int | None:
    """Samples for 80% power to show `difference > -margin` (or that it is below) at one-sided alpha 0.05.

    (z(0.95) + z(0.80))^2 * variance / (difference + margin)^2, with the variance of one sample's difference; for paired shares that is
    b/n + c/n - difference^2, and without a true difference it is 6.18 * discordant / margin^2. Where no sample differs from another, as many as it takes
    until z^2 / (n + z^2), the share that may still be otherwise (`tango`, `mean_interval`), is less than the distance: 52 for a margin of 0.05.
    None where the difference lies on the margin, so that no number would do.
    """
    distance = difference + margin
    if abs(distance) < 1e-9:
        return None
    if variance < 1e-12:
        return max(1, math.ceil(normal_quantile(0.90) ** 2 * (1 / abs(distance) - 1)))
    factor = (normal_quantile(0.90) + normal_quantile(0.60)) ** 2
    return max(1, math.ceil(factor * variance / distance**2))


def share_variance(b: int, c: int, n: int) -> float:
    """Variance of one pair's difference."""
    return (b + c) / n - ((c - b) / n) ** 2


def as_floats(values: Any) -> Array:
    """A float array of any sequence of numbers."""
    return np.asarray(values, dtype=float)
