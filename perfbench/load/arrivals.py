"""When requests of an open-loop stage are sent: pure, seeded, absolute, computed before the stage starts.

A schedule is an array of offsets from the start of the warm-up. It depends on the stage and the seed alone, so every variant of a
run gets the same arrivals. Each arrival process is named for its true distribution; tests hold it against that (Kolmogorov-Smirnov).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from perfbench.scenario.model import Stage

_NS_PER_S = 1_000_000_000


def schedule(stage: Stage, seed: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """Arrival times in ns after the start of the warm-up, ascending, all below `warmup_s + duration_s`.

    `seed` feeds numpy's SeedSequence: give (load seed, stage number, repeat) to make stages and repeats independent.
    Raises ValueError for a closed stage: it sends when a response has ended, so it has no schedule.
    """
    if stage.rate_per_s is None:
        raise ValueError(f"stage `{stage.name}` with arrival `{stage.arrival}` has no schedule")
    length_s = stage.warmup_s + stage.duration_s
    if stage.arrival == "constant":
        offsets_s = _constant(stage.rate_per_s, length_s)
    else:
        offsets_s = _poisson(stage.rate_per_s, length_s, np.random.default_rng(np.random.SeedSequence(seed)))
    offsets_ns = np.floor(offsets_s * _NS_PER_S).astype(np.int64)
    return offsets_ns[offsets_ns < round(length_s * _NS_PER_S)]


def _constant(rate_per_s: float, length_s: float) -> npt.NDArray[np.float64]:
    """Arrival k at k / rate, the first at 0."""
    return np.arange(np.ceil(rate_per_s * length_s), dtype=np.float64) / rate_per_s


def _poisson(rate_per_s: float, length_s: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """A homogeneous Poisson process: independent exponential gaps with mean 1 / rate, the first one counted from 0."""
    expected = rate_per_s * length_s
    draws = int(expected + 4 * np.sqrt(expected)) + 16
    arrivals = np.cumsum(random.exponential(1 / rate_per_s, draws))
    while arrivals[-1] < length_s:
        more = arrivals[-1] + np.cumsum(random.exponential(1 / rate_per_s, draws))
        arrivals = np.concatenate([arrivals, more])
    return arrivals[arrivals < length_s]
