"""How the repeats of a stage become one figure: the mean over its usable trials, with the range from the smallest to the largest.

A trial that the audit calls void is left out; a suspect one stays, and is marked. The mean of percentiles is not a percentile of all
requests: every caption says which figure it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from perfbench.records import Estimate, Summary, TrialSummary, VariantSummary

Statistic = Literal["mean", "p50", "p90", "p95", "p99"]
RateName = Literal["requests_per_s", "output_tokens_per_s", "goodput_per_s"]


class OverRepeats(NamedTuple):
    """Mean, smallest and largest value over the repeats that have one; all None where none has."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    ci95_low: float | None = None
    """Of the mean, each repeat a cluster; None where there is no interval."""
    ci95_high: float | None = None


class HeadlineStage(NamedTuple):
    """The stage that the main table shows, and the sentence that says why it."""

    stage: str
    arrival: str
    reason: str

    @property
    def ttft_metric(self) -> str:
        """Open loop counts from the scheduled time, so that waiting in the client is never hidden (DESIGN 5)."""
        return "ttft_s" if self.arrival == "closed" else "ttft_scheduled_s"


def stage_names(summary: Summary) -> list[str]:
    """All stages in the order in which they were driven."""
    return list(dict.fromkeys(trial.stage for variant in summary.variants.values() for trial in variant.trials))


def arrival_of(summary: Summary, stage: str) -> str:
    """The arrival process of a stage; '' for a stage that no trial has."""
    return next((trial.arrival for variant in summary.variants.values() for trial in variant.trials if trial.stage == stage), "")


def usable_trials(variant: VariantSummary, stage: str) -> list[TrialSummary]:
    """The trials of a stage that may be used, by repeat."""
    return sorted((trial for trial in variant.trials if trial.stage == stage and trial.audit.verdict != "void"), key=lambda trial: trial.repeat)


def over_repeats(values: Iterable[float | None]) -> OverRepeats:
    """Mean and range of what was measured."""
    measured = [value for value in values if value is not None]
    if not measured:
        return OverRepeats(None, None, None, 0)
    return OverRepeats(sum(measured) / len(measured), min(measured), max(measured), len(measured))


def metric_over_repeats(variant: VariantSummary, stage: str, metric: str, statistic: Statistic) -> OverRepeats:
    """One statistic of one metric over the usable repeats of a stage."""
    summaries = (trial.metrics.get(metric) for trial in usable_trials(variant, stage))
    found = over_repeats(getattr(summary, statistic) for summary in summaries if summary is not None)
    together = variant.stages.get(stage)
    return _sure(found, together.metrics.get(metric, {}).get(statistic) if together is not None else None)


def rate_over_repeats(variant: VariantSummary, stage: str, rate: RateName) -> OverRepeats:
    """One rate over the usable repeats of a stage."""
    found = over_repeats(getattr(trial.rates, rate) for trial in usable_trials(variant, stage))
    together = variant.stages.get(stage)
    return _sure(found, together.rates.get(rate) if together is not None else None)


def _sure(found: OverRepeats, estimate: Estimate | None) -> OverRepeats:
    return found if estimate is None else found._replace(ci95_low=estimate.ci95_low, ci95_high=estimate.ci95_high)


def meets_slo(variant: VariantSummary, stage: str) -> bool | None:
    """True when every usable repeat meets the SLO, False when one misses it; None where that is not known."""
    answers = [trial.slo["met"] if trial.slo else None for trial in usable_trials(variant, stage)]
    if False in answers:
        return False
    return True if answers and None not in answers else None


def headline_stage(summary: Summary) -> HeadlineStage | None:
    """Of the stages at which most variants meet the SLO, the one with the highest throughput; None for a run without trials."""
    stages = stage_names(summary)
    if not stages:
        return None
    meeting = {stage: sum(meets_slo(variant, stage) is True for variant in summary.variants.values()) for stage in stages}
    chosen = max(stages, key=lambda stage: (meeting[stage], _mean_throughput(summary, stage)))
    if not any(usable_trials(variant, stage) for variant in summary.variants.values() for stage in stages):
        reason = "the first one: none of the run's trials can be used"
    elif not summary.slo:
        reason = "the stage with the highest throughput (the scenario sets no SLO)"
    elif meeting[chosen] == 0 and not any(meets_slo(variant, stage) is False for variant in summary.variants.values() for stage in stages):
        reason = "the stage with the highest throughput: no stage is known to meet the SLO or to miss it"
    elif meeting[chosen] == 0:
        reason = "the stage with the highest throughput: no variant meets the SLO at any stage"
    else:
        variants = len(summary.variants)
        who = "every variant meets" if meeting[chosen] == variants else f"{meeting[chosen]} of {variants} variants meet"
        reason = f"the stage with the highest throughput of those at which {who} the SLO"
    return HeadlineStage(chosen, arrival_of(summary, chosen), reason)


def _mean_throughput(summary: Summary, stage: str) -> float:
    rates = over_repeats(rate_over_repeats(variant, stage, "requests_per_s").mean for variant in summary.variants.values())
    return rates.mean if rates.mean is not None else -1.0
