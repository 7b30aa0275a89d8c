"""How sure a mean over repeats is: 95%, each repeat a cluster.

A repeat's figure is off by what its own requests leave open, v, which its interval tells, and by what changes from one repeat to the next, tau: another start
of the server, another mood of the machine. The variance of the mean of R is (v + tau^2) / R. The repeats' own spread alone tells tau badly: for two of
them Student's t has one degree of freedom, and an interval of 6.4 times their distance to either side. It is the meta-analysis of two studies, and its
remedy is taken from there: a weakly informative prior for tau (Friede, Roever, Wandel & Neuenschwander 2017, "Meta-analysis of two studies in the presence of
heterogeneity", Biometrical Journal 59; Gelman 2006, "Prior distributions for variance parameters"):

    tau ~ half-Student-t with PRIOR_DEGREES on the scale of what repeats usually differ by (`starts.repeat_sd`)
    v   ~ scaled inverse chi-squared about the mean square of the repeats' own errors, R (batches - 1) degrees of freedom
    mean ~ flat; the repeats' spread is the likelihood

The interval is the middle 95% of the mean, over a grid of tau and v. Repeats that agree are as sure as the prior lets them be; those that are further
apart than it allows outweigh it, since its tail is long: two far apart give 0.69 of their distance to either side (Student's t with R - 1 + PRIOR_DEGREES).
Nothing is switched, so that one hair's breadth more never doubles an interval.

Positive figures (times, rates, prices) are taken on the logarithm: no end below 0. Each end has the v of its own side, as skewed as the repeats' own
intervals are. PRIOR_DEGREES by simulation (benchmarks/statistics): with 2, two repeats that differ as usual held the mean in 98% and not 97%; with 4, those
that differ twice as much in 85% and not 87%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from perfbench.analyse.stats import NO_INTERVAL, Floats, Interval, student_t975

PRIOR_DEGREES = 3.0
TAUS, INNERS = 40, 8
"""Points of the grid: within 1% of a fine one."""
WITHOUT_OWN = 3
"""Repeats without an interval of their own are independent all the same: so many carry one."""


def over_repeats(values: Sequence[float], intervals: Sequence[Interval], *, usual: float, batches: int) -> Interval:
    """95% interval of the mean over repeats; one repeat keeps its own.

    `usual` is what repeats of the figure differ by (standard deviation, as a share of it), `batches` what their own intervals rest on. Where not every one has
    an interval, Student's t of WITHOUT_OWN repeats or more.
    """
    count = len(values)
    if count == 0 or (count < WITHOUT_OWN and None in [end for one in intervals for end in one]):
        return NO_INTERVAL
    if count == 1:
        return intervals[0]
    centre = float(np.mean(values))
    own = [(low, high) for low, high in intervals if low is not None and high is not None]
    positive = min(values) > 0 and all(low > 0 for low, _ in own)
    scale = 1.0 if positive else float(np.mean(np.abs(values)))
    placed = np.log(values) if positive else np.asarray(values, dtype=np.float64)
    spread = float(np.std(placed, ddof=1)) if min(values) < max(values) else 0.0
    if len(own) < count:
        down = up = student_t975(count - 1) * spread / math.sqrt(count)
    else:
        ends = np.log(own) if positive else np.array(own)
        down, up = (
            _half(spread, float(np.mean(np.square(side))) / student_t975(batches - 1) ** 2, usual * scale, count=count, degrees=count * (batches - 1.0))
            for side in (placed - ends[:, 0], ends[:, 1] - placed)
        )
    if positive:
        return Interval(centre * math.exp(-down), centre * math.exp(up))
    # What is never below 0, and is 0 in some repeat, is not below it on the mean.
    return Interval(max(0.0, centre - down) if min([*values, *(low for low, _ in own)]) >= 0 else centre - down, centre + up)


def _half(spread: float, inner: float, usual: float, *, count: int, degrees: float) -> float:
    """Half of the middle 95% of the mean of `count` repeats, `inner` being the variance inside one and `spread` their standard deviation."""
    from scipy.special import ndtr

    if spread == 0 and inner == 0:
        return 0.0
    variances, weights = _posterior(spread, inner, usual, count=count, degrees=degrees)
    errors = np.sqrt(variances / count)
    low, high = 0.0, 40.0 * float(errors.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(weights @ ndtr(middle / errors)) < 0.975 else (low, middle)
    return high


def _posterior(spread: float, inner: float, usual: float, *, count: int, degrees: float) -> tuple[Floats, Floats]:
    """Variance of one repeat, and the probability of each, over the grid."""
    from scipy.special import chdtri

    # Evenly on the logarithm, so that a point's weight is the density times tau.
    taus = np.geomspace(1e-3 * usual, 1e2 * max(usual, spread, math.sqrt(inner)), TAUS) if usual > 0 else np.zeros(1)
    prior = taus * (1 + (taus / usual) ** 2 / PRIOR_DEGREES) ** (-(PRIOR_DEGREES + 1) / 2) if usual > 0 else np.ones(1)
    inners = inner * degrees / chdtri(degrees, (np.arange(INNERS) + 0.5) / INNERS)
    variances = inners[:, None] + taus**2
    likelihood = -(count - 1) / 2 * (np.log(variances) + spread**2 / variances)
    weights = (prior * np.exp(likelihood - likelihood.max())).ravel()
    return variances.ravel(), weights / weights.sum()
