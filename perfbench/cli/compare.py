"""Commands over two runs: compare, gate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, print_json

AllowOption = Annotated[
    list[str] | None,
    typer.Option("--allow", help="models, serve, versions, hardware or price may differ; give it once for each.", show_default=False),
]
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", help="Also write Markdown, for a pull request.", show_default=False)]
EXIT_REGRESSION = 1
_LOG_WIDTH = 180


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="Run folder: the baseline.")],
    run_b: Annotated[Path, typer.Argument(help="Run folder that is held against it.")],
    allow: AllowOption = None,
    markdown: MarkdownOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Two runs of one scenario, difference by difference with intervals. Example: perfbench compare results/monday results/friday --allow versions"""
    from perfbench.analyse.run_differences import compare_runs
    from perfbench.analyse.two_runs import check_comparable, finished_run

    baseline, run = finished_run(run_a), finished_run(run_b)
    found = compare_runs(baseline, run, check_comparable(baseline, run, allow or []))
    if markdown is not None:
        from perfbench.report.two_runs import comparison_markdown

        write(markdown, comparison_markdown(found))
    if as_json:
        print_json(found)
        return
    from perfbench.report.two_runs import comparison_tables, unlike_lines

    print_tables(comparison_tables(found), [f"baseline: {found.baseline}", f"run: {found.run}", *unlike_lines(found.unlike), *found.only_in_one])


@app.command()
def gate(
    run: Annotated[Path, typer.Argument(help="Run folder to judge.")],
    against: Annotated[Path, typer.Option("--against", help="Run folder that it is held against.")],
    rules: Annotated[Path, typer.Option("--rules", help="How much worse what may be (YAML); docs/ci.md explains it.")],
    allow: AllowOption = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML.", show_default=False)] = None,
    markdown: MarkdownOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Exit 0 pass, 1 regression, 3 cannot tell. Example: perfbench gate results/new --against results/main --rules scenarios/gate.yaml"""
    from perfbench.analyse.gate import run_gate
    from perfbench.analyse.two_runs import check_comparable, finished_run
    from perfbench.errors import EXIT_CANNOT_TELL
    from perfbench.report.two_runs import gate_junit, gate_markdown, gate_table, unchecked_lines, unlike_lines
    from perfbench.scenario.gate import read_gate

    read = read_gate(rules)
    baseline, judged = finished_run(against), finished_run(run)
    unlike = check_comparable(baseline, judged, [*read.allow, *(allow or [])])
    result = run_gate(baseline, judged, read, unlike, file=str(rules))
    for path, text in ((junit, gate_junit), (markdown, gate_markdown)):
        if path is not None:
            write(path, text(result))
    if as_json:
        print_json(result)
    else:
        print_tables([gate_table(result)], [f"gate: {result.verdict}", *unlike_lines(result.unlike), *unchecked_lines(result)])
    raise typer.Exit({"pass": 0, "regression": EXIT_REGRESSION, "cannot tell": EXIT_CANNOT_TELL}[result.verdict])


def write(path: Path, text: str) -> None:
    """A file that the user asked for; raises InputError where it cannot be written."""
    from perfbench.errors import InputError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name a file in a folder that exists") from None


def print_tables(tables: list[Any], lines: list[str]) -> None:
    """Lines, then tables, on stdout."""
    from rich.console import Console

    from perfbench.report.formats import one_line
    from perfbench.report.terminal import fitted

    # In a CI log there is no terminal, and Rich would take it for one of 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in lines))
    for table in tables:
        console.print()
        console.print(fitted(table, console.width))
