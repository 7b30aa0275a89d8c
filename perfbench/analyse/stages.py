"""The repeats of a stage as one figure: the mean over usable trials, with an interval that takes each repeat as a cluster (`repeats.over_repeats`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from perfbench.analyse.intervals import CLOSED_BATCHES, OPEN_BATCHES
from perfbench.analyse.repeats import over_repeats
from perfbench.analyse.starts import repeat_sd
from perfbench.analyse.stats import Interval
from perfbench.analyse.trials import PERCENTS, RATES, AnalysedTrial
from perfbench.records import Estimate, MetricSummary, StageSummary

STATISTICS = ("mean", *(f"p{percent}" for percent in PERCENTS))


def stage_summaries(trials: Sequence[AnalysedTrial]) -> dict[str, StageSummary]:
    """Stage -> its usable trials of one variant taken together."""
    usable = sorted((trial for trial in trials if trial.usable), key=lambda trial: trial.plan.stage)
    return {stage: _stage(list(group)) for stage, group in groupby(usable, key=lambda trial: trial.plan.stage)}


def _stage(trials: Sequence[AnalysedTrial]) -> StageSummary:
    names = dict.fromkeys(name for trial in trials for name in trial.summary.metrics)
    return StageSummary(
        repeats=len(trials),
        metrics={name: {statistic: _metric_together(name, statistic, trials) for statistic in STATISTICS} for name in names},
        rates={name: rate_together(name, trials) for name in RATES},
    )


def _metric_together(name: str, statistic: str, trials: Sequence[AnalysedTrial]) -> Estimate:
    told = [(trial, trial.summary.metrics[name]) for trial in trials if name in trial.summary.metrics]
    return _together(name, [trial for trial, _ in told], [_of(metric, statistic) for _, metric in told])


def _of(metric: MetricSummary, statistic: str) -> Estimate:
    if statistic == "mean":
        return Estimate(value=metric.mean, ci95_low=metric.ci95_low, ci95_high=metric.ci95_high)
    return metric.intervals.get(statistic, Estimate(value=getattr(metric, statistic)))


def rate_together(name: str, trials: Sequence[AnalysedTrial]) -> Estimate:
    """The mean of a rate over trials of one stage."""
    rates = [trial.summary.rates for trial in trials]
    return _together(name, trials, [one.intervals.get(name, Estimate(value=getattr(one, name))) for one in rates])


def _together(name: str, trials: Sequence[AnalysedTrial], estimates: Sequence[Estimate]) -> Estimate:
    """Mean over the repeats that have the figure, with its interval."""
    measured = [(trial, one.value, Interval(one.ci95_low, one.ci95_high)) for trial, one in zip(trials, estimates, strict=True) if one.value is not None]
    if not measured:
        return Estimate(value=None)
    values, arrival = [value for _, value, _ in measured], measured[0][0].plan.arrival
    low, high = over_repeats(
        values, [interval for _, _, interval in measured], usual=repeat_sd(name, arrival, [trial.start for trial, _, _ in measured]),
        batches=CLOSED_BATCHES if arrival == "closed" else OPEN_BATCHES,
    )  # fmt: skip
    return Estimate(value=sum(values) / len(values), ci95_low=low, ci95_high=high)
