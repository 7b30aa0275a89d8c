"""One metric of one variant in two runs, whatever kind of metric it is; and every metric that two runs have in common, with verdicts.

    latencies   requests that both runs answered, paired by prompt and occurrence       mean or percentile
    rates       windows cut into equal slices, paired by place; closed loop only        the mean
    prices      the rate behind the price, at the stage that each run's price rests on  turned into USD (`run_prices`; per correct answer: with the samples)
    energy      the counter's joules a request, repeat by repeat                        the mean
    failures    requests scheduled in the window, those of each run                     the share (`run_failures`)
    quality     held-out samples, paired by id                                          the metric that decides
    memory      the largest reading of each run: one figure each, so no interval

Goodput and prices of both runs are judged by the newer run's SLO. Verdicts as in `compare` (same within SAME_MARGIN of the baseline; for quality within the
scenario's margin), Holm over everything that was compared.
"""

from __future__ import annotations

from collections.abc import Iterator

from perfbench.analyse.compare import ALPHA, SAME_MARGIN, Verdict, latencies_of, nothing_paired, pairs_to_decide, slices_spanned
from perfbench.analyse.memory_differences import MEMORIES
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.moved import Moved, Span, empty, ends, from_change, paired_slices, paired_trials, rate_starts, seed, starts_of
from perfbench.analyse.run_change import change
from perfbench.analyse.run_failures import FAILED, failed_moved
from perfbench.analyse.run_prices import PRICES, correct_price_moved, energy_moved, price_moved
from perfbench.analyse.starts import start_sd, start_variance, starts_seen
from perfbench.analyse.stats import Z975, Floats, Interval, PairedDifference, holm, p_value
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.two_runs import FinishedRun, common_stages, common_variants, only_in_one
from perfbench.records import RunComparison, RunDifference, Unlike
from perfbench.scenario.gate import LATENCIES, OF_STAGE, RATES

_STATISTICS = ("mean", "p95")


def moved(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, metric: str, statistic: str | None) -> Moved:
    """`stage` is '' for what is of the whole run; `statistic` is for latencies, None: mean."""
    if metric in LATENCIES:
        return _latency(baseline, run, variant, stage, metric, statistic or "mean")
    if metric in RATES:
        return _rate(baseline, run, variant, stage, metric)
    if metric in MEMORIES:
        return _memory(baseline, run, variant, metric)
    if metric in PRICES:
        return price_moved(baseline, run, variant, metric)
    if metric == "usd_per_correct_request":
        return correct_price_moved(baseline, run, variant)
    if metric == "energy_j_per_request":
        return energy_moved(baseline, run, variant, stage)
    if metric == FAILED:
        return failed_moved(baseline, run, variant, stage)
    return _quality(baseline, run, variant)


def _latency(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, metric: str, statistic: str) -> Moved:
    both = paired_trials(baseline, run, variant, stage)
    if not both:
        return empty(metric, statistic, "no repeat that both runs can use (void trials are left out)")
    rows = [_paired_rows(old, new, metric) for old, new in both]
    labels = [pair for pair, (old, _) in zip(starts_of(both), rows, strict=True) if len(old)]
    allowance = start_variance(labels, start_sd(metric, both[0][0].plan.arrival))
    found = change(rows, statistic, seed=seed(variant, stage, metric, statistic), starts=allowance)
    few = f"too few requests for {statistic}" if any(len(old) for old, _ in rows) else nothing_paired(metric)
    return from_change(metric, statistic, found, few, starts_seen(labels) if labels else None)


def _paired_rows(old: AnalysedTrial, new: AnalysedTrial, metric: str) -> tuple[Floats, Floats]:
    """The metric of every request that both answered inside the window, in the baseline's sending order."""
    columns = ("prompt_id", "occurrence", "scheduled_ns", metric)
    left, right = (trial.measured.select(columns).drop_nulls(metric) for trial in (old, new))
    joined = left.join(right, on=["prompt_id", "occurrence"], suffix="_right").sort("scheduled_ns", "prompt_id")
    return joined[metric].to_numpy(), joined[f"{metric}_right"].to_numpy()


def _rate(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, metric: str) -> Moved:
    if run.experiment.stages[stage].arrival != "closed":
        return empty(metric, "rate", "the schedule sets the rate of an open-loop stage")
    both = paired_slices(paired_trials(baseline, run, variant, stage), run, metric)
    if not both and metric == "goodput_per_s" and not run.experiment.slo:
        return empty(metric, "rate", "the scenario has no SLO")
    if not both:
        used = paired_trials(baseline, run, variant, stage)
        return empty(metric, "rate", "answers came without usage" if used else "no repeat that both runs can use (void trials are left out)")
    starts, labels = rate_starts(run, both, metric)
    found = change([rows for _, rows in both], "mean", seed=seed(variant, stage, metric), starts=starts, spans=slices_spanned([pair for pair, _ in both]))
    return from_change(metric, "rate", found, "", starts_seen(labels))


def _memory(baseline: FinishedRun, run: FinishedRun, variant: str, metric: str) -> Moved:
    peaks = [getattr(one.summary.variants[variant].memory, f"{metric}_peak") for one in (baseline, run)]
    if peaks[0] is None or peaks[1] is None:
        return empty(metric, "peak", "not measured in both runs")
    difference = float(peaks[1] - peaks[0])
    unit, better = BY_NAME[metric].unit, BY_NAME[metric].better
    return Moved(metric, "peak", unit, better, peaks[0], peaks[1], Span(difference), Span(difference / peaks[0]) if peaks[0] else None, 1,
                 note="one figure a run, so no interval")  # fmt: skip


def _quality(baseline: FinishedRun, run: FinishedRun, variant: str) -> Moved:
    from perfbench.quality.decide import deciding_metric
    from perfbench.quality.fairness import computed_otherwise, not_comparable
    from perfbench.quality.measures import WIN_RATE, paired_difference, reading_of

    old, new, quality = baseline.quality.get(variant, []), run.quality.get(variant, []), run.experiment.quality
    if quality is None or not old or not new:
        return Moved("quality", "share", "share", "higher", note="a run has no quality check of it")
    metric = deciding_metric(quality)
    figures = [one.summary.variants[variant].quality for one in (baseline, run)]
    otherwise = computed_otherwise(figures[0], figures[1], metric)
    problem = "a win rate against base does not compare two runs" if metric == WIN_RATE else not_comparable(old, new) or otherwise
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
        for metric in latencies_of(run.experiment.stages[stage].arrival):
            yield from ((stage, moved(baseline, run, variant, stage, metric, statistic)) for statistic in _STATISTICS)
        for metric in RATES if closed else ():
            if metric != "goodput_per_s" or run.experiment.slo:
                yield stage, moved(baseline, run, variant, stage, metric, None)
        energy, failed = (moved(baseline, run, variant, stage, metric, None) for metric in OF_STAGE)
        yield from ((stage, one) for one in (energy, failed) if one.difference is not None and (one.metric != FAILED or one.baseline or one.run))
    of_run = [moved(baseline, run, variant, "", metric, None) for metric in (*MEMORIES, *PRICES, "usd_per_correct_request", "quality")]
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
