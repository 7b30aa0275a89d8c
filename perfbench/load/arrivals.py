"""When requests of an open-loop stage are sent: pure, seeded, absolute, computed before the stage starts.

A schedule is an array of offsets from the start of the warm-up. It depends on the stage and the seed alone, so every variant of a run gets the same
arrivals. Each arrival is named for its true distribution, and tests hold it against that (Kolmogorov-Smirnov):

    constant                          arrival k at k / rate, without chance
    poisson                           homogeneous Poisson process
    gamma                             renewal process, gaps Gamma(shape = burstiness, mean = 1 / rate)
    ramp, step, spike, sine           Poisson process with the rate r(t) that the stage describes

A Poisson process with rate r(t) is made exactly, by inversion: if E1 < E2 < ... is a Poisson process with rate 1, then so are the times t with
R(t) = Ek one with rate r, where R(t) is the integral of r from 0 to t (Cinlar, Introduction to Stochastic Processes, 1975). `trace` stages
take their times from a file: see `traces`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from perfbench.scenario.model import Stage

Floats: TypeAlias = npt.NDArray[np.float64]

_NS_PER_S = 1_000_000_000
_HALVINGS = 64
"""Of the interval that holds a sine arrival: enough for a double's whole mantissa."""


def schedule(stage: Stage, seed: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """Arrival times in ns after the start of the warm-up, ascending, all below `warmup_s + duration_s`.

    `seed` feeds numpy's SeedSequence: give (load seed, stage number, repeat) to make stages and repeats independent.
    Raises ValueError for a closed stage, which sends when a response has ended, and for a trace stage, whose times are in its file.
    """
    if stage.rate_per_s is None:
        raise ValueError(f"stage `{stage.name}` with arrival `{stage.arrival}` has no schedule of its own")
    if stage.requests is not None:
        return _counted(stage, seed)[0]
    length_s = stage.warmup_s + stage.duration_s
    random = np.random.default_rng(np.random.SeedSequence(seed))
    if stage.arrival == "constant":
        offsets_s = _constant(stage.rate_per_s, length_s)
    elif stage.arrival == "gamma":
        assert stage.burstiness is not None
        offsets_s = _gamma(stage.rate_per_s, stage.burstiness, length_s, random)
    elif stage.arrival == "sine":
        offsets_s = _sine(stage, random)
    else:
        offsets_s = _linear_pieces(_pieces(stage), random)
    return nanoseconds(offsets_s, length_s)


def window_ns(stage: Stage, seed: int | Sequence[int]) -> int:
    """Length of the measured window of an open-loop stage: `duration_s`, or, where `requests` are counted, until the one after them would be due."""
    return round(stage.duration_s * _NS_PER_S) if stage.requests is None else _counted(stage, seed)[1]


def _counted(stage: Stage, seed: int | Sequence[int]) -> tuple[npt.NDArray[np.int64], int]:
    """(schedule with exactly `requests` arrivals in the window, length of the window). A longer schedule with the same seed begins with the shorter one."""
    assert stage.requests is not None
    assert stage.rate_per_s is not None
    warmup_ns = round(stage.warmup_s * _NS_PER_S)
    duration_s = (stage.requests + 16) / stage.rate_per_s
    while True:
        duration_s *= 1.25
        offsets_ns = schedule(stage.model_copy(update={"requests": None, "duration_s": duration_s}), seed)
        end = int(np.searchsorted(offsets_ns, warmup_ns)) + stage.requests
        if end < len(offsets_ns):
            return offsets_ns[:end], int(offsets_ns[end]) - warmup_ns


def nanoseconds(offsets_s: Floats, length_s: float) -> npt.NDArray[np.int64]:
    """Offsets in whole ns, without those at or after the end of the stage."""
    offsets_ns = np.floor(offsets_s * _NS_PER_S).astype(np.int64)
    return offsets_ns[offsets_ns < round(length_s * _NS_PER_S)]


def _constant(rate_per_s: float, length_s: float) -> Floats:
    """Arrival k at k / rate, the first at 0."""
    return np.arange(np.ceil(rate_per_s * length_s), dtype=np.float64) / rate_per_s


def _gamma(rate_per_s: float, burstiness: float, length_s: float, random: np.random.Generator) -> Floats:
    """A renewal process: independent gaps, Gamma with shape `burstiness` and mean 1 / rate, the first one counted from 0."""
    expected = rate_per_s * length_s
    draws = int(expected + 4 * np.sqrt(expected / burstiness)) + 16
    scale = 1 / (rate_per_s * burstiness)
    arrivals = np.cumsum(random.gamma(burstiness, scale, min(draws, 1 << 20)))
    while arrivals[-1] < length_s:
        arrivals = np.concatenate([arrivals, arrivals[-1] + np.cumsum(random.gamma(burstiness, scale, 1024))])
    return arrivals[arrivals < length_s]


def _unit_rate_process(until: float, random: np.random.Generator) -> Floats:
    """A Poisson process with rate 1 on [0, until): independent exponential gaps with mean 1."""
    draws = int(until + 4 * np.sqrt(until)) + 16
    arrivals = np.cumsum(random.standard_exponential(draws))
    while arrivals[-1] < until:
        arrivals = np.concatenate([arrivals, arrivals[-1] + np.cumsum(random.standard_exponential(draws))])
    return arrivals[arrivals < until]


class _Piece(NamedTuple):
    """A stretch of time over which the rate goes from one value to another in a straight line."""

    length_s: float
    from_rate: float
    to_rate: float

    @property
    def expected(self) -> float:
        """Arrivals: the integral of the rate."""
        return self.length_s * (self.from_rate + self.to_rate) / 2


def _pieces(stage: Stage) -> list[_Piece]:
    """The rate of a Poisson, ramp, step or spike stage over warm-up and window."""
    rate, to_rate, window_s = stage.rate_per_s, stage.to_rate_per_s, stage.duration_s
    assert rate is not None
    warmup = _Piece(stage.warmup_s, rate, rate)
    if stage.arrival == "poisson":
        return [warmup, _Piece(window_s, rate, rate)]
    assert to_rate is not None
    if stage.arrival == "ramp":
        return [warmup, _Piece(window_s, rate, to_rate)]
    if stage.arrival == "step":
        assert stage.steps is not None
        return [warmup, *(_Piece(window_s / stage.steps, level, level) for level in np.linspace(rate, to_rate, stage.steps).tolist())]
    assert stage.spike_at_s is not None
    assert stage.spike_s is not None
    after_s = window_s - stage.spike_at_s - stage.spike_s
    return [warmup, _Piece(stage.spike_at_s, rate, rate), _Piece(stage.spike_s, to_rate, to_rate), _Piece(after_s, rate, rate)]


def _linear_pieces(pieces: Sequence[_Piece], random: np.random.Generator) -> Floats:
    """Times t with R(t) = E: R is a parabola in each piece, so t is the root of a quadratic equation."""
    totals = np.concatenate([[0.0], np.cumsum([piece.expected for piece in pieces])])
    starts_s = np.concatenate([[0.0], np.cumsum([piece.length_s for piece in pieces])])
    unit = _unit_rate_process(float(totals[-1]), random)
    parts = []
    for piece, start_s, total, following in zip(pieces, starts_s[:-1], totals[:-1], totals[1:], strict=True):
        if following > total:
            rest = unit[(unit >= total) & (unit < following)] - total
            slope = (piece.to_rate - piece.from_rate) / piece.length_s
            # from_rate t + slope t^2 / 2 = rest, solved in the form that neither cancels nor divides by a slope of 0.
            parts.append(start_s + 2 * rest / (piece.from_rate + np.sqrt(np.maximum(0.0, piece.from_rate**2 + 2 * slope * rest))))
    return np.concatenate(parts)


def _sine(stage: Stage, random: np.random.Generator) -> Floats:
    """Warm-up at the mean rate m, then r(t) = m (1 + a sin(w t)), so R(t) = m (t + a (1 - cos(w t)) / w). That has no inverse in closed form: bisection.

    R(t) / m lies between t and t + 2 a / w, so the t that belongs to E lies in [E / m - 2 a / w, E / m].
    """
    assert stage.rate_per_s is not None
    assert stage.amplitude is not None
    assert stage.period_s is not None
    omega = 2 * np.pi / stage.period_s
    swing_s = stage.amplitude / omega
    length = stage.duration_s + swing_s * (1 - np.cos(omega * stage.duration_s))
    unit_s = _unit_rate_process(stage.rate_per_s * (stage.warmup_s + length), random) / stage.rate_per_s
    warmup, wanted = unit_s[unit_s < stage.warmup_s], unit_s[unit_s >= stage.warmup_s] - stage.warmup_s
    low, high = np.maximum(0.0, wanted - 2 * swing_s), wanted.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        before = middle + swing_s * (1 - np.cos(omega * middle)) < wanted
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return np.concatenate([warmup, stage.warmup_s + high])
