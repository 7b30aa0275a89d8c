"""The command that drives a running server without a scenario: load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, QuietFlag, RunsOption, show_run


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
    show_run(run_scenario(scenario, scenario_file=None, parent=out, quiet=quiet), as_json)
