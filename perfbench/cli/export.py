"""Commands between perfbench and other tools: export (tables, OpenMetrics, OTLP, MLflow, W&B), card (the model card), import (their result files)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, print_json

RunArgument = Annotated[Path, typer.Argument(help="Run folder.")]


@app.command()
def export(
    folder: RunArgument,
    to: Annotated[str, typer.Option("--to", help="csv, parquet, openmetrics, otlp, mlflow or wandb.")] = "csv",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: in the run folder.", show_default=False)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hand a run to other tools. Example: perfbench export results/my-model-... --to openmetrics"""
    from perfbench.errors import InputError
    from perfbench.report.export import FORMS
    from perfbench.report.export import export as export_run
    from perfbench.results import RunFolder

    form = next((known for known in FORMS if known == to), None)
    if form is None:
        raise InputError(f"--to: expected one of {', '.join(FORMS)}, got {to}")
    where = export_run(RunFolder.open(folder), form, out)
    if as_json:
        print_json({"form": form, "where": where})
    else:
        sys.stdout.write(f"{where}\n")


@app.command()
def card(
    folder: RunArgument,
    publish: Annotated[str | None, typer.Option("--publish", help="Repository on the Hub to push it to; else nothing is sent.", show_default=False)] = None,
    as_json: JsonFlag = False,
) -> None:
    """The model card of a run's fine-tune, as text. Example: perfbench card results/my-model-... > README.md"""
    from perfbench.report.model_card import publish as push
    from perfbench.report.model_card import render_model_card
    from perfbench.results import RunFolder

    run = RunFolder.open(folder)
    text = render_model_card(run.summary(), run.manifest())
    address = push(text, publish) if publish is not None else None
    if as_json:
        print_json({"card": text, "published": address})
    else:
        sys.stdout.write(text if address is None else f"{address}\n")


@app.command(name="import")
def import_results(
    files: Annotated[list[Path], typer.Argument(help="Result files of vllm bench serve, guidellm or aiperf (JSON).")],
    into: Annotated[Path | None, typer.Option("--into", help="Run folder whose report is to show them too.", show_default=False)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what other tools measured, beside a run. Example: perfbench import vllm.json --into results/my-model-..."""
    from rich.console import Console

    from perfbench.conclude import conclude
    from perfbench.report.foreign import foreign_table, read_foreign
    from perfbench.report.terminal import fitted
    from perfbench.results import RunFolder

    results = [result for file in files for result in read_foreign(file.absolute())]
    if into is not None:
        run = RunFolder.open(into)
        run.add_foreign(results)
        conclude(run)
    if as_json:
        print_json(results)
        return
    console = Console()
    console.print(fitted(foreign_table(results), console.width))
