"""Commands of the second layer: benchmark."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, QuietFlag, RunsOption, print_json


@app.command()
def benchmark(
    target: Annotated[str, typer.Argument(help="Run folder, or URL of a running server (up to, not including, /v1).")],
    task: Annotated[list[Path], typer.Option("--task", help="Task file of lm-evaluation-harness (YAML) or Lighteval (Python); may be given again.")],
    variant: Annotated[list[str] | None, typer.Option("--variant", help="Of the run; default: all that its own task was checked on.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="With a URL: the name that the server serves the model by.")] = None,
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="With a URL: the environment variable that holds the key.")] = None,
    api: Annotated[Literal["chat", "completions"], typer.Option("--api", help="Log-likelihoods need completions.")] = "chat",
    tool: Annotated[Literal["lm-eval", "lighteval"], typer.Option("--tool", help="Who runs the task.")] = "lm-eval",
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Folder with the tokenizer, for log-likelihoods over a URL.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many samples.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Questions asked at a time.")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Given to the tool.")] = 0,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go ahead where the own task has not been checked.")] = False,
    out: RunsOption = Path("results"),
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Public benchmarks, after the own task. Example: perfbench benchmark results/my-model-... --task tasks/ifeval.yaml --limit 100"""
    from perfbench.benchmark_run import Asked, benchmark_run, benchmark_url
    from perfbench.errors import InputError
    from perfbench.report.progress import RunProgress

    asked = Asked(tuple(task), tool, api, limit, concurrency, seed, tokenizer, anyway)
    url = target.startswith(("http://", "https://"))
    if url and model is None:
        raise InputError("a URL needs --model, the name that the server serves the model by")
    with RunProgress(quiet=quiet) as progress:
        if url:
            folder = out / f"benchmark-{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
            results = benchmark_url(target, model or "", asked, folder, api_key_env, progress)
        else:
            from perfbench.conclude import conclude
            from perfbench.results import RunFolder

            results = benchmark_run(Path(target), asked, variant or (), progress)
            conclude(RunFolder.open(target))
    if as_json:
        print_json(results)
        return
    from rich.console import Console

    from perfbench.report.evidence import benchmark_table
    from perfbench.report.terminal import fitted

    console = Console()
    console.print(fitted(benchmark_table(results), console.width))
    for told in dict.fromkeys(f"{one.task}: {one.goal}. Caution: {one.caution}." for one in results):
        console.print(told, markup=False, highlight=False)
    if not all(one.own_task_checked for one in results):
        console.print("The own task had not been checked before.")
