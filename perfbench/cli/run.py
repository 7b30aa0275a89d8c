"""Commands that carry out a scenario, or render what one has left: run, demo, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import DefinitionsOption, JsonFlag, QuietFlag, RunsOption, checked_tool, print_json, print_table, show_run
from perfbench.cli.scale import ListenOption, PageFlag, ProcessesOption, WorkersOption

if TYPE_CHECKING:
    from perfbench.results import RunFolder

NoFloorFlag = Annotated[bool, typer.Option("--no-client-floor", help="Do not drive a server that answers at once for a second, to know the client.")]
NoReferenceFlag = Annotated[bool, typer.Option("--no-reference-check", help="Do not put served answers to transformers before load.")]


@app.command()
def run(
    scenario: Annotated[Path | None, typer.Argument(help="Scenario file (YAML).", show_default=False)] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Run folder to continue.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show what would be started.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Short form: one repeat, short windows, the same parts.")] = False,
    no_reference_check: NoReferenceFlag = False,
    no_client_floor: NoFloorFlag = False,
    processes: ProcessesOption = None,
    workers: WorkersOption = 0,
    listen: ListenOption = None,
    page: PageFlag = False,
    out: RunsOption = Path("results"),
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Serve, check, drive, measure, report. Example: perfbench run my-model.yaml"""
    from perfbench.errors import InputError
    from perfbench.load.scale import make_scale
    from perfbench.run import continue_run, dry_run_lines, run_scenario
    from perfbench.scenario import load_scenario
    from perfbench.scenario.short_form import short_form

    if (scenario is None) == (resume is None):
        raise InputError("expected a scenario file, or --resume with a run folder", hint="perfbench init writes a scenario")
    scale = make_scale(processes=processes, workers=workers, listen=listen, page=page)
    check, floor = not no_reference_check, not no_client_floor
    if resume is not None:
        if dry_run or quick:
            raise InputError("--resume continues a run as it was started; leave out --dry-run and --quick")
        show_run(continue_run(resume, quiet=quiet, check_reference=check, scale=scale, measure_floor=floor), as_json)
        return
    assert scenario is not None
    checked = load_scenario(scenario)
    checked = short_form(checked) if quick else checked
    if dry_run:
        for line in dry_run_lines(checked, scenario):
            sys.stdout.write(line + "\n")
        return
    finished = run_scenario(checked, scenario_file=scenario, parent=out, quiet=quiet, check_reference=check, scale=scale, measure_floor=floor)
    show_run(finished, as_json)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Short form: the same parts in at most five minutes on two cores.")] = False,
    prepare_only: Annotated[bool, typer.Option("--prepare", help="Only make the model, the adapter and the data.")] = False,
    out: RunsOption = Path("results"),
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """The whole job on a small real model, on this machine. Example: perfbench demo --quick"""
    from perfbench.models.demo import prepare_demo
    from perfbench.run import run_scenario
    from perfbench.scenario import load_scenario
    from perfbench.scenario.short_form import short_form

    folder = prepare_demo(progress=lambda text: None if quiet else typer.echo(text, err=True))
    if prepare_only:
        sys.stdout.write(f"{folder}\n")
        return
    file = shipped_scenario("demo.yaml")
    scenario = load_scenario(file)
    show_run(run_scenario(short_form(scenario) if quick else scenario, scenario_file=file, parent=out, quiet=quiet), as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder.")], definitions: DefinitionsOption = None, as_json: JsonFlag = False
) -> None:
    """Analyse a run again from its folder and render its reports. Example: perfbench report results/my-model-..."""
    from perfbench.conclude import conclude
    from perfbench.results import RunFolder

    run_folder = RunFolder.open(folder)
    if definitions is not None:
        _print_recomputed(run_folder, checked_tool(definitions), as_json)
        return
    conclude(run_folder)
    show_run(run_folder, as_json)


def _print_recomputed(folder: RunFolder, tool: str, as_json: bool) -> None:
    """The run by another tool's formulas; nothing is written into its folder."""
    from perfbench.analyse.summarise import recomputed
    from perfbench.report.definitions import recomputed_table

    rows = recomputed(folder, tool)
    if not rows:
        typer.echo("no trial of this run can be used: all are missing or void (perfbench report says why)", err=True)
    if as_json:
        print_json(rows)
    else:
        print_table(recomputed_table(tool, rows))


def shipped_scenario(name: str) -> Path:
    """A scenario that comes with perfbench: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "scenarios" / name
    return installed if installed.is_file() else package.parent / "scenarios" / name
