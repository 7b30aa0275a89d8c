"""The table of what searches found: the highest load at which each variant meets the SLO."""

from __future__ import annotations

from dataclasses import replace

from perfbench.records import CapacitySummary, Summary
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table, capacity_cell


def capacity_table(summary: Summary) -> Table:
    """Variant x search; without rows where nothing was searched for."""
    columns = (
        Column("Variant", align="left"), Column("Meets the SLO up to", "requests/s of the search's arrivals, or streams of a closed loop"),
        Column("Goodput", "good requests a second at the highest load that was seen to meet the SLO"),
        Column("Saturation", "requests/s that a closed loop of many streams completes, whatever their latency", minor=True),
        Column("Probes", minor=True), Column("Server time", "warm-ups and drains included", minor=True), Column("Because", align="left", prose=True),
    )  # fmt: skip
    found = [(name, one) for name, variant in summary.variants.items() for one in (variant.capacity, variant.concurrency) if one is not None]
    caption = "The highest load that meets the SLO, from probes that end as soon as they are clear."
    details = "Below a load: the 95 % interval of where the SLO begins to be missed."
    return Table("capacity", "Highest load at the SLO", caption, columns, tuple(_row(name, one) for name, one in found), details=details)


def _row(name: str, one: CapacitySummary) -> tuple[Cell, ...]:
    return (
        Cell(name),
        replace(capacity_cell(one), title=""),
        Cell(formats.quantity(one.goodput_per_s, "1/s")),
        Cell(formats.quantity(one.saturation_per_s, "1/s")),
        Cell(formats.count(one.probes)),
        Cell(formats.seconds(one.server_s)),
        Cell(one.basis),
    )
