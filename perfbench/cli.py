"""The commands: parse, call, print. Data goes to stdout, progress and errors to stderr. Heavy parts are imported by the command that needs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="perfbench",
    help="Deployment performance profiler for fine-tuned language models: what does each way of serving cost, and are the answers still right?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
RunsOption = Annotated[Path, typer.Option("--out", help="Folder that run folders are made in.")]
NoReferenceFlag = Annotated[bool, typer.Option("--no-reference-check", help="Do not put served answers to transformers before load.")]


def _print_json(value: Any) -> None:
    import msgspec

    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2) + "\n")


def _version(wanted: bool) -> None:
    if wanted:
        from perfbench import __version__

        sys.stdout.write(f"perfbench {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command()
def run(
    scenario: Annotated[Path | None, typer.Argument(help="Scenario file (YAML).", show_default=False)] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Run folder to continue.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show what would be started.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Short form: one repeat, short windows, the same parts.")] = False,
    no_reference_check: NoReferenceFlag = False,
    out: RunsOption = Path("results"),
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Serve, check, drive, measure, report. Example: perfbench run my-model.yaml"""
    from perfbench.errors import InputError
    from perfbench.run import continue_run, dry_run_lines, run_scenario
    from perfbench.scenario import load_scenario
    from perfbench.scenario.short_form import short_form

    if (scenario is None) == (resume is None):
        raise InputError("expected a scenario file, or --resume with a run folder", hint="perfbench init writes a scenario")
    if resume is not None:
        if dry_run or quick:
            raise InputError("--resume continues a run as it was started; leave out --dry-run and --quick")
        _show(continue_run(resume, quiet=quiet, check_reference=not no_reference_check), as_json)
        return
    assert scenario is not None
    checked = load_scenario(scenario)
    checked = short_form(checked) if quick else checked
    if dry_run:
        for line in dry_run_lines(checked):
            sys.stdout.write(line + "\n")
        return
    _show(run_scenario(checked, scenario_file=scenario, parent=out, quiet=quiet, check_reference=not no_reference_check), as_json)


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
    file = _scenario_file("demo.yaml")
    scenario = load_scenario(file)
    _show(run_scenario(short_form(scenario) if quick else scenario, scenario_file=file, parent=out, quiet=quiet), as_json)


@app.command()
def load(
    url: Annotated[str, typer.Option("--url", help="Running server, up to, not including, /v1; unix:///run/vllm.sock for a Unix socket.")],
    model: Annotated[str, typer.Option("--model", help="The name that it serves the model by.")],
    arrival: Annotated[str, typer.Option("--arrival", help="closed, with --concurrency, or poisson, with --rate.")] = "closed",
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Requests kept in flight.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Arrivals per second.", show_default=False)] = None,
    duration: Annotated[float, typer.Option("--duration", help="Measured window in seconds; 5 s of warm-up come before it.")] = 30.0,
    input_tokens: Annotated[int, typer.Option("--input-tokens", help="Of every prompt, chat template included.")] = 128,
    output_tokens: Annotated[int, typer.Option("--output-tokens", help="Of every answer (ignore_eos).")] = 64,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder or hub id; default: the server counts (POST /tokenize, vLLM).", show_default=False)
    ] = None,
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="Environment variable with the key.", show_default=False)] = None,
    out: RunsOption = Path("results"),
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Drive a running server, without a scenario. Example: perfbench load --url http://127.0.0.1:8000 --model mine --concurrency 64"""
    from perfbench.quick_load import quick_scenario
    from perfbench.run import run_scenario

    scenario = quick_scenario(
        url=url, model=model, arrival=arrival, concurrency=concurrency, rate_per_s=rate, duration_s=duration,
        input_tokens=input_tokens, output_tokens=output_tokens, tokenizer=tokenizer, api_key_env=api_key_env,
    )  # fmt: skip
    _show(run_scenario(scenario, scenario_file=None, parent=out, quiet=quiet), as_json)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Run folder.")], as_json: JsonFlag = False) -> None:
    """Analyse a run again from its folder and render its reports. Example: perfbench report results/my-model-..."""
    from perfbench.conclude import conclude
    from perfbench.results import RunFolder

    run_folder = RunFolder.open(folder)
    conclude(run_folder)
    _show(run_folder, as_json)


def _scenario_file(name: str) -> Path:
    """A scenario that comes with perfbench: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "scenarios" / name
    return installed if installed.is_file() else package.parent / "scenarios" / name


def _show(folder: Any, as_json: bool) -> None:
    """The result of a run on stdout: its summary as JSON, or the tables and the report's path."""
    summary = folder.summary()
    if as_json:
        _print_json(summary)
        return
    from rich.console import Console

    from perfbench.report.terminal import print_report

    print_report(summary, folder.manifest(), Console(), report_path=folder.path / "report.html")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("scenario.yaml"),
) -> None:
    """Write a commented scenario to start from. Example: perfbench init my-model.yaml"""
    from importlib.resources import files

    from perfbench.errors import InputError

    text = files("perfbench").joinpath("init_template.yaml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} exists; name another file, perfbench never overwrites a scenario") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {path}; edit it, then: perfbench run {path} --dry-run", err=True)


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="Base model: a folder or a hub id.")],
    adapter: Annotated[str, typer.Argument(help="PEFT LoRA adapter: a folder or a hub id.")],
    out: Annotated[Path | None, typer.Option("--out", help="New folder for the merged model; default: perfbench's cache.", show_default=False)] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "bfloat16",
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Merge an adapter into its base with PEFT. Example: perfbench merge ./base ./adapter --out ./merged"""
    from perfbench.errors import InputError
    from perfbench.models.fit import check_adapter_fits
    from perfbench.models.inspect import inspect_model
    from perfbench.models.merge import merge_adapter
    from perfbench.models.resolve import resolve_model

    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"--dtype: expected float32, bfloat16 or float16, got {dtype}")
    base_path, adapter_path = resolve_model(_model_ref("BASE", base)), resolve_model(_model_ref("ADAPTER", adapter))
    for finding in check_adapter_fits(base_path, adapter_path):
        typer.echo(f"warning: {finding}", err=True)
    merged = merge_adapter(base_path, adapter_path, dtype, trust_remote_code=trust_remote_code, out=out)
    if as_json:
        _print_json({"path": str(merged), "model": inspect_model(merged)})
    else:
        sys.stdout.write(f"{merged}\n")


def _model_ref(argument: str, text: str) -> Any:
    from pydantic import ValidationError

    from perfbench.errors import InputError
    from perfbench.scenario.references import ModelRef

    try:
        return ModelRef.model_validate(text)
    except ValidationError as error:
        raise InputError(f"{argument}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """What this machine can measure, and what to do about what it cannot. Example: perfbench doctor --json"""
    from perfbench.doctor import examine

    checks = examine()
    if as_json:
        _print_json(checks)
        return
    from rich.console import Console

    from perfbench.report.terminal import doctor_table

    Console().print(doctor_table(checks))


@app.command()
def metrics(as_json: JsonFlag = False) -> None:
    """Every metric with its unit, formula and source. Example: perfbench metrics"""
    from perfbench.analyse.metrics import METRICS, metrics_markdown

    if as_json:
        _print_json([metric.describe() for metric in METRICS])
    else:
        sys.stdout.write(metrics_markdown())


@app.command()
def schema() -> None:
    """JSON Schema of scenario files, for editors. Example: perfbench schema > scenario.schema.json"""
    from perfbench.scenario import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
