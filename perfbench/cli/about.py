"""Commands that explain: what this machine can measure (doctor), what every figure means (metrics)."""

from __future__ import annotations

import sys

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, print_json


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
def metrics(as_json: JsonFlag = False) -> None:
    """Every metric with its unit, formula and source. Example: perfbench metrics"""
    from perfbench.analyse.metrics import METRICS, metrics_markdown

    if as_json:
        print_json([metric.describe() for metric in METRICS])
    else:
        sys.stdout.write(metrics_markdown())
