"""The report in a terminal: the answer first, then the tables that fit, with Rich. Colour only where the terminal wants it (NO_COLOR)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from perfbench.records import Manifest, Plan, Summary
from perfbench.report import evidence, plan
from perfbench.report.adapters import adapters_table
from perfbench.report.answer import first_reasons, further_reasons
from perfbench.report.capacity import capacity_table
from perfbench.report.differences import tax_table
from perfbench.report.fidelity import fidelity_table
from perfbench.report.formats import one_line
from perfbench.report.repeats import headline_stage
from perfbench.report.tables import SYMBOLS, Cell, Column, Mark, Table, main_table, stage_table

if TYPE_CHECKING:
    from perfbench.doctor import Check

_GAP = 2
_PROSE_WIDTH = 24
"""What a column of sentences needs at least; it wraps."""

_STYLES: dict[Mark, str] = {
    "better": "green", "pass": "green", "valid": "green", "worse": "red", "fail": "red", "void": "red",
    "cannot tell": "yellow", "inconclusive": "yellow", "suspect": "yellow", "skipped": "yellow", "not comparable": "yellow", "same": "dim", "reference": "dim",
}  # fmt: skip


def print_report(summary: Summary, manifest: Manifest, console: Console, report_path: Path | None = None) -> None:
    """Print the answer, its tables, what the audit found and where the whole report is."""
    headline = headline_stage(summary)
    _print_answer(summary, console)
    tables = [main_table(summary, manifest), stage_table(summary), capacity_table(summary), adapters_table(summary)]
    if headline is not None:
        tables.append(tax_table(summary, headline.stage))
    tables += [fidelity_table(summary), evidence.under_load_table(summary), evidence.roofline_table(summary), evidence.audit_findings_table(summary)]
    for table in tables:
        if table.rows:
            console.print()
            console.print(fitted(table, console.width))
    for what, why in evidence.not_measured(summary, manifest).items():
        console.print(Text(f"not measured: {one_line(what)}: {one_line(why)}", style="dim"))
    if report_path is not None:
        console.print()
        console.print(Text(f"report: {report_path}"), soft_wrap=True)


def _print_answer(summary: Summary, console: Console) -> None:
    serve = summary.recommendation.serve
    answer = f"Serve {one_line(serve)}" if serve is not None else "This run cannot say which variant to serve"
    console.print(Text(answer, style="bold green" if serve is not None else "bold yellow"))
    for reason in first_reasons(summary.recommendation):
        console.print(Text(f"  - {one_line(reason)}"))
    behind = further_reasons(summary.recommendation)
    if behind:
        console.print(Text(f"  {len(behind)} {'sentence' if len(behind) == 1 else 'sentences'} behind these: in the report", style="dim"))
    if not summary.valid:
        console.print(Text("This run is not valid: the audit below says why.", style="bold red"))


def print_plan(planned: Plan, console: Console, report_path: Path) -> None:
    """Print the plan: its sentences, its tables and where the whole of it is."""
    console.print(Text(one_line(plan.headline(planned)), style="bold"))
    for line in [*plan.answer_lines(planned), *plan.warning_lines(planned)]:
        console.print(Text(f"- {one_line(line)}"))
    _print_tables(plan.tables(planned), console)
    for line in plan.break_even_lines(planned):
        console.print(Text(one_line(line), style="bold"))
    _print_tables([plan.break_even_table(planned)], console)
    console.print()
    console.print(Text(f"report: {report_path}#plan"), soft_wrap=True)


def _print_tables(tables: Sequence[Table], console: Console) -> None:
    for table in tables:
        if table.rows:
            console.print()
            console.print(fitted(table, console.width))
    console.print()


def doctor_table(checks: Sequence[Check]) -> RichTable:
    """What this machine can measure: one row a check, with what to do about it."""
    marks: dict[bool | None, Mark] = {True: "pass", False: "fail", None: "cannot tell"}
    columns = (
        Column("Check", align="left"), Column("", align="left"), Column("Found", align="left", prose=True), Column("What to do", align="left", prose=True),
    )  # fmt: skip
    rows = tuple((Cell(check.name), Cell("", mark=marks[check.ok]), Cell(check.found), Cell(check.what_to_do)) for check in checks)
    return rich_table(Table("doctor", "This machine", "✓ fine, ✗ to do before measuring, ? fine without, but then not measured.", columns, rows), details=False)


def fitted(table: Table, width: int) -> RichTable:
    """The table in `width` columns: without intervals where they do not fit, then without minor columns, which the caption names."""
    if _width(table, details=True) <= width:
        return rich_table(table, details=True)
    left_out: list[str] = []
    for place in reversed(range(len(table.columns))):
        if _width(table, details=False) <= width:
            break
        if table.columns[place].minor:
            left_out.insert(0, table.columns[place].name)
            table = _without_column(table, place)
    caption = f"{table.caption} No room here for: {', '.join(left_out)}." if left_out else table.caption
    return rich_table(replace(table, caption=caption), details=False)


def _without_column(table: Table, place: int) -> Table:
    rows = tuple((*row[:place], *row[place + 1 :]) for row in table.rows)
    return replace(table, columns=(*table.columns[:place], *table.columns[place + 1 :]), rows=rows)


def _width(table: Table, *, details: bool) -> int:
    """Columns of the terminal that the table needs so that only sentences wrap."""
    total = _GAP * (len(table.columns) - 1)
    for place, column in enumerate(table.columns):
        lines = [line for row in table.rows for line in _cell_text(row[place], details=details and place > 0).plain.split("\n")]
        widest = max(cell_len(line) for line in [column.name, *lines])
        total += min(widest, _PROSE_WIDTH) if column.prose else widest
    return total


def rich_table(table: Table, *, details: bool) -> RichTable:
    """One of our tables as Rich draws it; `details` are intervals and ranges, on a second line."""
    words = table.full_caption if details else table.caption
    caption = Text(words, style="dim") if words else None
    drawn = RichTable(
        title=Text(table.title, style="bold"), title_justify="left", caption=caption, caption_justify="left",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in table.columns:
        drawn.add_column(Text(column.name), justify=column.align, no_wrap=not column.prose)
    for index, row in enumerate(table.rows):
        cells = [_cell_text(cell, details=details and place > 0) for place, cell in enumerate(row)]
        drawn.add_row(*cells, style="bold" if index in table.emphasised else None)
    return drawn


def _cell_text(cell: Cell, *, details: bool) -> Text:
    """Text objects only: Rich would obey markup in a plain string, and these strings are not all ours."""
    text = Text(one_line(cell.text))
    if cell.mark is not None and cell.mark not in cell.text:
        text.append(f" {SYMBOLS[cell.mark]}" if cell.text else SYMBOLS[cell.mark], style=_STYLES[cell.mark])
    elif cell.mark is not None:
        text.stylize(_STYLES[cell.mark])
    if details and cell.detail:
        text.append(f"\n{one_line(cell.detail)}", style="dim not bold")
    return text
