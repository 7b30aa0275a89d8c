"""Commands that look at single answers of a run: samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from perfbench.report.samples import Wanted
    from perfbench.results import RunFolder


@app.command()
def samples(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    label: Annotated[list[str] | None, typer.Option("--label", help='Answers with this label, as "invalid JSON"; may be given again.')] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Look at the answers of this variant only.")] = None,
    slice_: Annotated[list[str] | None, typer.Option("--slice", help="COLUMN=VALUE of the scenario's slices; may be given again.")] = None,
    sample: Annotated[str | None, typer.Option("--sample", help="One sample by its id.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Answers that did not pass.")] = False,
    regressions: Annotated[bool, typer.Option("--regressions", help="Answers that did not pass where base's did.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many samples; with --blind, put so many into the sheet.")] = 10,
    blind: Annotated[Path | None, typer.Option("--blind", help="Write a CSV sheet for people to fill in, variants hidden.", show_default=False)] = None,
    import_labels: Annotated[Path | None, typer.Option("--import-labels", help="Bring a filled-in sheet home.", show_default=False)] = None,
    by: Annotated[str, typer.Option("--by", help="Who filled the sheet in.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the sheet's choice and order.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Look at single answers side by side. Example: perfbench samples results/my-model-... --label "invalid JSON" --variant adapter"""
    from perfbench.errors import InputError
    from perfbench.report.samples import Wanted
    from perfbench.results import RunFolder

    run_folder = RunFolder.open(folder)
    if blind is not None and import_labels is not None:
        raise InputError("give one of --blind and --import-labels")
    if blind is not None:
        _export(run_folder, blind, limit, seed, as_json=as_json)
    elif import_labels is not None:
        _import(run_folder, import_labels, by, as_json=as_json)
    else:
        parts = [one.partition("=") for one in slice_ or ()]
        if any(not equals for _, equals, _ in parts):
            raise InputError("expected --slice COLUMN=VALUE, as in --slice level=hard")
        slices = tuple((column, value) for column, _, value in parts)
        wanted = Wanted(labels=tuple(label or ()), variant=variant, slices=slices, failed=failed, regressions=regressions, sample_id=sample)
        _show(run_folder, wanted, limit, as_json=as_json)


def _show(folder: RunFolder, wanted: Wanted, limit: int, *, as_json: bool) -> None:
    from perfbench.analyse.answers import answers_of
    from perfbench.analyse.experiment import experiment_of
    from perfbench.report.samples import as_data, chosen, print_samples

    by_variant = answers_of(folder, experiment_of(folder.manifest()))
    found = chosen(by_variant, wanted, "base" if by_variant.get("base") else None)
    if as_json:
        print_json({"fit": len(found), "samples": [as_data(answers) for answers in found[:limit]]})
        return
    from rich.console import Console

    print_samples(found[:limit], len(found), Console())


def _export(folder: RunFolder, path: Path, limit: int, seed: int, *, as_json: bool) -> None:
    from perfbench.errors import InputError
    from perfbench.quality.blind import make_sheet

    sheet, key = make_sheet({variant: folder.quality(variant) for variant in folder.checked_variants()}, samples=limit, seed=seed)
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            file.write(sheet)
    except FileExistsError:
        raise InputError(f"{path} exists; name another file, a sheet that somebody may be filling in is never overwritten") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    folder.write_blind_key(key)
    if as_json:
        print_json({"sheet": key.sheet, "answers": len(key.rows), "path": str(path)})
        return
    typer.echo(f"wrote {len(key.rows)} answers to {path}; fill in `score` or `stars`, then: perfbench samples {folder.path} --import-labels {path}", err=True)


def _import(folder: RunFolder, path: Path, by: str, *, as_json: bool) -> None:
    from perfbench.conclude import conclude
    from perfbench.quality.blind import human_summary, merged, read_sheet

    labels = read_sheet(path, folder.blind_keys(), by)
    folder.write_human_labels(merged(folder.human_labels(), labels))
    conclude(folder)
    found = {variant: human_summary(folder.quality(variant), folder.human_labels()) for variant in folder.checked_variants()}
    if as_json:
        print_json({"labels": len(labels), "variants": found})
        return
    from rich.console import Console

    from perfbench.report.evidence import human_table
    from perfbench.report.terminal import fitted

    console = Console()
    console.print(fitted(human_table(found), console.width))
