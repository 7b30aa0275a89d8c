"""What stands behind a verdict on quality: every metric that decides, and where in the data the difference lies."""

from __future__ import annotations

from perfbench.records import Estimate, Summary
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table

_SLICES = 100
"""A column with a value of its own in every row would fill the report."""


def verdicts_table(summary: Summary) -> Table:
    """The verdict of each variant and the metric that it rests on, for a terminal: the quality table has every metric."""
    columns = (
        Column("Variant", align="left"), Column("Verdict", align="left"), Column("Metric", align="left"), Column("Value"),
        Column("Reason", align="left", prose=True),
    )  # fmt: skip
    checked = {name: variant.quality for name, variant in summary.variants.items() if variant.quality is not None}
    rows = []
    for name, quality in checked.items():
        value = quality.metrics.get(quality.metric or "")
        figure = Cell(formats.DASH) if value is None else Cell(formats.percent(value.value), formats.interval(value.ci95_low, value.ci95_high, "share"))
        metric = Cell(quality.metric or formats.DASH)
        rows.append((Cell(name), Cell(quality.verdict, mark=quality.verdict), metric, figure, Cell(formats.one_line(quality.reason, 1000))))
    return Table("verdicts", "Quality by variant", "Every metric is in the report.", columns, tuple(rows), details="Below a figure: its 95 % interval.")


def gates_table(summary: Summary) -> Table:
    """One row for each deciding metric of each variant; empty where one metric decides alone, since the quality table says all of it."""
    columns = (
        Column("Variant", align="left"), Column("Metric", align="left"), Column("Verdict", align="left"), Column("Margin"), Column("Difference"),
        Column("Samples"), Column("Samples to decide"), Column("Reason", align="left", prose=True),
    )  # fmt: skip
    several = [(name, checked.gates) for name, variant in summary.variants.items() if (checked := variant.quality) is not None and len(checked.gates) > 1]
    rows = tuple(
        (
            Cell(name), Cell(gate.metric), Cell(gate.verdict, mark=gate.verdict), Cell(formats.quantity(gate.margin, "share")), _difference(gate.difference),
            Cell(formats.count(gate.n)), Cell(formats.count(gate.n_to_decide)), Cell(formats.one_line(gate.reason)),
        )
        for name, gates in several
        for gate in gates
    )  # fmt: skip
    caption = "Variant minus base; the verdict of a variant is the worst of these, by Holm's correction over all of them."
    return Table("quality-gates", "Metrics that decide", caption, columns, rows, details="Below a difference: its 95 % interval.")


def slices_table(summary: Summary) -> Table:
    """The deciding metric by slice. Slices decide nothing: they show where a difference comes from."""
    columns = (
        Column("Slice", align="left"), Column("Variant", align="left"), Column("Metric", align="left"), Column("Value"), Column("Against base"),
        Column("Samples"),
    )  # fmt: skip
    rows = []
    for name, variant in summary.variants.items():
        if variant.quality is None:
            continue
        for column, values in variant.quality.slices.items():
            for value, part in values.items():
                figure = Cell(formats.percent(part.value.value), formats.interval(part.value.ci95_low, part.value.ci95_high, "share"))
                where = formats.one_line(f"{column}: {value}")
                metric, n = Cell(variant.quality.metric or formats.DASH), Cell(formats.count(part.n))
                rows.append((part.n, (Cell(where), Cell(name), metric, figure, _difference(part.difference), n)))
    shown = sorted(rows, key=lambda row: -row[0])[:_SLICES] if len(rows) > _SLICES else rows
    more = f" The {_SLICES} rows of the largest slices are shown; {len(rows) - _SLICES:,} more are in summary.json." if len(rows) > _SLICES else ""
    caption = f"Slices decide nothing: they show where a difference comes from, and many small ones differ by chance.{more}"
    return Table("quality-slices", "Quality by slice", caption, columns, tuple(row for _, row in shown), details="Below a figure: its 95 % interval.")


def signature_lines(summary: Summary) -> list[tuple[str, str]]:
    """(metric, how it was computed), once: what somebody needs to compute the same figure."""
    found = {metric: text for variant in summary.variants.values() if variant.quality is not None for metric, text in variant.quality.signatures.items()}
    return list(found.items())


def _difference(estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return Cell(formats.DASH)
    return Cell(f"{estimate.value:+.3f}", formats.interval(estimate.ci95_low, estimate.ci95_high, "share"))
