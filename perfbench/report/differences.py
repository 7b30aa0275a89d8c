"""Tables of differences: every paired comparison that the run made, and the adapter's way from base to merged as steps."""

from __future__ import annotations

from perfbench.records import Comparison, Summary
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table, metric_label, metric_title, metric_unit

ADAPTER_STEPS = (
    ("base", "base+lora", "LoRA enabled, adapter idle"),
    ("base+lora", "adapter", "adapter in use"),
    ("base", "adapter", "whole adapter tax"),
    ("base", "merged", "merged against base"),
    ("adapter", "merged", "merged instead of adapter"),
)
"""(left, right, what the step is): what each one costs is right - left."""


def difference_cells(comparison: Comparison, unit: str) -> tuple[Cell, Cell, Cell]:
    """Difference with its interval, relative difference, verdict."""
    low, high = (formats.signed(formats.quantity(bound, unit)) for bound in (comparison.ci95_low, comparison.ci95_high))
    bounds = "" if comparison.ci95_low is None or comparison.ci95_high is None else formats.joined(low, high)
    return (
        Cell(formats.signed(formats.quantity(comparison.difference, unit)), bounds),
        Cell(formats.share_of(comparison.relative)),
        Cell(comparison.verdict, mark=comparison.verdict),
    )


def comparison_table(summary: Summary) -> Table:
    """Every comparison, in the order in which analyse gives them."""
    columns = (
        Column("Comparison", align="left"), Column("Metric", align="left"), Column("Stage", align="left"),
        Column("Difference", "right - left, with its 95 % interval"), Column("Relative", "difference over left"), Column("Verdict", align="left"),
        Column("Pairs", "prompts that both answered"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{one.left} → {one.right}"), Cell(metric_label(one.metric), title=metric_title(one.metric)), Cell(one.stage or formats.DASH),
            *difference_cells(one, metric_unit(summary, one.metric)), Cell(formats.count(one.n)),
        )
        for one in summary.comparisons
    )  # fmt: skip
    caption = (
        "Right minus left, paired by prompt; the verdict is on the right one. same: the whole interval is too small to choose by. "
        "cannot tell: the difference may be chance."
    )
    return Table("comparisons", "Differences", caption, columns, rows)


def adapter_steps(summary: Summary, metric: str, stage: str) -> list[tuple[str, str, Comparison]]:
    """(step, what it is, comparison) for each step from base to merged that the run compared."""
    found = {(one.left, one.right): one for one in summary.comparisons if (one.metric, one.stage) == (metric, stage)}
    return [(f"{left} → {right}", what, found[left, right]) for left, right, what in ADAPTER_STEPS if (left, right) in found]


def adapter_metrics(summary: Summary, stage: str) -> list[str]:
    """The metrics that have at least one step at this stage."""
    return [metric for metric in dict.fromkeys(one.metric for one in summary.comparisons) if adapter_steps(summary, metric, stage)]


def adapter_tax_table(summary: Summary, stage: str) -> Table:
    """What LoRA serving costs at one stage: a row a step, a column a metric."""
    metrics = adapter_metrics(summary, stage)
    steps = {metric: {step: one for step, _, one in adapter_steps(summary, metric, stage)} for metric in metrics}
    meanings = {step: what for metric in metrics for step, what, _ in adapter_steps(summary, metric, stage)}
    columns = (
        Column("Step", align="left"),
        *(Column(metric_label(metric), metric_title(metric), minor=place > 1) for place, metric in enumerate(metrics)),
        Column("What it is", align="left", prose=True, minor=True),
    )
    rows = tuple(
        (Cell(step), *(_step_cell(steps[metric].get(step), metric_unit(summary, metric)) for metric in metrics), Cell(meanings[step]))
        for step in (f"{left} → {right}" for left, right, _ in ADAPTER_STEPS) if step in meanings
    )  # fmt: skip
    caption = "What each step adds (right minus left, paired by prompt), and whether it is for the better."
    return Table(f"adapter-tax-{stage}", f"Adapter tax at stage {stage}", caption, columns, rows, details="Below each figure: its 95 % interval.")


def _step_cell(comparison: Comparison | None, unit: str) -> Cell:
    if comparison is None:
        return Cell(formats.DASH)
    difference, relative, verdict = difference_cells(comparison, unit)
    text = difference.text if relative.text == formats.DASH else f"{difference.text}, {relative.text}"
    return Cell(text, difference.detail, verdict.mark)
