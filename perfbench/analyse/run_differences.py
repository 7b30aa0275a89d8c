"""One metric of one variant in two runs, whatever kind of metric it is; and every metric that two runs have in common, with verdicts.

    latencies   requests that both runs answered, paired by prompt and occurrence       mean or percentile
    rates       windows cut into equal slices, paired by place; closed loop only        the mean
    prices      the rate behind the price, at the stage that each run's price rests on  turned into USD
    quality     held-out samples, paired by id                                          the metric that decides
    memory      the largest reading of each run: one figure each, so no interval

Goodput and prices of both runs are judged by the newer run's SLO. Verdicts as in `compare` (same within SAME_MARGIN of the baseline; for quality within the
scenario's margin), Holm over everything that was compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perfbench.analyse.compare import ALPHA, SAME_MARGIN, Verdict, loop_of, pairs_to_decide, rate_start_sd, window_slices
from perfbench.analyse.cost import StageResult, best_at_slo, server_price, stage_results
from perfbench.analyse.memory_differences import MEMORIES
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.run_change import Change, Shift, change
from perfbench.analyse.starts import START_SD, StartVariance, start_variance, starts_seen
from perfbench.analyse.stats import MOST_DEGREES, Z975, Floats, Interval, PairedDifference, holm, p_value
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.two_runs import FinishedRun, common_stages, common_variants, only_in_one
from perfbench.records import RunComparison, RunDifference, Unlike
from perfbench.scenario.gate import LATENCIES, RATES

PRICES = ("usd_per_request", "usd_per_million_output_tokens")
_STATISTICS = ("mean", "p95")


@dataclass(frozen=True)
class Span:
    """A difference with its 95% interval and standard error, which are None where there is no interval; and the error's degrees of freedom."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None
    degrees: float = MOST_DEGREES


def ends(span: Span | None) -> tuple[float | None, float | None, float | None]:
    """Value, low, high; all None for no difference."""
    return (None, None, None) if span is None else (span.value, span.low, span.high)


@dataclass(frozen=True)
class Moved:
    """One metric in both runs. What is None is said in `note`."""

    metric: str
    statistic: str
    unit: str
    better: str
    baseline: float | None = None
    run: float | None = None
    difference: Span | None = None
    relative: Span | None = None
    n: int = 0
    starts: int | None = None
    note: str = ""
    margin: float | None = None
    """Absolute: within it the two are the same; None: SAME_MARGIN of the baseline."""


def moved(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, metric: str, statistic: str | None) -> Moved:
    """`stage` is '' for what is of the whole run; `statistic` is for latencies, None: mean."""
    if metric in LATENCIES:
        return _latency(baseline, run, variant, stage, metric, statistic or "mean")
    if metric in RATES:
        return _rate(baseline, run, variant, stage, metric)
    if metric in MEMORIES:
        return _memory(baseline, run, variant, metric)
    if metric in PRICES:
        return _price(baseline, run, variant, metric)
    return _quality(baseline, run, variant)


def _repeats(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, other_stage: str | None = None) -> list[tuple[AnalysedTrial, AnalysedTrial]]:
    """Usable trials of the repeats that both runs have; at two stages where `other_stage`, the newer run's, is given."""
    old, new = baseline.usable(variant, stage), run.usable(variant, other_stage or stage)
    return [(old[repeat], new[repeat]) for repeat in sorted(old.keys() & new.keys())]


def _empty(metric: str, statistic: str, note: str) -> Moved:
    return Moved(metric, statistic, BY_NAME[metric].unit, BY_NAME[metric].better, note=note)


def _from_change(metric: str, statistic: str, found: Change | None, note: str, starts: int | None = None) -> Moved:
    if found is None:
        return _empty(metric, statistic, note)
    note = "" if found.difference.drawn is not None else "too few for an interval"
    relative = None if found.relative is None else _span(found.relative)
    unit, better = BY_NAME[metric].unit, BY_NAME[metric].better
    return Moved(metric, statistic, unit, better, found.baseline, found.run, _span(found.difference), relative, found.n, starts, note)


def _span(shift: Shift) -> Span:
    interval = shift.interval
    if interval is None or shift.drawn is None:
        return Span(shift.value)
    return Span(shift.value, *interval, shift.drawn.error, shift.drawn.degrees)


Both = list[tuple[AnalysedTrial, AnalysedTrial]]


def _labels(baseline: FinishedRun, run: FinishedRun, both: Both) -> list[tuple[str, str]]:
    """The servers' starts; a run whose starts are not known counts as one."""
    return [(baseline.starts.get(old.plan.trial, "baseline"), run.starts.get(new.plan.trial, "run")) for old, new in both]


def _seed(*names: str) -> int:
    return zlib.crc32("\0".join(names).encode())


def _latency(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, metric: str, statistic: str) -> Moved:
    both = _repeats(baseline, run, variant, stage)
    if not both:
        return _empty(metric, statistic, "no repeat that both runs can use (void trials are left out)")
    rows = [_paired_rows(old, new, metric) for old, new in both]
    labels = [pair for pair, (old, _) in zip(_labels(baseline, run, both), rows, strict=True) if len(old)]
    allowance = start_variance(labels, START_SD[loop_of(both[0][0])])
    found = change(rows, statistic, seed=_seed(variant, stage, metric, statistic), starts=allowance)
    few = f"too few requests for {statistic}" if any(len(old) for old, _ in rows) else "no request was answered by both"
    return _from_change(metric, statistic, found, few, starts_seen(labels) if labels else None)


def _paired_rows(old: AnalysedTrial, new: AnalysedTrial, metric: str) -> tuple[Floats, Floats]:
    """The metric of every request that both answered inside the window, in the baseline's sending order."""
    columns = ("prompt_id", "occurrence", "scheduled_ns", metric)
    left, right = (trial.measured.select(columns).drop_nulls(metric) for trial in (old, new))
    joined = left.join(right, on=["prompt_id", "occurrence"], suffix="_right").sort("scheduled_ns", "prompt_id")
    return joined[metric].to_numpy(), joined[f"{metric}_right"].to_numpy()


def _rate(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, metric: str) -> Moved:
    if run.experiment.stages[stage].arrival != "closed":
        return _empty(metric, "rate", "the schedule sets the rate of an open-loop stage")
    both = _sliced(_repeats(baseline, run, variant, stage), run, metric)
    note = "no repeat that both runs can use, or the scenario has no SLO" if metric == "goodput_per_s" else "no repeat that both runs can use, or no usage"
    if not both:
        return _empty(metric, "rate", note)
    starts, labels = _rate_starts(baseline, run, both, metric)
    found = change([rows for _, rows in both], "mean", seed=_seed(variant, stage, metric), starts=starts)
    return _from_change(metric, "rate", found, note, starts_seen(labels))


Sliced = list[tuple[tuple[AnalysedTrial, AnalysedTrial], tuple[Floats, Floats]]]


def _sliced(both: Both, run: FinishedRun, metric: str) -> Sliced:
    """Trials and their rates by slice, where both can be told."""
    slices = [(pair, (window_slices(pair[0], metric, run.experiment), window_slices(pair[1], metric, run.experiment))) for pair in both]
    return [(pair, (old, new)) for pair, (old, new) in slices if old is not None and new is not None]


def _rate_starts(baseline: FinishedRun, run: FinishedRun, both: Sliced, metric: str) -> tuple[StartVariance, list[tuple[str, str]]]:
    """What starts add to the relative change of a rate; and the starts."""
    labels, trials = _labels(baseline, run, [pair for pair, _ in both]), [old for (old, _), _ in both]
    mean = sum(float(old.mean()) for _, (old, _) in both) / len(both)
    return start_variance(labels, rate_start_sd(metric, trials, mean, run.experiment) / mean if mean else 0.0), labels


def _memory(baseline: FinishedRun, run: FinishedRun, variant: str, metric: str) -> Moved:
    peaks = [getattr(one.summary.variants[variant].memory, f"{metric}_peak") for one in (baseline, run)]
    if peaks[0] is None or peaks[1] is None:
        return _empty(metric, "peak", "not measured in both runs")
    difference = float(peaks[1] - peaks[0])
    unit, better = BY_NAME[metric].unit, BY_NAME[metric].better
    return Moved(metric, "peak", unit, better, peaks[0], peaks[1], Span(difference), Span(difference / peaks[0]) if peaks[0] else None, 1)


def _price(baseline: FinishedRun, run: FinishedRun, variant: str, metric: str) -> Moved:
    """Through the rate: USD an hour over what was served in it, at the stage with the most goodput that meets the SLO (without one: the most requests)."""
    prices = [server_price(one.experiment.cost, one.experiment, variant) for one in (baseline, run)]
    hours = [price.hour_usd for price in prices]
    if hours[0] is None or hours[1] is None:
        return _empty(metric, "price", next(price.reason for price in prices if price.hour_usd is None))
    at = [_priced_stage(one, run, variant) for one in (baseline, run)]
    if at[0] is None or at[1] is None:
        return _empty(metric, "price", "no stage of one run meets the SLO" if run.experiment.slo else "no trial can be used")
    rate = "goodput_per_s" if run.experiment.slo else "requests_per_s"
    both = _sliced(_repeats(baseline, run, variant, at[0].stage, at[1].stage), run, rate)
    if not both:
        return _empty(metric, "price", "no repeat that both runs can use, or an open-loop stage whose rate the schedule sets")
    turned = tuple(_priced(hour, result, metric) for hour, result in zip((hours[0], hours[1]), (at[0], at[1]), strict=True))
    if None in turned:
        return _empty(metric, "price", "answers came without usage")
    starts, labels = _rate_starts(baseline, run, both, rate)
    rows = [rows for _, rows in both]
    found = change(rows, "mean", seed=_seed(variant, metric), turned=tuple(one for one in turned if one is not None), starts=starts)
    note = f"at stage {at[0].stage}, then {at[1].stage}" if at[0].stage != at[1].stage else ""
    result = _from_change(metric, "price", found, "", starts_seen(labels))
    return result if not note else Moved(**{**vars(result), "note": "; ".join(part for part in (note, result.note) if part)})


def _priced_stage(one: FinishedRun, judge: FinishedRun, variant: str) -> StageResult | None:
    results = stage_results(one.of_variant(variant), judge.experiment) if one.of_variant(variant) else []
    if judge.experiment.slo:
        return best_at_slo(results)
    return max(results, key=lambda result: result.requests_per_s, default=None)


def _priced(hour_usd: float, result: StageResult, metric: str) -> Callable[[Floats], Floats] | None:
    """rates -> prices; the length of answers is taken as the stage's mean."""
    if metric == "usd_per_request":
        return lambda rates: hour_usd / 3600 / rates
    tokens = result.tokens_per_request
    return None if not tokens else lambda rates: hour_usd / 3600 / rates / tokens * 1e6


def _quality(baseline: FinishedRun, run: FinishedRun, variant: str) -> Moved:
    from perfbench.quality.decide import deciding_metric
    from perfbench.quality.fairness import not_comparable
    from perfbench.quality.measures import WIN_RATE, paired_difference, reading_of

    old, new, quality = baseline.quality.get(variant, []), run.quality.get(variant, []), run.experiment.quality
    if quality is None or not old or not new:
        return Moved("quality", "share", "share", "higher", note="a run has no quality check of it")
    metric = deciding_metric(quality)
    problem = "a win rate against base does not compare two runs" if metric == WIN_RATE else not_comparable(old, new)
    figures = [one.summary.variants[variant].quality for one in (baseline, run)]
    shares = [figure.metrics[metric].value if figure is not None and metric in figure.metrics else None for figure in figures]
    if problem is not None or shares[0] is None or shares[1] is None:
        return Moved(metric, "share", "share", "higher", note=problem or f"a run has no {metric}")
    paired = paired_difference(old, new, metric, reading_of(quality, new))
    low, high = paired.interval(0.95)
    error = (high - low) / 2 / Z975
    relative = None if not shares[0] else Span(paired.value / shares[0], low / shares[0], high / shares[0], error / shares[0])
    return Moved(metric, "share", "share", "higher", shares[0], shares[1], Span(paired.value, low, high, error), relative, len(new), margin=quality.margin)


def compare_runs(baseline: FinishedRun, run: FinishedRun, unlike: list[Unlike]) -> RunComparison:
    """Everything that both have, `unlike` being what `two_runs.check_comparable` allowed."""
    found = [(variant, stage, one) for variant in common_variants(baseline, run) for stage, one in _everything(baseline, run, variant)]
    tested = [_paired(one) for _, _, one in found]
    p_values = holm([p for one in tested if (p := one.p_value) is not None])
    adjusted = iter(p_values)
    differences = [
        _difference(variant, stage, one, paired, None if paired.p_value is None else next(adjusted), len(p_values))
        for (variant, stage, one), paired in zip(found, tested, strict=True)
    ]
    return RunComparison(
        baseline=str(baseline.path), run=str(run.path), unlike=unlike, differences=differences, only_in_one=only_in_one(baseline, run)
    )  # fmt: skip


def _everything(baseline: FinishedRun, run: FinishedRun, variant: str) -> Iterator[tuple[str, Moved]]:
    """(stage, metric) of one variant; what neither run measured is left out."""
    for stage in common_stages(baseline, run):
        closed = run.experiment.stages[stage].arrival == "closed"
        for metric in ("ttft_s", "tpot_s", "e2e_s") if closed else ("ttft_scheduled_s", "tpot_s", "e2e_scheduled_s"):
            yield from ((stage, moved(baseline, run, variant, stage, metric, statistic)) for statistic in _STATISTICS)
        for metric in RATES if closed else ():
            if metric != "goodput_per_s" or run.experiment.slo:
                yield stage, moved(baseline, run, variant, stage, metric, None)
    of_run = [moved(baseline, run, variant, "", metric, None) for metric in (*MEMORIES, *PRICES, "quality")]
    yield from (("", one) for one in of_run if one.difference is not None)


def _paired(one: Moved) -> PairedDifference:
    """As `compare` knows it."""
    span = one.difference
    if span is None or span.low is None or span.high is None or span.error is None:
        return PairedDifference(None if span is None else span.value, Interval(None, None), None, one.n)
    return PairedDifference(span.value, Interval(span.low, span.high), p_value(span.value, span.error, span.degrees), one.n)


def _difference(variant: str, stage: str, one: Moved, paired: PairedDifference, adjusted_p: float | None, tests: int) -> RunDifference:
    (value, low, high), (relative, relative_low, relative_high) = ends(one.difference), ends(one.relative)
    margin = one.margin if one.margin is not None else SAME_MARGIN * abs(one.baseline or 0.0)
    verdict = _verdict(one, margin, adjusted_p)
    return RunDifference(
        variant=variant, stage=stage, metric=one.metric, statistic=one.statistic, unit=one.unit, baseline=one.baseline, value=one.run,
        difference=value, ci95_low=low, ci95_high=high, relative=relative, relative_ci95_low=relative_low, relative_ci95_high=relative_high,
        n=one.n, verdict=verdict, starts=one.starts, note=one.note,
        n_to_decide=pairs_to_decide(paired, margin / SAME_MARGIN, tests) if verdict == "cannot tell" else None,
    )  # fmt: skip


def _verdict(one: Moved, margin: float, adjusted_p: float | None) -> Verdict:
    span = one.difference
    if span is None or span.low is None or span.high is None or adjusted_p is None:
        return "cannot tell"
    if -margin <= span.low and span.high <= margin:
        return "same"
    if adjusted_p < ALPHA and (span.low > 0 or span.high < 0):
        return "better" if (span.value < 0) == (one.better == "lower") else "worse"
    return "cannot tell"
