"""Variants against each other, paired: difference = right - left, on the same prompts at the same arrival times.

Latencies are paired by (repeat, prompt, occurrence): both variants answered that very request. A prompt that a trial sends several times gives one
difference, the mean of its own; `stats.paired_interval` then resamples prompts and repeats. Rates have no prompts: each window is cut into equal
slices, slices are paired by their place in the window, and are resampled as prompts are. Rates are compared in closed loop only: in open loop the
schedule sets them. Trials that the audit calls void, and the trials they would have been paired with, are left out.

Verdicts, always of `right`: `same` when the whole interval lies within SAME_MARGIN of the left mean; `better` or `worse` when the interval leaves out 0
and the p-value, adjusted by Holm over all comparisons of the run, is below 0.05; else `cannot tell`. `same` comes first: a difference that is certain
but smaller than the margin is no reason to choose.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.slo import good, judgeable
from perfbench.analyse.stats import Floats, PairedDifference, holm, paired_interval
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import ended_in_window, window_s
from perfbench.records import Comparison

SAME_MARGIN = 0.02
"""2% of the left variant's mean: a difference that decides nothing, neither for a user nor on a bill."""
ALPHA = 0.05
LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
RATES = ("output_tokens_per_s", "goodput_per_s")
SLICES = 24
"""Per window: enough blocks to resample, few enough that each holds several requests."""

Verdict = Literal["better", "worse", "same", "cannot tell"]


@dataclass(frozen=True)
class _Compared:
    left: str
    right: str
    metric: str
    stage: str
    paired: PairedDifference
    left_mean: float | None


def pairs(variants: Sequence[str]) -> list[tuple[str, str]]:
    """(left, right) of every comparison: base with each other variant, base+lora with adapter, adapter with merged; without a base, the first with each."""
    first = "base" if "base" in variants else variants[0] if variants else ""
    wanted = [(first, other) for other in variants if other != first]
    wanted += [("base+lora", "adapter"), ("adapter", "merged")]
    return list(dict.fromkeys(pair for pair in wanted if set(pair) <= set(variants)))


def compare(trials: Sequence[AnalysedTrial], experiment: Experiment) -> list[Comparison]:
    """Every pair x stage x metric for which both variants have usable trials of the same repeat."""
    found = list(_compared(trials, experiment))
    tested = [index for index, one in enumerate(found) if one.paired.p_value is not None]
    adjusted = holm([p for one in found if (p := one.paired.p_value) is not None])
    p_values = dict(zip(tested, adjusted, strict=True))
    return [_comparison(one, p_values.get(index)) for index, one in enumerate(found)]


def _compared(trials: Sequence[AnalysedTrial], experiment: Experiment) -> Iterator[_Compared]:
    usable = {(trial.plan.variant, trial.plan.stage, trial.plan.repeat): trial for trial in trials if trial.usable}
    repeats = sorted({repeat for _, _, repeat in usable})
    for (left, right), stage in product(pairs(experiment.variants), experiment.stages.values()):
        keys = [((left, stage.name, repeat), (right, stage.name, repeat)) for repeat in repeats]
        both = [(usable[one], usable[other]) for one, other in keys if one in usable and other in usable]
        if not both:
            continue
        for metric in LATENCIES:
            yield _latency(left, right, metric, stage.name, both)
        if stage.arrival == "closed":
            for metric in RATES:
                compared = _rate(left, right, metric, stage.name, both, experiment=experiment)
                if compared is not None:
                    yield compared


def _latency(left: str, right: str, metric: str, stage: str, both: Sequence[tuple[AnalysedTrial, AnalysedTrial]]) -> _Compared:
    paired = [_prompt_differences(one, other, metric) for one, other in both]
    paired = [frame for frame in paired if not frame.is_empty()]
    difference = paired_interval([frame["difference"].to_numpy() for frame in paired], seed=_seed(left, right, metric, stage))
    left_mean = float(np.mean([frame["left"].mean() for frame in paired])) if paired else None
    return _Compared(left, right, metric, stage, difference, left_mean)


def _seed(*names: str) -> int:
    """From the names alone, so that a comparison reads the same whatever else the run compared."""
    return zlib.crc32("\0".join(names).encode())


def _prompt_differences(one: AnalysedTrial, other: AnalysedTrial, metric: str) -> pl.DataFrame:
    """One row a prompt that both answered, in the left variant's sending order: left mean and mean difference."""
    columns = ("prompt_id", "occurrence", "scheduled_ns", metric)
    left, right = (trial.measured.select(columns).drop_nulls(metric) for trial in (one, other))
    joined = left.join(right, on=["prompt_id", "occurrence"], suffix="_right")
    difference = (pl.col(f"{metric}_right") - pl.col(metric)).mean().alias("difference")
    return joined.group_by("prompt_id").agg(pl.col(metric).mean().alias("left"), difference, pl.col("scheduled_ns").min()).sort("scheduled_ns", "prompt_id")


def _rate(
    left: str, right: str, metric: str, stage: str, both: Sequence[tuple[AnalysedTrial, AnalysedTrial]], *, experiment: Experiment
) -> _Compared | None:
    sliced = [(_slices(one, metric, experiment), _slices(other, metric, experiment)) for one, other in both]
    known = [(one, other) for one, other in sliced if one is not None and other is not None]
    if not known:
        return None
    difference = paired_interval([other - one for one, other in known], seed=_seed(left, right, metric, stage))
    return _Compared(left, right, metric, stage, difference, float(np.mean([one.mean() for one, _ in known])))


def _slices(trial: AnalysedTrial, metric: str, experiment: Experiment) -> Floats | None:
    """The rate in each of SLICES equal parts of the window; None where it cannot be told."""
    ended = trial.requests.filter(ended_in_window(trial.outcome))
    seconds = window_s(trial.outcome)
    if metric == "goodput_per_s":
        if not experiment.slo or not judgeable(ended, experiment.slo):
            return None
        ended = ended.filter(good(experiment.slo)).with_columns(pl.lit(1.0).alias("amount"))
    elif ended["output_tokens"].null_count():
        return None
    else:
        ended = ended.with_columns(pl.col("output_tokens").cast(pl.Float64).alias("amount"))
    place = (ended["end_ns"].to_numpy() - trial.outcome.measure_from_ns) * SLICES // round(seconds * 1e9)
    return np.bincount(place, weights=ended["amount"].to_numpy(), minlength=SLICES) / (seconds / SLICES)


def _comparison(one: _Compared, p_value: float | None) -> Comparison:
    difference, (low, high), base = one.paired.difference, one.paired.interval, one.left_mean
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
        verdict=verdict_of(one.metric, one.paired, base, p_value),
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
