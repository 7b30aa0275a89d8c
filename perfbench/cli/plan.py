"""Commands that size a deployment: estimate (before renting), plan (from a run), prices. They start nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, QuietFlag, print_json

if TYPE_CHECKING:
    from perfbench.report.tables import Table


@app.command()
def estimate(
    scenario: Annotated[Path | None, typer.Argument(help="Scenario file (YAML).", show_default=False)] = None,
    gpu: Annotated[list[str] | None, typer.Option("--gpu", help="h100-80gb, l4, ...; may be given several times.", show_default=False)] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="How many a server has (tensor parallel): 1,2,4.", show_default=False)] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="bf16, fp16, fp8, int4; default: as the scenario says.", show_default=False)] = None,
    kv_dtype: Annotated[str | None, typer.Option("--kv-dtype", help="auto or fp8; default: as the scenario says.", show_default=False)] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Folder or config.json, instead of the scenario's model.", show_default=False)] = None,
    input_tokens: Annotated[int | None, typer.Option("--input-tokens", min=1, help="Of a prompt, instead of the scenario's.", show_default=False)] = None,
    output_tokens: Annotated[int | None, typer.Option("--output-tokens", min=1, help="Of an answer, instead of the scenario's.", show_default=False)] = None,
    gpu_file: Annotated[Path | None, typer.Option("--gpu-file", help="YAML with GPUs of your own (docs/sizing.md).", show_default=False)] = None,
    list_gpus: Annotated[bool, typer.Option("--list-gpus", help="Print the GPUs that are known, with their sources.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Does it fit, and what bounds its speed, before a GPU is rented. Example: perfbench estimate my-model.yaml --gpu h100-80gb --gpus 1,2,4"""
    from perfbench.errors import InputError
    from perfbench.estimates import Wanted, estimate_all
    from perfbench.plan.gpus import find_gpu, known_gpus, read_gpus
    from perfbench.report import sizing
    from perfbench.scenario import load_scenario

    table = {**known_gpus(), **(read_gpus(gpu_file) if gpu_file is not None else {})}
    if list_gpus:
        _show({name: one.model_dump(mode="json") for name, one in table.items()}, [sizing.gpus_table(table)], as_json)
        return
    if not gpu:
        raise InputError("expected --gpu, say --gpu h100-80gb", hint="perfbench estimate --list-gpus shows the table, --gpu-file adds to it")
    wanted = Wanted(
        gpus=[find_gpu(name, table) for name in gpu], counts=_counts(gpus), weights=weights, kv=kv_dtype, model=model,
        input_tokens=input_tokens, output_tokens=output_tokens,
    )  # fmt: skip
    found = estimate_all(load_scenario(scenario) if scenario is not None else None, wanted)
    _show(found, [sizing.memory_estimate_table(found), sizing.bounds_table(found)], as_json)


@app.command()
def plan(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    demand: Annotated[Path, typer.Option("--demand", help="Demand file (YAML): docs/sizing.md.")],
    fine_tunes: Annotated[str | None, typer.Option("--fine-tunes", help="Break-even of adapters at so many: 1,2,5,10,20,50.", show_default=False)] = None,
    skew: Annotated[str | None, typer.Option("--skew", help="Zipf exponents of their popularity: 0,1,1.5.", show_default=False)] = None,
    load_s: Annotated[float | None, typer.Option("--load-s", min=0, help="Seconds to swap an adapter in, beyond max-loras.", show_default=False)] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Servers, GPUs and price for a demand, from a finished run. Example: perfbench plan results/my-model-... --demand demand.yaml"""
    from perfbench.errors import EXIT_CANNOT_TELL
    from perfbench.planning import keep_plan, make_plan, wanted_fine_tunes
    from perfbench.results import RunFolder

    folder = RunFolder.open(run)
    asked = partial(wanted_fine_tunes, counts=fine_tunes, skew=skew, load_s=load_s)
    found = make_plan(folder, demand, asked, say=lambda text: None if quiet else typer.echo(text, err=True))
    keep_plan(folder, found)
    if as_json:
        print_json(found)
    else:
        from rich.console import Console

        from perfbench.report.terminal import print_plan

        print_plan(found, Console(), folder.path / "report.html")
    if all(variant.reason for variant in found.variants.values()):
        raise typer.Exit(EXIT_CANNOT_TELL)


def _counts(text: str | None) -> list[int]:
    from perfbench.errors import InputError

    words = [word.strip() for word in text.split(",")] if text is not None else []
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--gpus: expected whole numbers with commas between them, as in 1,2,4; got `{text}`")
    return [int(word) for word in words]


def _show(value: Any, tables: Sequence[Table], as_json: bool) -> None:
    """The value as JSON, or its tables."""
    if as_json:
        print_json(value)
        return
    from rich.console import Console

    from perfbench.report.terminal import fitted

    console = Console()
    for number, table in enumerate(tables):
        if number:
            console.print()
        console.print(fitted(table, console.width))


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
    from perfbench.report.sizing import offers_table

    found = find_offers(gpu, gpus=gpus, providers=provider or (), spot=spot, limit=limit, folder=catalogue)
    _show(found, [offers_table(found)], as_json)
