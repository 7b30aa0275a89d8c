"""Commands that size a deployment: estimate (before renting), prices. They start nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, print_json


@app.command()
def prices(
    gpu: Annotated[str | None, typer.Option("--gpu", help="h100, a100-80gb, l40s, ...; default: every GPU.", show_default=False)] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="Exactly so many in one instance.", show_default=False)] = None,
    provider: Annotated[list[str] | None, typer.Option("--provider", help="aws, gcp, azure, runpod, ...; may be given several times.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Spot instances instead of those that stay.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many offers, the cheapest first.")] = 20,
    catalogue: Annotated[Path | None, typer.Option("--catalogue", help="Folder with gpuhunt's <provider>.csv, instead of its published ones.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What a GPU hour costs at providers, by gpuhunt's catalogue. Example: perfbench prices --gpu h100 --provider aws --provider runpod"""
    from perfbench.plan.prices import find_offers

    found = find_offers(gpu, gpus=gpus, providers=provider or (), spot=spot, limit=limit, folder=catalogue)
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from perfbench.report.sizing import offers_table
    from perfbench.report.terminal import fitted

    console = Console()
    console.print(fitted(offers_table(found), console.width))
