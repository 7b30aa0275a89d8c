"""Does a short series drift, or does it step? Two rank tests, which do not care how the values are distributed.

- `mann_kendall`: is there a monotone trend (Mann 1945, Kendall 1975), with the variance corrected for neighbours that are alike (Hamed & Rao 1998, "A modified
  Mann-Kendall trend test for autocorrelated data", J. Hydrology 204); the correction may widen, never narrow. The slope is Sen's (1968).
- `pettitt`: is there one step, and where (Pettitt 1979, Applied Statistics 28).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from perfbench.analyse.stats import Z975, Floats


class Trend(NamedTuple):
    """`p_value` is two-sided; `change` is Sen's slope over the whole series, as a share of its median (0 where that is 0)."""

    p_value: float
    change: float


class Step(NamedTuple):
    """`at` is the first value after the step; `change` the difference of the medians after and before it, as a share of that before."""

    p_value: float
    at: int
    change: float


def mann_kendall(series: Floats) -> Trend:
    """Of a series in time order. A constant one has p = 1; fewer than 4 values cannot show a trend and have p = 1 too."""
    n = len(series)
    if n < 4 or np.ptp(series) == 0:
        return Trend(1.0, 0.0)
    earlier, later = np.triu_indices(n, 1)
    differences = series[later] - series[earlier]
    score = float(np.sign(differences).sum())
    _, ties = np.unique(series, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    slope = float(np.median(differences / (later - earlier)))
    variance *= _correction(series - slope * np.arange(n))
    z = (score - math.copysign(1.0, score)) / math.sqrt(variance) if score else 0.0
    middle = float(np.median(series))
    return Trend(math.erfc(abs(z) / math.sqrt(2)), slope * (n - 1) / middle if middle else 0.0)


def _correction(detrended: Floats) -> float:
    """n / n* of Hamed & Rao, from the significant autocorrelations of the ranks; at least 1."""
    from scipy.stats import rankdata

    n = len(detrended)
    ranks = rankdata(detrended) - (n + 1) / 2
    power = float(np.sum(ranks**2))
    if power == 0:
        return 1.0
    lags = np.arange(1, n)
    correlations = np.array([float(np.sum(ranks[lag:] * ranks[:-lag])) for lag in lags]) / power
    correlations[np.abs(correlations) <= Z975 / math.sqrt(n)] = 0.0
    weights = (n - lags) * (n - lags - 1) * (n - lags - 2)
    return max(1.0, 1 + 2 / (n * (n - 1) * (n - 2)) * float(np.sum(weights * correlations)))


def pettitt(series: Floats) -> Step:
    """The most likely single step. p is Pettitt's approximation, at most 1."""
    n = len(series)
    if n < 4 or np.ptp(series) == 0:
        return Step(1.0, n, 0.0)
    signs = np.sign(series[:, None] - series[None, :])
    scores = np.abs([signs[:cut, cut:].sum() for cut in range(1, n)])
    at = int(scores.argmax()) + 1
    p_value = min(1.0, 2 * math.exp(-6 * float(scores.max()) ** 2 / (n**3 + n**2)))
    before, after = float(np.median(series[:at])), float(np.median(series[at:]))
    return Step(p_value, at, after / before - 1 if before else 0.0)
