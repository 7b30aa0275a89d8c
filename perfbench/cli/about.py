"""Commands that explain: what this machine can measure (doctor), what every figure means (metrics)."""

from __future__ import annotations

import sys

from perfbench.cli.app import app
from perfbench.cli.output import DefinitionsOption, JsonFlag, checked_tool, print_json, print_table


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """What this machine can measure, and what to do about what it cannot. Example: perfbench doctor --json"""
    from perfbench.doctor import examine

    checks = examine()
    if as_json:
        print_json(checks)
        return
    from rich.console import Console

    from perfbench.report.terminal import doctor_table

    Console().print(doctor_table(checks))


@app.command()
def metrics(definitions: DefinitionsOption = None, as_json: JsonFlag = False) -> None:
    """Every metric with its unit, formula and source: a table in a terminal, Markdown in a pipe. Example: perfbench metrics --definitions vllm"""
    from perfbench.analyse.metrics import METRICS, metrics_markdown

    if definitions is not None:
        _print_formulas(checked_tool(definitions), as_json)
    elif as_json:
        print_json([metric.describe() for metric in METRICS])
    elif sys.stdout.isatty():
        from perfbench.report.definitions import metrics_table

        print_table(metrics_table())
    else:
        sys.stdout.write(metrics_markdown())


def _print_formulas(tool: str, as_json: bool) -> None:
    from perfbench.analyse.definitions import GOODPUT, of_tool

    if as_json:
        figures = [{"name": one.name, "formula": one.formula, "ours": one.ours, "differs": one.differs} for one in of_tool(tool)]
        print_json({"tool": tool, "definitions": figures, "goodput": GOODPUT[tool]})
        return
    from perfbench.report.definitions import formulas_table

    print_table(formulas_table(tool))
