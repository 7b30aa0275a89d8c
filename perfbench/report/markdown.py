"""The report for a pull request: the answer and its main tables as GitHub Markdown, with every foreign character escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perfbench.records import Manifest, Plan, Summary
from perfbench.report import contamination, evidence, formats, plan, quality_details
from perfbench.report.adapters import adapters_table
from perfbench.report.answer import first_reasons, further_reasons
from perfbench.report.capacity import capacity_table
from perfbench.report.differences import tax_table
from perfbench.report.fidelity import fidelity_table
from perfbench.report.repeats import headline_stage
from perfbench.report.tables import SYMBOLS, Cell, Table, main_table, stage_table

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>|~$&])")
"""Characters that Markdown gives a meaning anywhere in a line: emphasis, code, links, HTML, tables, mathematics, entities."""
_LINKED = re.compile(r"(?i)([@#]|\b(?:https?|ftp|mailto|www)(?=[:.]))")
"""What GitHub links without being asked: mentions, issue numbers, addresses. A backslash does not stop it; a zero-width space does."""
_BLOCK = re.compile(r"^([-+=>]|\d+(?=[.)]))")
"""What starts a list, a quote or a heading at the start of a line."""


def render_markdown(summary: Summary, manifest: Manifest) -> str:
    """The whole report as the text of one Markdown file."""
    headline = headline_stage(summary)
    serve = summary.recommendation.serve
    answer = f"Serve **{escape(serve)}**" if serve is not None else "This run cannot say which variant to serve"
    parts = [f"## {answer}", _bullets(first_reasons(summary.recommendation))]
    behind = _bullets(further_reasons(summary.recommendation))
    parts += [f"<details><summary>Each stage and verdict behind this</summary>\n\n{behind}\n\n</details>"] if behind else []
    if not summary.valid:
        parts.append("> **This run is not valid.** The audit below says why.")
    parts.append(table_markdown(main_table(summary, manifest)))
    if headline is not None:
        parts.append(table_markdown(tax_table(summary, headline.stage)))
    parts.append(table_markdown(evidence.quality_table(summary)))
    parts.append(escape_line(contamination.contamination_note(summary)))
    parts += [table_markdown(table) for table in [evidence.under_load_table(summary)] if table.rows]
    parts.append(table_markdown(fidelity_table(summary)))
    parts.append(table_markdown(evidence.audit_table(summary, problems_only=True)))
    folded = [stage_table(summary), capacity_table(summary), adapters_table(summary), evidence.memory_table(summary), evidence.cost_table(summary)]
    folded += [evidence.roofline_table(summary), evidence.labels_table(summary), evidence.reference_table(summary)]
    folded += [quality_details.gates_table(summary), quality_details.slices_table(summary)]
    folded.append(contamination.scores_table(summary))
    parts += [_folded(table) for table in folded]
    named = [*quality_details.signature_lines(summary), *evidence.trace_lines(manifest)]
    parts += [f"{escape_line(what)}: {escape(line)}" for what, line in named]
    planned = plan.plan_of(summary)
    if planned is not None:
        parts.append(_folded(plan.plan_table(planned)))
    missing = evidence.not_measured(summary, manifest)
    if missing:
        parts.append("**Not measured**\n\n" + "\n".join(f"- {escape_line(what)}: {escape(why)}" for what, why in missing.items()))
    parts.append(f"Run {escape(summary.run_id)}, perfbench {escape(manifest.perfbench_version)}, {escape(manifest.started_utc)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape_line(line)}" for line in lines)


def render_plan(planned: Plan) -> str:
    """plan.md: the whole plan."""
    lines = [*plan.answer_lines(planned), *plan.warning_lines(planned)]
    parts = ["## Plan", f"**{escape_line(plan.headline(planned))}**", _bullets(lines), *(table_markdown(table) for table in plan.tables(planned))]
    crossings = plan.break_even_lines(planned)
    if crossings:
        parts += ["### Break-even of adapters", _bullets(crossings), table_markdown(plan.break_even_table(planned))]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Foreign text for the middle of a line or a table cell: it is shown and does nothing, no markup, no HTML, no link, no mention."""
    return _LINKED.sub(r"\1&#8203;", _ACTIVE.sub(r"\\\1", formats.one_line(text)))


def escape_line(text: str) -> str:
    """`escape` for text at the start of a line, where more characters have a meaning."""
    return _BLOCK.sub(r"&#8203;\1", escape(text))


def table_markdown(table: Table) -> str:
    """A table under its title; nothing for a table without rows."""
    if not table.rows:
        return ""
    head = "| " + " | ".join(escape(column.name) for column in table.columns) + " |"
    rule = "|" + "|".join("---" if column.align == "left" else "---:" for column in table.columns) + "|"
    rows = ["| " + " | ".join(_cell(cell, bold=index in table.emphasised) for cell in row) + " |" for index, row in enumerate(table.rows)]
    return f"**{escape(table.title)}**\n\n" + "\n".join([head, rule, *rows]) + f"\n\n<sub>{escape(table.full_caption)}</sub>"


def _cell(cell: Cell, *, bold: bool) -> str:
    text = f"**{escape(cell.text)}**" if bold else escape(cell.text)
    mark = f" {escape(SYMBOLS[cell.mark])}" if cell.mark else ""
    return f"{text}{mark}" + (f"<br><sub>{escape(cell.detail)}</sub>" if cell.detail else "")


def _folded(table: Table) -> str:
    """Behind a click: what most readers of a pull request do not need at once."""
    body = table_markdown(table)
    return f"<details><summary>{escape(table.title)}</summary>\n\n{body}\n\n</details>" if body else ""
