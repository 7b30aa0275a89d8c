"""What a request costs in two runs, in money and in energy.

Prices go through the rate behind them; a price per correct answer also through the held-out samples, paired by id: its error is that of both on the
logarithm, since rate and answers are measured apart. Energy is one figure a repeat, so that its interval is Student's t over repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from perfbench.analyse.compare import slices_spanned
from perfbench.analyse.cost import StageResult, best_at_slo, server_price, stage_results, why_none_at_slo
from perfbench.analyse.memory_differences import few_paired
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.moved import Moved, Span, empty, from_change, paired_slices, paired_trials, rate_starts, seed, starts_of
from perfbench.analyse.run_change import change
from perfbench.analyse.starts import StartVariance, start_sd, start_variance, starts_seen
from perfbench.analyse.stats import MOST_DEGREES, Floats, student_t975
from perfbench.analyse.two_runs import FinishedRun
from perfbench.records import QualityRecord

PRICES = ("usd_per_request", "usd_per_million_output_tokens")


def price_moved(baseline: FinishedRun, run: FinishedRun, variant: str, metric: str) -> Moved:
    """Through the rate: USD an hour over what was served in it, at the stage with the most goodput that meets the SLO (without one: the most requests)."""
    prices = [server_price(one.experiment.cost, one.experiment, variant) for one in (baseline, run)]
    hours = [price.hour_usd for price in prices]
    if hours[0] is None or hours[1] is None:
        return empty(metric, "price", next(price.reason for price in prices if price.hour_usd is None))
    currency = [one.experiment.cost.currency for one in (baseline, run) if one.experiment.cost is not None]
    if currency[0] != currency[1]:
        return empty(metric, "price", f"the baseline's prices are in {currency[0]}, the run's in {currency[1]}")
    at = [_priced_stage(one, run, variant) for one in (baseline, run)]
    if at[0] is None or at[1] is None:
        which, lacking = ("the baseline", baseline) if at[0] is None else ("the run", run)
        return empty(metric, "price", f"of {which}: {_why_no_stage(lacking, run, variant)}")
    rate = "goodput_per_s" if run.experiment.slo else "requests_per_s"
    both = paired_slices(paired_trials(baseline, run, variant, at[0].stage, at[1].stage), run, rate)
    if not both:
        return empty(metric, "price", "no repeat that both runs can use, or an open-loop stage whose rate the schedule sets")
    turned = tuple(_priced(hour, result, metric) for hour, result in zip((hours[0], hours[1]), (at[0], at[1]), strict=True))
    if None in turned:
        return empty(metric, "price", "answers came without usage")
    starts, labels = rate_starts(run, both, rate)
    rows, spans = [rows for _, rows in both], slices_spanned([pair for pair, _ in both])
    found = change(rows, "mean", seed=seed(variant, metric), turned=tuple(one for one in turned if one is not None), starts=starts, spans=spans)
    note = f"at stage {at[0].stage}, then {at[1].stage}" if at[0].stage != at[1].stage else ""
    result = from_change(metric, "price", found, "", starts_seen(labels))
    return replace(result, unit=currency[1], note="; ".join(part for part in (note, result.note) if part))


def _results(one: FinishedRun, judge: FinishedRun, variant: str) -> list[StageResult]:
    return stage_results(one.of_variant(variant), judge.experiment) if one.of_variant(variant) else []


def _why_no_stage(one: FinishedRun, judge: FinishedRun, variant: str) -> str:
    results = _results(one, judge, variant)
    return why_none_at_slo(results) if results and judge.experiment.slo else "no trial can be used"


def _priced_stage(one: FinishedRun, judge: FinishedRun, variant: str) -> StageResult | None:
    results = _results(one, judge, variant)
    if judge.experiment.slo:
        return best_at_slo(results)
    return max(results, key=lambda result: result.requests_per_s, default=None)


def _priced(hour_usd: float, result: StageResult, metric: str) -> Callable[[Floats], Floats] | None:
    """rates -> prices; the length of answers is taken as the stage's mean."""
    if metric == "usd_per_request":
        return lambda rates: hour_usd / 3600 / rates
    tokens = result.tokens_per_request
    return None if not tokens else lambda rates: hour_usd / 3600 / rates / tokens * 1e6


def correct_price_moved(baseline: FinishedRun, run: FinishedRun, variant: str) -> Moved:
    """usd_per_request over the share of held-out samples that passed."""
    from perfbench.quality.fairness import not_comparable

    metric = "usd_per_correct_request"
    price = price_moved(baseline, run, variant, "usd_per_request")
    if price.relative is None or price.baseline is None or price.run is None:
        return empty(metric, "price", price.note or "no price in both runs")
    old, new = baseline.quality.get(variant, []), run.quality.get(variant, [])
    if not old or not new:
        return empty(metric, "price", "a run has no quality check of it")
    problem = not_comparable(old, new)
    if problem is not None:
        return empty(metric, "price", problem)
    shares = _passed_in_both(old, new)
    if shares is None:
        return empty(metric, "price", "no sample passed in a run")
    before, after, variance = shares
    prices = price.baseline / before, price.run / after
    relative, difference = _through_both(price.relative, before / after, variance, prices[0])
    return replace(price, metric=metric, baseline=prices[0], run=prices[1], relative=relative, difference=difference)


def _passed_in_both(old: list[QualityRecord], new: list[QualityRecord]) -> tuple[float, float, float] | None:
    """Shares that passed in the baseline and the run, of the samples judged in both, and the variance of the logarithm of their ratio (delta method).

    Half a sample is added to those that only one run passed: none seen does not mean that there are none.
    """
    judged = {record.sample_id: record.passed for record in old if record.passed is not None}
    pairs = [(judged[record.sample_id], record.passed) for record in new if record.passed is not None and record.sample_id in judged]
    n, passed = len(pairs), [sum(pair[side] for pair in pairs) for side in (0, 1)]
    if not n or not all(passed):
        return None
    lost, won = (sum(pair == which for pair in pairs) + 0.5 for which in ((True, False), (False, True)))
    return passed[0] / n, passed[1] / n, (lost + won) / (passed[0] * passed[1])


def _through_both(price: Span, ratio: float, variance: float, baseline: float) -> tuple[Span, Span]:
    """The change of a price times another factor `ratio`: as a share, and as a difference."""
    value = (1 + price.value) * ratio - 1
    if price.error is None:
        return Span(value), Span(value * baseline)
    of_price = (price.error / (1 + price.value)) ** 2
    error = math.sqrt(of_price + variance)
    degrees = min(MOST_DEGREES, error**4 / (of_price**2 / price.degrees)) if of_price else MOST_DEGREES
    low, high = ((1 + value) * math.exp(sign * student_t975(degrees) * error) - 1 for sign in (-1, 1))
    relative = Span(value, low, high, error * (1 + value), degrees)
    return relative, Span(value * baseline, low * baseline, high * baseline, error * (1 + value) * baseline, degrees)


def energy_moved(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str) -> Moved:
    """Joules a request at one stage, the mean over repeats; no interval for one repeat."""
    metric = "energy_j_per_request"
    both = paired_trials(baseline, run, variant, stage)
    if not both:
        return empty(metric, "mean", "no repeat that both runs can use (void trials are left out)")
    told = [[one.summary.metrics.get(metric) for one in pair] for pair in both]
    figures = [(old.mean, new.mean) for old, new in told if old is not None and new is not None]
    known = [(old, new) for old, new in figures if old and new is not None]
    if len(known) < len(both):
        return empty(metric, "mean", "there is no energy counter in both runs")
    size, after = (sum(pair[side] for pair in known) / len(known) for side in (0, 1))
    labels = starts_of(both)
    starts = start_variance(labels, start_sd(metric, "closed"))
    relative = _few([new / old - 1 for old, new in known], starts.hidden)
    difference = _few([new - old for old, new in known], starts.scaled(size).hidden)
    note = "" if len(known) > 1 else "one repeat has no interval; two or more have"
    unit, better = BY_NAME[metric].unit, BY_NAME[metric].better
    return Moved(metric, "mean", unit, better, size, after, difference, relative, len(known), starts_seen(labels), note)


def _few(values: list[float], hidden: float) -> Span:
    paired = few_paired(values, StartVariance(hidden=hidden))
    centre, (low, high) = sum(values) / len(values), paired.interval
    if low is None or high is None:
        return Span(centre)
    degrees = len(values) - 1.0
    return Span(centre, low, high, (high - low) / 2 / student_t975(degrees), degrees)
