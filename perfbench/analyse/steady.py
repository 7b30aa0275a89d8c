"""Is a measured window in a steady state, and which part of it is?

As specified in mlcommons/endpoints (docs/steady-state-detection.md), on slices of time instead of passes over a data set:

- Series: p50 and p95 of the time per output token by slice, and in open loop the mean number in flight. A latency that queues (TTFT) is no gate: it
  moves with prompts and waiting even in a steady state. In closed loop the number in flight is constant by design.
- A stretch of slices is admissible when no series has a trend in it (Mann-Kendall with Hamed & Rao's correction, and a change large enough to matter: a
  test on many slices finds any creep), and each varies little: its coefficient of variation is within COV, or within twice what the same requests show in
  random order, since a slice's percentile of few requests is noisy by itself.
- The whole window is taken where it is admissible. Else it is cut into plateaus, each grown until it is not, and the first is the steady state: what
  comes after a step is usually degradation. What is cut, and a level shift (Pettitt's test), is said.
- Over-saturation, in open loop: the number in flight and the TTFT both grow over the window, by more than arrivals explain by chance.

"No steady state" is an answer, and so is "too short to tell": below MIN_SLICES slices of SLICE_REQUESTS requests a trend cannot be told from chance, and a
window shorter than RELAXATIONS times the p99 of a request's whole time has not seen a queue settle (their T_relaxation). Their floor of 600 s is for
submissions, and is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from perfbench.analyse.metrics import NS_PER_S
from perfbench.analyse.stats import Floats, percentile
from perfbench.analyse.trend import mann_kendall, pettitt
from perfbench.analyse.window import scheduled_in_window, window_s
from perfbench.records import SteadySeries, SteadyState, TrialOutcome
from perfbench.scenario.model import Stage

STATIONARY = ("closed", "constant", "poisson", "gamma")
"""Arrivals that are meant to bring the same load all the time."""
SLICE_REQUESTS = 20
"""A p95 needs 20."""
MIN_SLICES, MAX_SLICES = 8, 30
"""Of 8 values in random order one in 20,000 rises all the way; more than 30 slices make single requests visible, not the state."""
MIN_SHARE = 0.5
"""Of the window: a slow drift stands still for some slices, but what is called steady must be most of what was driven."""
RELAXATIONS = 5.0
ALPHA = 0.01
"""Of each trend test: three series are tested on many stretches, so 0.05 would call a steady window unsteady too often (benchmarks/statistics)."""
CHANGE = {"tpot_p50_s": 0.05, "tpot_p95_s": 0.10, "in_flight": 0.50}
"""Over a stretch, of the median. 5% is what mlcommons calibrated; a p95 of 20 requests and a queue's length move more than that by chance."""
COV = {"tpot_p50_s": 0.08, "tpot_p95_s": 0.15, "in_flight": 1.0}
"""0.08 is the widest of mlcommons' ensemble. A queue in steady state varies by its own mean (the geometric law of M/M/1)."""
GROWTH_SIGMAS = 4.0
"""Over-saturated when the number in flight grows by more than so many standard deviations, sqrt(arrivals), of what chance brings to a queue at capacity."""
GATES = ("tpot_p50_s", "tpot_p95_s", "in_flight")
_SHUFFLES = 20


@dataclass(frozen=True)
class _Sliced:
    """The window in equal slices; every series has one value a slice."""

    seconds: float
    series: dict[str, Floats]
    noise: dict[str, float]
    """CoV of the same series where requests are put in random order; 0 for the number in flight."""
    arrivals: int

    @property
    def count(self) -> int:
        return len(self.series["in_flight"])

    def gates(self) -> Iterator[tuple[str, Floats]]:
        return ((name, self.series[name]) for name in GATES if name in self.series)


def steady_state(stage: Stage, outcome: TrialOutcome, requests: pl.DataFrame) -> SteadyState:
    """What can be said of one trial; see the module. `requests` holds all of its requests, warm-up included."""
    if outcome.stopped_early is not None:
        return SteadyState(verdict="over-saturated", sentence=outcome.stopped_early)
    if stage.arrival not in STATIONARY:
        sentence = f"not stationary by design: the load of arrival `{stage.arrival}` changes over the window"
        return SteadyState(verdict="not stationary by design", sentence=sentence)
    measured = requests.filter(scheduled_in_window(outcome))
    if len(measured) < MIN_SLICES * SLICE_REQUESTS:
        return _cannot_tell(f"{len(measured)} requests are too few to tell whether there is a steady state; it takes {MIN_SLICES * SLICE_REQUESTS}")
    closed = stage.arrival == "closed"
    sliced = _slices(outcome, requests, measured, closed=closed)
    if not closed and (grown := _over_saturation(sliced)) is not None:
        return _answer("over-saturated", grown, sliced, 0, sliced.count)
    whole = percentile(measured["e2e_s"].drop_nulls().to_numpy(), 99)
    if whole is not None and window_s(outcome) < RELAXATIONS * whole:
        return _cannot_tell(
            f"the window of {window_s(outcome):.3g} s is too short to tell whether there is a steady state: less than {RELAXATIONS:g} times the p99 of a whole "
            f"request, {whole:.3g} s"
        )
    if closed and "tpot_p50_s" not in sliced.series:
        return _cannot_tell("too few answers have a time per token to tell whether there is a steady state")
    return _plateau(sliced)


def _cannot_tell(sentence: str) -> SteadyState:
    return SteadyState(verdict="cannot tell", sentence=sentence)


def kept(outcome: TrialOutcome, steady: SteadyState) -> TrialOutcome:
    """The trial's outcome with its measured window cut to the steady part; as it is where nothing is cut."""
    if steady.kept_from_s is None or steady.kept_until_s is None or not steady.cut_s:
        return outcome
    start = outcome.measure_from_ns
    return msgspec.structs.replace(
        outcome, measure_from_ns=start + round(steady.kept_from_s * NS_PER_S), measure_until_ns=start + round(steady.kept_until_s * NS_PER_S)
    )


def _slices(outcome: TrialOutcome, requests: pl.DataFrame, measured: pl.DataFrame, *, closed: bool) -> _Sliced:
    count = min(MAX_SLICES, len(measured) // SLICE_REQUESTS)
    seconds = window_s(outcome) / count
    due_s = (measured["scheduled_ns"].to_numpy() - outcome.measure_from_ns) / NS_PER_S
    place = np.minimum((due_s / seconds).astype(np.int64), count - 1)
    queue = _in_flight(outcome, requests, count)
    series = {"in_flight": np.full(count, queue.mean()) if closed else queue}  # what a closed loop varies by is thinking and the gap between two requests
    noise = {"in_flight": 0.0}
    tpot = measured["tpot_s"].to_numpy()
    known = np.isfinite(tpot)
    if np.all(np.bincount(place[known], minlength=count) >= SLICE_REQUESTS // 4):
        for percent in (50, 95):
            name = f"tpot_p{percent}_s"
            series[name] = _by_slice(tpot[known], place[known], count, percent)
            noise[name] = _noise(tpot[known], place[known], count, percent)
    ttft = measured["ttft_scheduled_s"].to_numpy()
    answered = np.isfinite(ttft)
    if np.all(np.bincount(place[answered], minlength=count) >= 1):
        series["ttft_p50_s"] = _by_slice(ttft[answered], place[answered], count, 50)
    return _Sliced(seconds, series, noise, len(measured))


def _by_slice(values: Floats, place: np.ndarray[tuple[int], np.dtype[np.int64]], count: int, percent: int) -> Floats:
    return np.array([float(np.quantile(values[place == number], percent / 100, method="inverted_cdf")) for number in range(count)])


def _noise(values: Floats, place: np.ndarray[tuple[int], np.dtype[np.int64]], count: int, percent: int) -> float:
    rng = np.random.default_rng(0)
    return float(np.median([_cov(_by_slice(rng.permutation(values), place, count, percent)) for _ in range(_SHUFFLES)]))


def _in_flight(outcome: TrialOutcome, requests: pl.DataFrame, count: int) -> Floats:
    """Mean number in flight by slice: the time that requests spend in it, from when they are due to their end."""
    edges = np.linspace(outcome.measure_from_ns, outcome.measure_until_ns, count + 1)
    due, ended = requests["scheduled_ns"].to_numpy(), requests["end_ns"].to_numpy()
    # The integral of the number in flight up to t is what has begun by t less what has ended by then.
    begun = np.array([np.clip(edge - due, 0, None).sum() for edge in edges])
    over = np.array([np.clip(edge - ended, 0, None).sum() for edge in edges])
    return np.diff(begun - over) / np.diff(edges)


def _cov(series: Floats) -> float:
    mean = float(series.mean())
    return float(series.std(ddof=1)) / mean if mean else 0.0


def _over_saturation(sliced: _Sliced) -> str | None:
    queue, first = sliced.series["in_flight"], sliced.series.get("ttft_p50_s")
    grown = float(queue[-1] - queue[0])
    if grown <= GROWTH_SIGMAS * np.sqrt(sliced.arrivals) or mann_kendall(queue).p_value >= ALPHA:
        return None
    if first is not None and not (mann_kendall(first).p_value < ALPHA and first[-1] > first[0]):
        return None
    latency = f", and the TTFT (p50) from {first[0]:.3g} s to {first[-1]:.3g} s" if first is not None else ", and requests due in part of it had no answer"
    grew = f"requests in flight grew from {queue[0]:.3g} to {queue[-1]:.3g} over the window{latency}"
    return f"over-saturated: {grew}; the server cannot keep up with this rate, so its latencies are those of a window this long"


def _plateau(sliced: _Sliced) -> SteadyState:
    if not _faults(sliced, 0, sliced.count):
        return _answer("steady", _steady_sentence(sliced, 0, sliced.count), sliced, 0, sliced.count)
    for first in range(sliced.count - MIN_SLICES + 1):
        if not _faults(sliced, first, first + MIN_SLICES):
            # The longest of those that begin here or a little later: the first may still hold the end of a ramp, and break by it.
            low, high = max((_grown(sliced, low) for low in range(first, first + MIN_SLICES)), key=lambda plateau: plateau[1] - plateau[0])
            if high - low < MIN_SHARE * sliced.count:
                break
            return _answer("steady", _steady_sentence(sliced, low, high), sliced, low, high)
    faults = _faults(sliced, 0, sliced.count)
    return _answer("no steady state", f"no steady state: over the window {'; '.join(faults)}", sliced, 0, sliced.count)


def _grown(sliced: _Sliced, low: int) -> tuple[int, int]:
    """The stretch from `low` to where it is no longer admissible; empty where MIN_SLICES are not."""
    high = low + MIN_SLICES
    if high > sliced.count or _faults(sliced, low, high):
        return low, low
    while high < sliced.count and not _faults(sliced, low, high + 1):
        high += 1
    return low, high


def _faults(sliced: _Sliced, low: int, high: int) -> list[str]:
    """Why a stretch of slices is not admissible, in words; empty where it is."""
    found = []
    for name, series in sliced.gates():
        part = series[low:high]
        trend, spread = mann_kendall(part), _cov(part)
        if trend.p_value < ALPHA and abs(trend.change) >= CHANGE[name]:
            found.append(f"{_LABELS[name]} {'rises' if trend.change > 0 else 'falls'} by {abs(trend.change):.0%} (p = {trend.p_value:.2g})")
        elif spread > max(COV[name], 2 * sliced.noise[name]):
            found.append(f"{_LABELS[name]} varies by {spread:.0%} from slice to slice")
    return found


_LABELS = {"tpot_p50_s": "the TPOT's p50", "tpot_p95_s": "the TPOT's p95", "in_flight": "the number in flight"}


def _steady_sentence(sliced: _Sliced, low: int, high: int) -> str:
    whole = sliced.count * sliced.seconds
    if (low, high) == (0, sliced.count):
        return f"steady over the whole window of {whole:.3g} s, {sliced.count} slices"
    said = f"steady from {low * sliced.seconds:.3g} s to {high * sliced.seconds:.3g} s of the window of {whole:.3g} s; the rest is cut: in all of it "
    return said + "; ".join(_faults(sliced, 0, sliced.count))


def _answer(verdict: str, sentence: str, sliced: _Sliced, low: int, high: int) -> SteadyState:
    told = dict(sliced.gates()) | {name: sliced.series[name] for name in ("ttft_p50_s",) if name in sliced.series}
    return SteadyState(
        verdict=verdict,  # type: ignore[arg-type]  # one of the literals, from this module alone
        sentence=sentence,
        slices=sliced.count,
        slice_s=sliced.seconds,
        kept_from_s=low * sliced.seconds,
        kept_until_s=high * sliced.seconds,
        cut_s=(sliced.count - high + low) * sliced.seconds,
        level_shift=_level_shift(sliced),
        series={name: _described(values, values[low:high]) for name, values in told.items()},
    )


def _described(values: Floats, part: Floats) -> SteadySeries:
    trend = mann_kendall(part)
    return SteadySeries(values=values.tolist(), trend_p=trend.p_value, change=trend.change, cov=_cov(part))


def _level_shift(sliced: _Sliced) -> str | None:
    """Where the TPOT's p50 steps from one level to another over the window; None where it does not."""
    series = sliced.series.get("tpot_p50_s")
    if series is None:
        return None
    step = pettitt(series)
    if step.p_value >= ALPHA or abs(step.change) < CHANGE["tpot_p50_s"]:
        return None
    return f"the TPOT's p50 steps by {step.change:+.0%} {step.at * sliced.seconds:.3g} s into the window (p = {step.p_value:.2g})"
