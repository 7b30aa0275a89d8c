"""The table of a run whose requests were spread over many adapters: what each adapter got, beside all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perfbench.records import MetricSummary, RequestCounts, Summary, TrialSummary
from perfbench.report import formats
from perfbench.report.repeats import arrival_of, over_repeats, stage_names, usable_trials
from perfbench.report.tables import Cell, Column, Table, metric_title, range_cell

_TOGETHER = "all together"
MetricsOf = Callable[[TrialSummary], dict[str, MetricSummary] | None]


def adapters_table(summary: Summary) -> Table:
    """Stage x adapter, of each variant where several spread theirs; without rows where every trial asked for one model."""
    spread = [name for name, variant in summary.variants.items() if any(trial.adapters for trial in variant.trials)]
    several = len(spread) > 1
    columns = (
        Column("Stage", align="left"), *((Column("Variant", align="left"),) if several else ()), Column("Adapter", align="left"),
        Column("Requests", "over all repeats"), Column("Share"), Column("TTFT p95", metric_title("ttft_s")),
        Column("TPOT p95", metric_title("tpot_s")), Column("E2E p95", metric_title("e2e_s")), Column("Failed"),
    )  # fmt: skip
    rows = tuple(
        (row[0], *((Cell(name),) if several else ()), *row[1:])
        for stage in stage_names(summary) for name in spread for row in _rows(summary, stage, usable_trials(summary.variants[name], stage))
    )  # fmt: skip
    caption = "Percentiles are means over the repeats that an adapter was asked in; open-loop stages count from the scheduled time."
    return Table("adapters", "Adapter by adapter", caption, columns, rows, details="Below a percentile: its range over repeats.")


def _rows(summary: Summary, stage: str, trials: Sequence[TrialSummary]) -> list[tuple[Cell, ...]]:
    spread = [trial for trial in trials if trial.adapters]
    if not spread:
        return []
    scheduled = "" if arrival_of(summary, stage) == "closed" else "_scheduled"
    names = (f"ttft{scheduled}_s", "tpot_s", f"e2e{scheduled}_s")
    total = sum(trial.requests.ok + trial.requests.failed for trial in spread)
    rows = [_row(stage, _TOGETHER, spread, [trial.requests for trial in spread], total, names, lambda trial: trial.metrics)]
    for adapter in dict.fromkeys(name for trial in spread for name in trial.adapters):
        counts = [trial.adapters[adapter].requests for trial in spread if adapter in trial.adapters]
        rows.append(_row(stage, adapter, spread, counts, total, names, _metrics_of(adapter)))
    return rows


def _metrics_of(adapter: str) -> MetricsOf:
    return lambda trial: trial.adapters[adapter].metrics if adapter in trial.adapters else None


def _row(
    stage: str, label: str, trials: Sequence[TrialSummary], counts: Sequence[RequestCounts], total: int, names: Sequence[str], metrics_of: MetricsOf
) -> tuple[Cell, ...]:
    asked, failed = sum(count.ok + count.failed for count in counts), sum(count.failed for count in counts)
    found = [metrics for trial in trials if (metrics := metrics_of(trial)) is not None]
    latencies = (range_cell(over_repeats(metrics[name].p95 for metrics in found if name in metrics), "s") for name in names)
    share = formats.percent(asked / total if total else None)
    return (Cell(stage), Cell(label), Cell(formats.count(asked)), Cell(share), *latencies, Cell(formats.count(failed), mark="fail" if failed else None))
