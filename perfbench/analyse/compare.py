"""Variants against each other, paired: difference = right - left, on the same prompts at the same arrival times.

Latencies, in open loop from the scheduled time, are paired by (repeat, prompt, occurrence): both variants answered that very request. A prompt that a trial
sends several times gives one difference, the mean of its own; `stats.paired_interval` then resamples prompts and repeats. Rates have no prompts: each window
is cut into equal slices, slices are paired by their place in the window, and are resampled as prompts are; an answer is spread over the time that it took.
Rates are compared in closed loop only: in open loop the schedule sets them. What another start of the servers would change is part of each interval (`starts`).

Memory is compared once for the run, by `memory_differences`. Trials that the audit calls void, and the trials they would have been paired with, are left out.
Of a difference in e2e_s or in a rate, `answer_length` says how much comes from answers of another length.

Verdicts, always of `right`: `same` when the whole interval lies within SAME_MARGIN of the left mean; `better` or `worse` when the interval leaves out 0
and the p-value, adjusted by Holm over all comparisons of the run, is below 0.05; else `cannot tell`. `same` comes first: a difference that is certain
but smaller than the margin is no reason to choose. Where it cannot tell, `pairs_to_decide` says how many pairs would.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import polars as pl

from perfbench.analyse.answer_length import closed_loop, e2e_from_length, rate_from_length
from perfbench.analyse.experiment import Experiment
from perfbench.analyse.memory_differences import MemoryReadings, few_paired
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.slo import good, judgeable
from perfbench.analyse.starts import MEMORY_SD, NO_STARTS, StartVariance, start_sd, start_variance, starts_seen
from perfbench.analyse.stats import Floats, PairedDifference, holm, paired_interval, time_variance
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import ended_in_window, window_s
from perfbench.records import Comparison, Estimate

SAME_MARGIN = 0.02
"""2% of the left variant's mean: a difference that decides nothing, neither for a user nor on a bill."""
ALPHA = 0.05
LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
OPEN_LATENCIES = ("ttft_scheduled_s", "tpot_s", "e2e_scheduled_s")
"""Of open loops: from the scheduled time, so that waiting in the client is not hidden (DESIGN 5)."""
_WHOLE = ("e2e_s", "e2e_scheduled_s")
RATES = ("requests_per_s", "output_tokens_per_s", "goodput_per_s")
SLICES = 24
"""Per window: enough blocks to resample, few enough that each holds several requests."""

POWER = 0.8
"""With which `pairs_to_decide` would tell."""
MOST_PAIRS = 1_000_000
"""More would be no practical answer."""

Verdict = Literal["better", "worse", "same", "cannot tell"]
Both = Sequence[tuple[AnalysedTrial, AnalysedTrial]]
"""Left and right trial of each repeat that both have."""


@dataclass(frozen=True)
class _Compared:
    left: str
    right: str
    metric: str
    stage: str
    paired: PairedDifference
    left_mean: float | None
    starts: int | None
    from_length: Estimate | None = None
    from_speed: Estimate | None = None


def pairs(variants: Sequence[str], variations: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """(left, right) of every comparison: base with each other variant, base+lora with adapter, adapter with merged; without a base, the first with each.

    `variations` (name -> what it is made of) are held against what they are made of; where that is not measured, against the first one made of the same.
    """
    own = [name for name in variants if name not in (variations or {})]
    first = "base" if "base" in own else own[0] if own else ""
    wanted = [(first, other) for other in own if other != first]
    wanted += [("base+lora", "adapter"), ("adapter", "merged")]
    for name, of in (variations or {}).items():
        alike = [other for other, kind in (variations or {}).items() if kind == of]
        wanted += [(of if of in own else alike[0], name)] if of in own or alike[0] != name else []
    return list(dict.fromkeys(pair for pair in wanted if set(pair) <= set(variants)))


def compare(trials: Sequence[AnalysedTrial], experiment: Experiment, memory: MemoryReadings | None = None) -> list[Comparison]:
    """Every pair x stage x metric for which both variants have usable trials of the same repeat, then memory, pair by pair."""
    found = [*_compared(trials, experiment), *_memory_compared(experiment, memory)]
    tested = [index for index, one in enumerate(found) if one.paired.p_value is not None]
    adjusted = holm([p for one in found if (p := one.paired.p_value) is not None])
    p_values = dict(zip(tested, adjusted, strict=True))
    return [_comparison(one, p_values.get(index), len(tested)) for index, one in enumerate(found)]


def _compared(trials: Sequence[AnalysedTrial], experiment: Experiment) -> Iterator[_Compared]:
    usable = {(trial.plan.variant, trial.plan.stage, trial.plan.repeat): trial for trial in trials if trial.usable}
    repeats = sorted({repeat for _, _, repeat in usable})
    for (left, right), stage in product(pairs(experiment.variants, experiment.variations), experiment.stages.values()):
        keys = [((left, stage.name, repeat), (right, stage.name, repeat)) for repeat in repeats]
        both = [(usable[one], usable[other]) for one, other in keys if one in usable and other in usable]
        if not both:
            continue
        for metric in latencies_of(stage.arrival):
            yield _latency(left, right, metric, stage.name, both, labels_of(both))
        if stage.arrival == "closed":
            for metric in RATES:
                compared = _rate(left, right, metric, stage.name, both, labels_of(both), experiment=experiment)
                if compared is not None:
                    yield compared


def latencies_of(arrival: str) -> tuple[str, ...]:
    """The latencies that are compared."""
    return LATENCIES if arrival == "closed" else OPEN_LATENCIES


def labels_of(both: Both) -> list[tuple[str, str]]:
    """The starts of left and right in each repeat; a side without one counts as started once."""
    return [(one.start or f"left {one.plan.variant}", other.start or f"right {other.plan.variant}") for one, other in both]


def _memory_compared(experiment: Experiment, memory: MemoryReadings | None) -> Iterator[_Compared]:
    for left, right in pairs(experiment.variants, experiment.variations):
        found = memory.pair(left, right) if memory is not None else None
        if found is not None:
            metric, values, labels = found
            size = float(np.mean([one for one, _ in values]))
            difference = few_paired([other - one for one, other in values], start_variance(labels, MEMORY_SD * size))
            yield _Compared(left, right, metric, "", difference, size, starts_seen(labels))


def _latency(left: str, right: str, metric: str, stage: str, both: Both, labels: Sequence[tuple[str, str]]) -> _Compared:
    """Starts change the speed, and so the part of a difference that comes from it; not how long answers are."""
    frames = [_prompt_differences(one, other, metric) for one, other in both]
    both = [pair for pair, frame in zip(both, frames, strict=True) if not frame.is_empty()]
    labels = [pair for pair, frame in zip(labels, frames, strict=True) if not frame.is_empty()]
    paired = [frame for frame in frames if not frame.is_empty()]
    seed = _seed(left, right, metric, stage)
    left_mean = float(np.mean([frame["left"].mean() for frame in paired])) if paired else None
    allowance = start_variance(labels, start_sd(metric, both[0][0].plan.arrival) * abs(left_mean or 0.0)) if both else NO_STARTS
    drift = [time_variance(_in_time(one, other, metric)) for one, other in both]

    def interval(column: str, allowed: StartVariance) -> PairedDifference:
        least = drift if column == "difference" else None
        return paired_interval([frame[column].to_numpy() for frame in paired], seed=seed, starts=allowed, drift=least)

    difference, seen = interval("difference", allowance), starts_seen(labels) if labels else None
    if metric not in _WHOLE or not paired or any(frame["from_length"].null_count() for frame in paired):
        return _Compared(left, right, metric, stage, difference, left_mean, seen)
    parts = interval("from_length", NO_STARTS), interval("from_speed", allowance)
    from_length, from_speed = (Estimate(value=part.difference, ci95_low=part.interval.low, ci95_high=part.interval.high) for part in parts)
    return _Compared(left, right, metric, stage, difference, left_mean, seen, from_length, from_speed)


def nothing_paired(metric: str) -> str:
    """Why there is no pair: no request that both answered, or none whose answers have the metric."""
    return f"no request was answered by both{' with more than one token and usage' if metric == 'tpot_s' else ''}"


def _seed(*names: str) -> int:
    """From the names alone, so that a comparison reads the same whatever else the run compared."""
    return zlib.crc32("\0".join(names).encode())


def _prompt_differences(one: AnalysedTrial, other: AnalysedTrial, metric: str) -> pl.DataFrame:
    """One row a prompt that both answered, in the left variant's sending order: left mean, mean difference and, of a whole request, its two parts."""
    told = tuple(dict.fromkeys(("ttft_s", "e2e_s", "output_tokens", metric))) if metric in _WHOLE else (metric,)
    left, right = (trial.measured.select("prompt_id", "occurrence", "scheduled_ns", *told).drop_nulls(metric) for trial in (one, other))
    joined = left.join(right, on=["prompt_id", "occurrence"], suffix="_right")
    difference = pl.col(f"{metric}_right") - pl.col(metric)
    means = [pl.col(metric).mean().alias("left"), difference.mean().alias("difference")]
    if metric in _WHOLE:
        # A mean over fewer occurrences than the difference's would break the sum of the parts: one answer without usage leaves the prompt without parts.
        complete = pl.when(e2e_from_length().null_count() == 0)
        means += [complete.then(e2e_from_length().mean()).alias("from_length"), complete.then((difference - e2e_from_length()).mean()).alias("from_speed")]
    return joined.group_by("prompt_id").agg(*means, pl.col("scheduled_ns").min()).sort("scheduled_ns", "prompt_id")


def _in_time(one: AnalysedTrial, other: AnalysedTrial, metric: str) -> Floats:
    """The difference of every request that both answered, in the left variant's sending order."""
    left, right = (trial.measured.select("prompt_id", "occurrence", "scheduled_ns", metric).drop_nulls(metric) for trial in (one, other))
    joined = left.join(right, on=["prompt_id", "occurrence"], suffix="_right").sort("scheduled_ns", "prompt_id")
    return (joined[f"{metric}_right"] - joined[metric]).to_numpy()


def _rate(
    left: str, right: str, metric: str, stage: str, both: Both, labels: Sequence[tuple[str, str]], *, experiment: Experiment
) -> _Compared | None:  # fmt: skip
    sliced = [(window_slices(one, metric, experiment), window_slices(other, metric, experiment)) for one, other in both]
    known = [(one, other, pair) for (one, other), pair in zip(sliced, labels, strict=True) if one is not None and other is not None]
    if not known:
        return None
    labels = [pair for _, _, pair in known]
    left_mean = float(np.mean([one.mean() for one, _, _ in known]))
    allowance = start_variance(labels, rate_start_sd(metric, [one for one, _ in both], left_mean, experiment))
    rows = [other - one for one, other, _ in known]
    drift = [time_variance(values) for values in rows]
    difference = paired_interval(rows, seed=_seed(left, right, metric, stage), starts=allowance, spans=slices_spanned(both), drift=drift)
    parts = (None, None) if metric == "goodput_per_s" else _rate_parts(both, sliced, metric, difference.difference)
    return _Compared(left, right, metric, stage, difference, left_mean, starts_seen(labels), *parts)


def slices_spanned(both: Both) -> float:
    """Over how many slices of its window the mean answer is spread, of the trial with the longest: so many neighbours are alike."""
    found = [(trial.requests["e2e_s"].mean(), window_s(trial.outcome) / SLICES) for pair in both for trial in pair]
    return max((mean / slice_s for mean, slice_s in found if isinstance(mean, float)), default=1.0)


def rate_start_sd(metric: str, trials: Sequence[AnalysedTrial], mean: float, experiment: Experiment) -> float:
    """What a closed loop's rate varies by between starts: as much as times do. Of goodput, and by the requests that then meet or miss the SLO."""
    sd = start_sd(metric, "closed")
    if metric != "goodput_per_s":
        return sd * mean
    ended = [(trial.requests.filter(ended_in_window(trial.outcome)), window_s(trial.outcome)) for trial in trials]
    # The slope over three standard deviations: over one, a short window has hardly a request that turns.
    faster, slower = (float(np.mean([frame.filter(good(experiment.slo, 1 + step * sd)).height / s for frame, s in ended])) for step in (-3, 3))
    return sd * mean + (faster - slower) / 6


def _rate_parts(
    both: Both, sliced: Sequence[tuple[Floats | None, Floats | None]], metric: str, difference: float | None
) -> tuple[Estimate | None, Estimate | None]:
    """(from length, from speed) of a difference in a rate, the mean over repeats; None where a trial does not tell how long its answers are."""
    parts: list[float] = []
    for trials, rates in zip(both, sliced, strict=True):
        if rates[0] is None or rates[1] is None:
            continue
        counts = metric == "output_tokens_per_s"
        left, right = (closed_loop(trial, float(rate.mean()), counts_tokens=counts) for trial, rate in zip(trials, (rates[0], rates[1]), strict=True))
        if left is None or right is None:
            return None, None
        parts.append(rate_from_length(left, right))
    if not parts or difference is None:
        return None, None
    from_length = float(np.mean(parts))
    return Estimate(value=from_length), Estimate(value=difference - from_length)


def window_slices(trial: AnalysedTrial, metric: str, experiment: Experiment) -> Floats | None:
    """The rate in each of SLICES equal parts of the window; None where it cannot be told.

    An answer counts in each part by the share of its time that falls into it. Counted where it ends, whatever a window's edges cut off would be a
    difference: with four streams in step that is a request of each, a tenth of a short window.
    """
    outcome = trial.outcome
    touching = (pl.col("status") == "ok") & (pl.col("end_ns") >= outcome.measure_from_ns) & (pl.col("scheduled_ns") < outcome.measure_until_ns)
    answered = trial.requests.filter(touching)
    if metric == "goodput_per_s":
        if not experiment.slo or not judgeable(answered, experiment.slo):
            return None
        amounts = answered.select(good(experiment.slo)).to_series().to_numpy().astype(np.float64)
    elif metric == "requests_per_s":
        amounts = np.ones(len(answered))
    elif answered["output_tokens"].null_count():
        return None
    else:
        amounts = answered["output_tokens"].to_numpy().astype(np.float64)
    begun, ended = (answered[name].to_numpy() - outcome.measure_from_ns for name in ("scheduled_ns", "end_ns"))
    length_ns = outcome.measure_until_ns - outcome.measure_from_ns
    took = np.maximum(ended - begun, 1)
    done = [float(np.clip((edge - begun) / took, 0.0, 1.0) @ amounts) for edge in np.linspace(0, length_ns, SLICES + 1)]
    return np.asarray(np.diff(done) / (length_ns / 1e9 / SLICES))


def _comparison(one: _Compared, p_value: float | None, tests: int) -> Comparison:
    difference, (low, high), base = one.paired.difference, one.paired.interval, one.left_mean
    verdict = verdict_of(one.metric, one.paired, base, p_value)
    return Comparison(
        left=one.left,
        right=one.right,
        metric=one.metric,
        stage=one.stage,
        difference=difference,
        ci95_low=low,
        ci95_high=high,
        relative=difference / base if difference is not None and base else None,
        n=one.paired.n,
        verdict=verdict,
        n_to_decide=pairs_to_decide(one.paired, base, tests) if verdict == "cannot tell" else None,
        starts=one.starts,
        from_length=one.from_length,
        from_speed=one.from_speed,
    )


def verdict_of(metric: str, paired: PairedDifference, left_mean: float | None, p_value: float | None) -> Verdict:
    """Better, worse, same or cannot tell; see the module. `p_value` is adjusted."""
    low, high = paired.interval
    if low is None or high is None or left_mean is None or p_value is None or paired.difference is None:
        return "cannot tell"
    margin = SAME_MARGIN * abs(left_mean)
    if -margin <= low and high <= margin:
        return "same"
    if p_value < ALPHA and (low > 0 or high < 0):
        return "better" if (paired.difference < 0) == (BY_NAME[metric].better == "lower") else "worse"
    return "cannot tell"


def pairs_to_decide(paired: PairedDifference, left_mean: float | None, tests: int) -> int | None:
    """Pairs that would give better, worse or same with 80% power, from as many more repeats with servers restarted between them: more requests of one
    start would not do. None without an interval, and where more than MOST_PAIRS would be needed.

    The interval's half-width h shrinks as 1 / sqrt(n). With z(a) the normal quantile, a difference d is told from 0 when |d| >= (z(1 - 0.05 / 2 m) + z(0.8)) s,
    which is Holm's hardest step over m tests, and told to be inside the margin D when D - |d| >= (z(0.975) + z(0.8)) s; s = h / z(0.975) at the present n.
    """
    from scipy.special import ndtri

    low, high = paired.interval
    if low is None or high is None or left_mean is None or paired.difference is None or high <= low:
        return None
    error = (high - low) / 2 / float(ndtri(0.975))
    power = float(ndtri(POWER))
    away, inside = abs(paired.difference), SAME_MARGIN * abs(left_mean) - abs(paired.difference)
    wanted = [(away, float(ndtri(1 - ALPHA / 2 / max(1, tests))) + power), (inside, float(ndtri(0.975)) + power)]
    needed = min((paired.n * (factor * error / distance) ** 2 for distance, factor in wanted if distance > 0), default=math.inf)
    return max(paired.n + 1, math.ceil(needed)) if needed <= MOST_PAIRS else None
