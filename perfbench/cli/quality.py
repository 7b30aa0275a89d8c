"""Commands about the spot-check: quality init, quality rescore."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, QuietFlag, print_json, write_scenario

quality = typer.Typer(help="The spot-check: is a fine-tune still right?", no_args_is_help=True)
app.add_typer(quality, name="quality")


@quality.command("init")
def init(
    path: Annotated[Path | None, typer.Argument(help="File to write; default: stdout.", show_default=False)] = None,
    base: Annotated[str | None, typer.Option("--base", help="The model that was fine-tuned: folder or hub id.", show_default=False)] = None,
    tuning: Annotated[str | None, typer.Option("--tuning", help="lora, qlora, merged or full.", show_default=False)] = None,
    task: Annotated[str | None, typer.Option("--task", help="What an answer is: classification, extraction, qa, ...", show_default=False)] = None,
    train: Annotated[str | None, typer.Option("--train", help="Training data (JSONL, CSV, Parquet), or none.", show_default=False)] = None,
    held_out: Annotated[str | None, typer.Option("--held-out", help="Rows that training never saw (JSONL, CSV, Parquet).", show_default=False)] = None,
    goal: Annotated[str | None, typer.Option("--goal", help="What the fine-tune is for, in a sentence.", show_default=False)] = None,
    purpose: Annotated[str | None, typer.Option("--purpose", help="publish (narrow margin) or check.", show_default=False)] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="The metric that decides, or default.", show_default=False)] = None,
    column: Annotated[list[str] | None, typer.Option("--column", help="KEY=NAME: a column that the task needs.", show_default=False)] = None,
) -> None:
    """Ask eight questions and write the quality block. Example: perfbench quality init my-check.yaml"""
    from perfbench.quality.starter import TUNINGS, Answers, held_out_file, starter, training_file, untold_columns
    from perfbench.scenario.quality import TASKS
    from perfbench.scenario.quality_metrics import QUALITY_METRICS

    columns = dict(_pair(text) for text in column or ())
    chosen = _asked(base, "--base", "1/8  Base model (folder or hub id)")
    made_by = _asked(tuning, "--tuning", f"2/8  How was it tuned ({', '.join(TUNINGS)})", tuple(TUNINGS), "lora")
    kind = _asked(task, "--task", f"3/8  What is an answer ({', '.join(TASKS)})", TASKS)
    trained = _asked(train, "--train", "4/8  Training data (file, or none)", default="none", check=training_file)
    rows = _asked(held_out, "--held-out", "5/8  Held-out set (file)", check=held_out_file)
    for key, there in untold_columns(kind, columns, rows) if held_out is None else ():
        columns[key] = _asked(None, f"--column {key}=NAME", f"     Which of its columns holds `{key}` ({', '.join(there)})", there)
    wanted = _asked(goal, "--goal", "6/8  What is the fine-tune for")
    use = _asked(purpose, "--purpose", "7/8  Is the result to publish, or to check for yourself (publish, check)", ("publish", "check"), "check")
    known = ("default", *QUALITY_METRICS[kind])
    decides = _asked(metric, "--metric", f"8/8  The metric that decides ({', '.join(known)})", () if metric is not None else known, "default")
    answers = Answers(
        base=chosen, tuning=made_by, task=kind, held_out=rows, train=None if trained == "none" else trained, goal=wanted, purpose=use,
        metric=None if decides == "default" else decides, columns=columns,
    )  # fmt: skip
    text = starter(answers, Path.cwd() if path is None else path.absolute().parent)
    if path is None:
        sys.stdout.write(text)
        return
    write_scenario(path, text)


@quality.command("rescore")
def rescore(
    folder: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    scenario: Annotated[Path | None, typer.Option("--scenario", help="Score by this scenario's quality block; default: the run's own.")] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Score and judge a finished run's answers again. Example: perfbench quality rescore results/my-model-... --scenario corrected.yaml"""
    from perfbench.report.progress import RunProgress
    from perfbench.rescore import rescore as score

    with RunProgress(quiet=quiet) as progress:
        run, done = score(folder, scenario, progress)
    summary = run.summary()
    if as_json:
        print_json({"rescored": done, "variants": {name: variant.quality for name, variant in summary.variants.items()}})
        return
    from rich.console import Console

    from perfbench.report.quality_details import verdicts_table
    from perfbench.report.terminal import fitted

    console = Console()
    console.print(fitted(verdicts_table(summary), console.width))
    typer.echo(f"earlier scores: {run.path / done.kept}\nreport: {run.path / 'report.html'}")


def _asked(
    given: str | None, flag: str, question: str, choices: tuple[str, ...] = (), default: str | None = None, check: Callable[[str], object] | None = None
) -> str:
    """The flag's value, else what the user answers on stderr's prompt; asked again until it is one of `choices` and `check` raises no InputError."""
    from perfbench.errors import InputError

    while True:
        try:
            answer = given if given is not None else str(typer.prompt(question, default=default, err=True))
        except typer.Abort:
            if sys.stdin.isatty():  # Ctrl-C, or Ctrl-D
                raise KeyboardInterrupt from None
            raise InputError(f"{flag} is missing, and there is nobody to ask; give it as a flag") from None
        answer = answer.strip()
        try:
            if choices and answer not in choices:
                raise InputError(f"`{answer}` is not known; expected one of {', '.join(choices)}")
            if check is not None:
                check(answer)
        except InputError as error:
            if given is not None:
                raise InputError(f"{flag}: {error.message}") from None
            typer.echo(error.message, err=True)
        else:
            return answer


def _pair(text: str) -> tuple[str, str]:
    from perfbench.errors import InputError

    key, equals, name = text.partition("=")
    if not equals or not key or not name:
        raise InputError(f"--column: expected KEY=NAME, as in expected=label, got `{text}`")
    return key, name
