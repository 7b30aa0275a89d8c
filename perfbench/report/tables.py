"""The tables that every renderer shows: which rows and columns there are, and what stands in each cell.

A table is plain text in cells, with a detail (an interval or a range), a mark (better, worse, ...) and a tooltip beside it where there is
one. `terminal`, `html` and `markdown` draw the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from perfbench.analyse.metrics import BY_NAME, metric_label
from perfbench.records import CapacitySummary, CostSummary, Manifest, Summary, TrialSummary, VariantSummary
from perfbench.report import formats
from perfbench.report.repeats import (
    HeadlineStage,
    OverRepeats,
    Statistic,
    arrival_of,
    headline_stage,
    meets_slo,
    metric_over_repeats,
    rate_over_repeats,
    stage_names,
    usable_trials,
)

Mark = Literal["better", "worse", "same", "cannot tell", "pass", "fail", "inconclusive", "reference", "valid", "suspect", "void", "skipped", "not comparable"]

SYMBOLS: dict[Mark, str] = {
    "better": "▲", "worse": "▼", "same": "≈", "cannot tell": "?",
    "pass": "✓", "fail": "✗", "inconclusive": "?", "reference": "·",
    "valid": "✓", "suspect": "!", "void": "✗", "skipped": "-", "not comparable": "?",
}  # fmt: skip
LEGEND = "▲ better, ▼ worse, ≈ no difference that counts, ? cannot tell: the mean, against {reference} at the same stage."
OVER_REPEATS = "Each figure is the mean over the repeats that the audit does not call void."
RANGES = "Below a figure: its 95 % interval; where the windows are too short for one, its range over repeats."


@dataclass(frozen=True)
class Cell:
    """One figure or word."""

    text: str
    detail: str = ""
    mark: Mark | None = None
    title: str = ""


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand on the right."""

    name: str
    title: str = ""
    align: Literal["left", "right"] = "right"
    prose: bool = False
    """Sentences, which may wrap; figures and names may not."""
    minor: bool = False
    """Left out first where there is no room for all columns."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; the first cell of a row is its heading."""

    key: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    emphasised: frozenset[int] = field(default=frozenset())
    """Rows to draw the eye to: the recommended variant."""
    details: str = ""
    """What the cells' details are; said only where they are shown."""

    @property
    def full_caption(self) -> str:
        return f"{self.caption} {self.details}".strip()


def metric_title(name: str) -> str:
    """Name, formula and meaning, for a tooltip."""
    metric = BY_NAME.get(name)
    return name if metric is None else f"{name} = {metric.formula}. {metric.meaning}"


def metric_unit(summary: Summary, name: str) -> str:
    """The unit of a metric: by the metric table, else `share` for a quality metric, else ''."""
    if name in BY_NAME:
        return BY_NAME[name].unit
    qualities = (variant.quality for variant in summary.variants.values())
    return "share" if any(quality is not None and name in quality.metrics for quality in qualities) else ""


def reference_variant(summary: Summary) -> str | None:
    """What the others are held against: `base` where it was measured, else the first variant."""
    return "base" if "base" in summary.variants else next(iter(summary.variants), None)


def verdict_against(summary: Summary, reference: str | None, variant: str, metric: str, stage: str) -> Mark | None:
    """How `variant` compares with `reference`; None where the run did not compare them."""
    turned: dict[str, Mark] = {"better": "worse", "worse": "better", "same": "same", "cannot tell": "cannot tell"}
    for comparison in summary.comparisons:
        if (comparison.metric, comparison.stage) != (metric, stage):
            continue
        if (comparison.left, comparison.right) == (reference, variant):
            return comparison.verdict
        if (comparison.left, comparison.right) == (variant, reference):
            return turned[comparison.verdict]
    return None


def main_table(summary: Summary, manifest: Manifest) -> Table:
    """Variant x (TTFT, TPOT, throughput at the headline stage; goodput at the SLO, capacity where it was searched for, memory, price, quality)."""
    headline = headline_stage(summary)
    reference = reference_variant(summary)
    columns = (
        Column("Variant", align="left"),
        Column("TTFT p95", metric_title(headline.ttft_metric if headline else "ttft_s")),
        Column("TPOT p95", metric_title("tpot_s")),
        Column("Tokens/s", metric_title("output_tokens_per_s"), minor=True),
        Column("At the SLO", "goodput at the load with the most of it among those that meet the SLO: each variant at its own, as its price", minor=True),
        *_capacity_column(summary),
        Column("Memory", "peak device memory of the server; of the host where the server has no GPU"),
        Column(f"{formats.currency_sign(currency_of(summary)).strip()}/{_priced(summary)}", metric_title("usd_per_request")),
        Column("Quality", "the metric that decides, on held-out samples"),
    )
    rows = tuple(_main_row(summary, manifest, name, headline, reference) for name in summary.variants)
    emphasised = frozenset(index for index, name in enumerate(summary.variants) if name == summary.recommendation.serve)
    details = f"{RANGES} Below quality: its 95 % interval."
    return Table("main", "Variants side by side", _main_caption(summary, headline, reference), columns, rows, emphasised, details)


def _main_caption(summary: Summary, headline: HeadlineStage | None, reference: str | None) -> str:
    if headline is None:
        searched = any(variant.probes for variant in summary.variants.values())
        return "No stage was measured: what the searches found is below." if searched else "No trial has finished."
    loop = "" if headline.arrival == "closed" else " TTFT counts from the scheduled time."
    legend = f" {LEGEND.format(reference=reference)}" if summary.comparisons else ""
    best = {name: stage for name, variant in summary.variants.items() if (stage := slo_stage(variant)) is not None}
    deciding = dict.fromkeys(variant.quality.metric for variant in summary.variants.values() if variant.quality is not None and variant.quality.metric)
    quality = f" Quality is {' and '.join(deciding)}." if deciding else ""
    return f"Speed at stage {headline.stage}: {headline.reason}.{loop}{_elsewhere(best, headline.stage)}{quality} {OVER_REPEATS}{legend}"


def _elsewhere(best: Mapping[str, str], shown: str) -> str:
    """Of which stages goodput at the SLO and the price are; empty where it is the table's own."""
    stages = set(best.values())
    if stages <= {shown}:
        return ""
    if len(stages) == 1:
        return f" Goodput at the SLO, and the price by it, are of stage {stages.pop()}."
    at = ", ".join(f"{name} at {stage}" for name, stage in best.items() if stage != shown)
    return f" Goodput at the SLO, and the price by it, are of each variant's best stage: {at}."


def _main_row(summary: Summary, manifest: Manifest, name: str, headline: HeadlineStage | None, reference: str | None) -> tuple[Cell, ...]:
    variant = summary.variants[name]
    label = Cell(name, detail="recommended" if name == summary.recommendation.serve else "")
    speed = (Cell(formats.DASH),) * 4 if headline is None else _speed_cells(summary, name, headline, reference)
    capacity = (capacity_cell(variant.capacity or variant.concurrency),) if _capacity_column(summary) else ()
    price = money_cell(variant.cost, "usd_per_request", times=1_000_000 if _by_million(summary) else 1, title=variant.cost.basis)
    return (label, *speed, *capacity, memory_cell(variant), price, quality_cell(variant))


def _priced(summary: Summary) -> str:
    return "1M requests" if _by_million(summary) else "request"


def _by_million(summary: Summary) -> bool:
    """One unit for the whole column."""
    return any(formats.per_million(variant.cost.usd_per_request) for variant in summary.variants.values())


def money_cell(cost: CostSummary, price: str, *, times: int = 1, title: str = "") -> Cell:
    """One of a variant's prices, of so many requests, with its interval where the rate that it rests on has one."""
    estimate = cost.intervals.get(price)
    figures = (getattr(cost, price), *((None, None) if estimate is None else (estimate.ci95_low, estimate.ci95_high)))
    told, low, high = (formats.money(None if value is None else value * times, cost.currency) for value in figures)
    return Cell(told, formats.joined(low, high) if formats.DASH not in (low, high) else "", title=title)


def _capacity_column(summary: Summary) -> tuple[Column, ...]:
    searched = any(variant.capacity or variant.concurrency for variant in summary.variants.values())
    return (Column("Up to", "the highest load that meets the SLO, by search: requests/s, or streams of a closed loop"),) if searched else ()


def capacity_cell(found: CapacitySummary | None) -> Cell:
    """The edge that a search found, with its interval; open on a side where no load was beyond it."""
    if found is None:
        return Cell(formats.DASH)
    unit = "1/s" if found.find == "max_rate" else "streams"
    low, high = formats.quantity(found.low, unit), formats.quantity(found.high, unit)
    return Cell(formats.quantity(found.value, unit), f"{low} to {high}" if found.low is not None or found.high is not None else "", title=found.basis)


def currency_of(summary: Summary) -> str:
    """What every price of the run is in."""
    return next((variant.cost.currency for variant in summary.variants.values()), "USD")


def _speed_cells(summary: Summary, name: str, headline: HeadlineStage, reference: str | None) -> tuple[Cell, ...]:
    variant, stage = summary.variants[name], headline.stage

    def mark(metric: str) -> Mark | None:
        return verdict_against(summary, reference, name, metric, stage) if name != reference else None

    return (
        range_cell(metric_over_repeats(variant, stage, headline.ttft_metric, "p95"), "s", mark(headline.ttft_metric) or mark("ttft_s")),
        range_cell(metric_over_repeats(variant, stage, "tpot_s", "p95"), "s", mark("tpot_s")),
        range_cell(rate_over_repeats(variant, stage, "output_tokens_per_s"), "", mark("output_tokens_per_s")),
        _slo_goodput_cell(summary, name, reference),
    )


def _slo_goodput_cell(summary: Summary, name: str, reference: str | None) -> Cell:
    """The most goodput of a stage that meets the SLO; marked where the reference has its own at the same stage."""
    if not summary.slo:
        return Cell(formats.DASH, title="the scenario sets no SLO")
    best = summary.variants[name].at_slo
    if best is None:
        known = any(meets_slo(summary.variants[name], one) is False for one in stage_names(summary))
        return Cell("no stage", mark="fail", title="no stage meets the SLO") if known else Cell(formats.DASH)
    alike = reference is not None and name != reference and slo_stage(summary.variants[reference]) == best.stage
    mark = verdict_against(summary, reference, name, "goodput_per_s", best.stage) if alike else None
    rate = best.goodput_per_s
    sure = formats.interval(rate.ci95_low, rate.ci95_high, "1/s")
    return Cell(formats.quantity(rate.value, "1/s"), sure, mark, title=f"at stage {best.stage}")


def slo_stage(variant: VariantSummary) -> str | None:
    """Where the variant has the most goodput at the SLO, and its price; None where it meets it nowhere."""
    return variant.at_slo.stage if variant.at_slo is not None else None


def range_cell(value: OverRepeats, unit: str, mark: Mark | None = None) -> Cell:
    """The mean with its 95% interval; without one, with the range over repeats where there is more than one."""
    sure = formats.interval(value.ci95_low, value.ci95_high, unit)
    return Cell(formats.quantity(value.mean, unit), sure or (f"range {formats.interval(value.low, value.high, unit)}" if value.n > 1 else ""), mark)


def memory_cell(variant: VariantSummary) -> Cell:
    """Device memory, or host memory named as such."""
    shared = f"shared with {', '.join(variant.memory.shared_with)}" if variant.memory.shared_with else ""
    if variant.memory.vram_bytes_peak is not None:
        return Cell(formats.gib(variant.memory.vram_bytes_peak), title=shared)
    if variant.memory.host_rss_bytes_peak is not None:
        return Cell(formats.gib(variant.memory.host_rss_bytes_peak), detail="host", title=shared)
    return Cell(formats.DASH)


def quality_cell(variant: VariantSummary) -> Cell:
    """The deciding metric with its interval, marked with the verdict; a dash where it was not run, never another metric in its place."""
    if variant.quality is None:
        return Cell(formats.DASH)
    value = variant.quality.metrics.get(variant.quality.metric or "")
    if value is None:
        return Cell(formats.DASH, mark=variant.quality.verdict, title=variant.quality.reason)
    return Cell(formats.percent(value.value), formats.interval(value.ci95_low, value.ci95_high, "share"), variant.quality.verdict, variant.quality.reason)


def stage_table(summary: Summary) -> Table:
    """Every stage x variant: what was driven, how fast it was, whether the SLO was met."""
    names = ("TTFT p95", "TPOT p95", "E2E p95", "Requests/s", "Tokens/s", "Goodput", "Failed", "SLO")
    minor = {"E2E p95", "Requests/s", "Goodput"}
    columns = (Column("Stage", align="left"), Column("Variant", align="left"), *(Column(name, minor=name in minor) for name in names))
    rows = tuple(_stage_row(variant, stage, name) for stage in stage_names(summary) for name, variant in summary.variants.items() if _has(variant, stage))
    closed = [stage for stage in stage_names(summary) if arrival_of(summary, stage) == "closed"]
    opened = [stage for stage in stage_names(summary) if stage not in closed]
    loops = f" Open-loop stages ({', '.join(opened)}) count from the scheduled time." if opened else ""
    return Table("stages", "Every stage", OVER_REPEATS + loops, columns, rows, details=RANGES)


def _has(variant: VariantSummary, stage: str) -> bool:
    return any(trial.stage == stage for trial in variant.trials)


def _stage_row(variant: VariantSummary, stage: str, name: str) -> tuple[Cell, ...]:
    trials = usable_trials(variant, stage)
    arrival = next(trial.arrival for trial in variant.trials if trial.stage == stage)
    scheduled = "" if arrival == "closed" else "_scheduled"
    latencies = (f"ttft{scheduled}_s", "tpot_s", f"e2e{scheduled}_s")
    return (
        Cell(stage, detail=arrival),
        Cell(name, mark=worst_verdict([trial for trial in variant.trials if trial.stage == stage])),
        *(range_cell(metric_over_repeats(variant, stage, metric, "p95"), "s") for metric in latencies),
        range_cell(rate_over_repeats(variant, stage, "requests_per_s"), "1/s"),
        range_cell(rate_over_repeats(variant, stage, "output_tokens_per_s"), ""),
        range_cell(rate_over_repeats(variant, stage, "goodput_per_s"), "1/s"),
        _failed_cell(trials),
        _slo_cell(variant, stage, trials),
    )


def worst_verdict(trials: Sequence[TrialSummary]) -> Mark | None:
    """`void` or `suspect` where a trial is; None when all are valid."""
    verdicts = {trial.audit.verdict for trial in trials}
    return "void" if "void" in verdicts else "suspect" if "suspect" in verdicts else None


def _failed_cell(trials: Sequence[TrialSummary]) -> Cell:
    if not trials:
        return Cell(formats.DASH)
    failed, total = sum(trial.requests.failed for trial in trials), sum(trial.requests.ok + trial.requests.failed for trial in trials)
    return Cell(f"{failed:,} of {total:,}", mark="fail" if failed else None)


def _slo_cell(variant: VariantSummary, stage: str, trials: Sequence[TrialSummary]) -> Cell:
    met = meets_slo(variant, stage)
    if met is None:
        return Cell(formats.DASH)
    missed = [
        f"{metric_label(metric)} p{str(limit['percentile']).lstrip('p')} {formats.quantity(limit['measured'], 's')} > {formats.quantity(limit['limit'], 's')}"
        for trial in trials for metric, limit in ((trial.slo or {}).get("limits") or {}).items() if limit["met"] is False
    ]  # fmt: skip
    return Cell("met" if met else "missed", mark="pass" if met else "fail", title="; ".join(dict.fromkeys(missed)))


def latency_table(summary: Summary, stage: str) -> Table:
    """Every metric of a stage: percentiles over repeats, and the mean with the interval that each trial gives."""
    columns = (Column("Metric", align="left"), Column("Variant", align="left"), *(Column(name) for name in ("mean", "p50", "p90", "p95", "p99", "n")))
    metrics = dict.fromkeys(metric for variant in summary.variants.values() for trial in usable_trials(variant, stage) for metric in trial.metrics)
    rows = tuple(_latency_row(summary, stage, metric, name) for metric in metrics for name in summary.variants)
    return Table(f"latency-{stage}", f"Latency at stage {stage}", OVER_REPEATS, columns, rows, details=RANGES)


def _latency_row(summary: Summary, stage: str, metric: str, name: str) -> tuple[Cell, ...]:
    variant, unit = summary.variants[name], metric_unit(summary, metric)
    found = [trial.metrics[metric] for trial in usable_trials(variant, stage) if metric in trial.metrics]
    statistics: tuple[Statistic, ...] = ("mean", "p50", "p90", "p95", "p99")
    return (
        Cell(metric_label(metric), title=metric_title(metric)),
        Cell(name),
        *(range_cell(metric_over_repeats(variant, stage, metric, statistic), unit) for statistic in statistics),
        Cell(formats.count(sum(one.n for one in found))),
    )
