"""The repeats of a stage as one figure: the mean over usable trials, with an interval that takes each repeat as a cluster (`intervals.over_repeats`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from perfbench.analyse.intervals import over_repeats
from perfbench.analyse.stats import Interval
from perfbench.analyse.trials import PERCENTS, RATES
from perfbench.records import Estimate, MetricSummary, StageSummary, TrialSummary

STATISTICS = ("mean", *(f"p{percent}" for percent in PERCENTS))


def stage_summaries(trials: Sequence[TrialSummary]) -> dict[str, StageSummary]:
    """Stage -> its usable trials of one variant taken together."""
    usable = sorted((trial for trial in trials if trial.audit.verdict != "void"), key=lambda trial: trial.stage)
    return {stage: _stage(list(group)) for stage, group in groupby(usable, key=lambda trial: trial.stage)}


def _stage(trials: Sequence[TrialSummary]) -> StageSummary:
    names = dict.fromkeys(name for trial in trials for name in trial.metrics)
    metrics = {name: [trial.metrics[name] for trial in trials if name in trial.metrics] for name in names}
    return StageSummary(
        repeats=len(trials),
        metrics={name: {statistic: together([_of(one, statistic) for one in found]) for statistic in STATISTICS} for name, found in metrics.items()},
        rates={name: together([trial.rates.intervals.get(name, Estimate(value=getattr(trial.rates, name))) for trial in trials]) for name in RATES},
    )


def _of(metric: MetricSummary, statistic: str) -> Estimate:
    if statistic == "mean":
        return Estimate(value=metric.mean, ci95_low=metric.ci95_low, ci95_high=metric.ci95_high)
    return metric.intervals.get(statistic, Estimate(value=getattr(metric, statistic)))


def together(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over the repeats that have the figure, with its interval."""
    measured = [(one.value, Interval(one.ci95_low, one.ci95_high)) for one in estimates if one.value is not None]
    if not measured:
        return Estimate(value=None)
    values = [value for value, _ in measured]
    low, high = over_repeats(values, [interval for _, interval in measured])
    return Estimate(value=sum(values) / len(values), ci95_low=low, ci95_high=high)
