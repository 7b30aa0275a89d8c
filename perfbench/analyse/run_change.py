"""How far one statistic has moved from one run to another, with an interval that knows both runs' noise.

Both runs sent the same prompts in the same order, so rows are paired as in `compare`: requests by prompt and occurrence, windows by slice. Blocks of
neighbouring rows are drawn with replacement, the same ones for both runs, and the statistic is taken of each draw (`stats` gives reasons and sources);
repeats are clusters, whose disagreement comes on top. What another start of the servers changes is in no single run: the interval allows for it (`starts`),
also for the difference between one moment and another, in which it was measured.

A percentile's draws come from those of a share (Woodruff 1952): where x is the p-th percentile and a draw finds a share F of the values at or below x, the
draw's percentile is the (2p - F)-th one of the data. That needs one pass over the data however many draws there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from perfbench.analyse.starts import NO_STARTS, StartVariance
from perfbench.analyse.stats import (
    MIN_BLOCKS,
    MIN_PAIRED,
    REPLICATES,
    Z975,
    Drawn,
    Floats,
    block_count,
    block_length,
    over_repeats,
    percentile,
    student_t975,
)  # fmt: skip


@dataclass(frozen=True)
class Shift:
    """A change on one scale: its value, and how far off it may be (None: no interval)."""

    value: float
    drawn: Drawn | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95%."""
        if self.drawn is None:
            return None
        low, high = np.quantile(self.drawn.draws, [0.025, 0.975])
        return self.value + float(low), self.value + float(high)


@dataclass(frozen=True)
class Change:
    """baseline -> run in one statistic: the mean over repeats of each, and the difference on both scales."""

    baseline: float
    run: float
    difference: Shift
    relative: Shift | None
    """None where the baseline is 0."""
    n: int


def change(
    repeats: Sequence[tuple[Floats, Floats]], statistic: str, *, seed: int, turned: tuple[Callable[[Floats], Floats], ...] | None = None,
    starts: StartVariance = NO_STARTS, spans: float = 1.0,
) -> Change | None:  # fmt: skip
    """`repeats[r]` holds (baseline, run): paired rows of equal length in sending order. `statistic` is mean, p50, p90, p95 or p99.

    `turned` maps the statistic of baseline and run onto another scale, as a rate onto a price. `starts` is in shares of the baseline, `spans`
    as in `paired_interval`. None where a repeat has too few rows for the percentile, or where there are no rows; no interval below MIN_PAIRED rows or
    MIN_BLOCKS blocks.
    """
    rng = np.random.default_rng(seed)
    sides: list[tuple[float, float]] = []
    draws: list[tuple[Floats, Floats]] = []
    enough = True
    for baseline, run in repeats:
        if not len(baseline):
            continue
        blocks = _Blocks(len(baseline), rng, spans)
        found = [_statistic(values, statistic, blocks) for values in (baseline, run)]
        if found[0] is None or found[1] is None:
            return None
        first, second = turned or (_as_it_is, _as_it_is)
        (left, left_draws), (right, right_draws) = found[0], found[1]
        sides.append((float(first(np.array([left]))[0]), float(second(np.array([right]))[0])))
        draws.append((first(left_draws), second(right_draws)))
        enough = enough and len(baseline) >= MIN_PAIRED and blocks.count >= MIN_BLOCKS
    if not sides:
        return None
    n = sum(len(baseline) for baseline, _ in repeats)
    differences = [(right - left, right_draws - left_draws) for (left, right), (left_draws, right_draws) in zip(sides, draws, strict=True)]
    relative = None
    if all(left > 0 for left, _ in sides) and all(bool(np.all(left_draws > 0)) for left_draws, _ in draws):
        shares = [(right / left - 1, right_draws / left_draws - 1) for (left, right), (left_draws, right_draws) in zip(sides, draws, strict=True)]
        relative = _shift(shares, starts, rng, enough=enough)
    means = np.mean(sides, axis=0)
    difference = _shift(differences, starts.scaled(float(means[0])), rng, enough=enough)
    return Change(float(means[0]), float(means[1]), difference, relative, n)


def _as_it_is(values: Floats) -> Floats:
    return values


def _shift(found: Sequence[tuple[float, Floats]], starts: StartVariance, rng: np.random.Generator, *, enough: bool) -> Shift:
    values = np.array([value for value, _ in found])
    centre = float(values.mean())
    if not enough:
        return Shift(centre, None)
    deviations = np.stack([drawn - value for value, drawn in found])
    return Shift(centre, over_repeats(values, deviations, starts, rng))


class _Blocks:
    """Which blocks each draw takes of n rows: circular, of the length and widened for their number as in `stats.paired_interval`."""

    def __init__(self, n: int, rng: np.random.Generator, spans: float) -> None:
        self.length, self.count = block_length(n, spans), block_count(n, spans)
        # One block, of one or two rows, has no spread to widen; there is no interval for so few rows anyway.
        self.widen = student_t975(self.count - 1) / Z975 * math.sqrt(self.count / (self.count - 1)) if self.count > 1 else 1.0
        self.starts = rng.integers(0, n, (REPLICATES, self.count))

    def deviations(self, values: Floats) -> Floats:
        """Draws of the mean, less the mean."""
        centred = values - values.mean()
        ring = np.concatenate([[0.0], np.cumsum(np.concatenate([centred, centred[: self.length - 1]]))])
        sums = ring[self.length :] - ring[: -self.length]
        return np.asarray(sums[self.starts].sum(axis=1) / (self.count * self.length) * self.widen)


def _statistic(values: Floats, statistic: str, blocks: _Blocks) -> tuple[float, Floats] | None:
    """The statistic and its draws; None where there are too few values for the percentile."""
    if statistic == "mean":
        mean = float(values.mean())
        return mean, mean + blocks.deviations(values)
    percent = float(statistic.removeprefix("p"))
    value = percentile(values, percent)
    if value is None:
        return None
    ordered = np.sort(values)
    levels = percent / 100 - blocks.deviations((values <= value).astype(np.float64))
    places = np.clip(np.ceil(levels * len(ordered) - 1e-9).astype(np.int64) - 1, 0, len(ordered) - 1)
    return value, ordered[places]
