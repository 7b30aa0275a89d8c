"""Other tools' definitions as tables: formulas beside ours (`perfbench metrics --definitions`), a run's figures (`perfbench report --definitions`)."""

from __future__ import annotations

from collections.abc import Sequence

from perfbench.analyse.definitions import GOODPUT, Recomputed, of_tool
from perfbench.analyse.metrics import BY_NAME, METRICS, metric_label
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table

_STATISTICS = ("mean", "p50", "p99")


def metrics_table() -> Table:
    """The metric table for a terminal."""
    columns = (
        Column("Metric", align="left"), Column("Unit", align="left"), Column("Formula", align="left", prose=True), Column("Better", align="left", minor=True),
        Column("Meaning", align="left", prose=True), Column("None when", align="left", prose=True, minor=True),
        Column("Source", align="left", prose=True, minor=True),
    )  # fmt: skip
    rows = tuple(
        tuple(Cell(text) for text in (one.name, one.unit, one.formula, one.better, one.meaning, one.none_when, one.source)) for one in METRICS
    )  # fmt: skip
    caption = "sch scheduled, s sent, f and l first and last content, n output tokens by the server's usage. docs/metrics.md has it all."
    return Table("metrics", "Metrics", caption, columns, rows)


def formulas_table(tool: str) -> Table:
    """What a tool calls what, and what we call it."""
    columns = (
        Column(tool, align="left"), Column("Its formula", align="left", prose=True), Column("Ours", align="left"),
        Column("Our formula", align="left", prose=True), Column("What our records cannot tell, or what is done otherwise", align="left", prose=True),
    )  # fmt: skip
    rows = [(one.name, one.formula, one.ours, BY_NAME[one.ours].formula, one.differs or formats.DASH) for one in of_tool(tool)]
    rows.append(("goodput", GOODPUT[tool], "goodput_per_s", BY_NAME["goodput_per_s"].formula, formats.DASH))
    caption = "s sent, f and l first and last content, n output tokens by the server's usage."
    return Table(f"definitions-{tool}", f"{tool}'s definitions", caption, columns, tuple(tuple(Cell(text) for text in row) for row in rows))


def recomputed_table(tool: str, rows: Sequence[Recomputed]) -> Table:
    """A run's figures by the tool's formulas, each with ours below it."""
    columns = (
        Column("Stage", align="left"), Column("Variant", align="left"), Column(tool, align="left"),
        *(Column(name, minor=name == "p50") for name in _STATISTICS), Column("Ours", align="left"),
        *(Column(f"our {name}", minor=name == "p50") for name in _STATISTICS), Column("n", minor=True),
    )  # fmt: skip
    cells = tuple(
        (
            Cell(row.stage), Cell(row.variant), Cell(row.name), *(Cell(formats.quantity(row.theirs[name], _unit(row))) for name in _STATISTICS),
            Cell(metric_label(row.ours)), *(Cell(formats.quantity(row.our_values[name], _unit(row))) for name in _STATISTICS), Cell(formats.count(row.n)),
        )
        for row in rows
    )  # fmt: skip
    notes = "".join(f" {note[:1].upper()}{note[1:]}." for note in dict.fromkeys(row.note for row in rows if row.note))
    caption = (
        f"The same requests by {tool}'s formulas (percentiles interpolated, as it does) and by ours; successful ones scheduled in the measured windows, "
        f"repeats together.{notes} Where they still differ: perfbench metrics --definitions {tool}."
    )
    return Table(f"recomputed-{tool}", f"As {tool} would say it", caption, columns, cells)


def _unit(row: Recomputed) -> str:
    return BY_NAME[row.ours].unit
