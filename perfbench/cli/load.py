"""Commands that drive a running server without a scenario (load), and that help another machine to drive (worker)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, QuietFlag, RunsOption, show_run
from perfbench.cli.scale import ListenOption, PageFlag, ProcessesOption, WorkersOption


@app.command()
def load(
    url: Annotated[str, typer.Option("--url", help="Running server, up to, not including, /v1; unix:///run/vllm.sock for a Unix socket.")],
    model: Annotated[str, typer.Option("--model", help="The name that it serves the model by.")],
    arrival: Annotated[str, typer.Option("--arrival", help="closed (--concurrency), constant or poisson (--rate), gamma (--rate, --burstiness).")] = "closed",
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="closed: requests kept in flight.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Arrivals per second.", show_default=False)] = None,
    burstiness: Annotated[
        float | None, typer.Option("--burstiness", help="gamma: 1 is Poisson, below 1 burstier, above 1 more even.", show_default=False)
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="The measured window ends with so many requests.", show_default=False)] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="Or after so many seconds; default: 30.", show_default=False)] = None,
    warmup: Annotated[float, typer.Option("--warmup", help="Seconds driven before the window, and left out of every number.")] = 5.0,
    input_tokens: Annotated[int, typer.Option("--input-tokens", help="Of every prompt, chat template included.")] = 128,
    output_tokens: Annotated[int, typer.Option("--output-tokens", help="Of every answer (ignore_eos); at most so many where the server refuses that.")] = 64,
    api: Annotated[str, typer.Option("--api", help="chat or completions.")] = "chat",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder or hub id; default: the server counts (POST /tokenize, vLLM).", show_default=False)
    ] = None,
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="Environment variable with the key.", show_default=False)] = None,
    processes: ProcessesOption = None,
    workers: WorkersOption = 0,
    listen: ListenOption = None,
    page: PageFlag = False,
    seed: Annotated[int, typer.Option("--seed", help="Of prompts and arrivals: equal seeds send the same at the same times.")] = 0,
    out: RunsOption = Path("results"),
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Drive a running server, without a scenario. Example: perfbench load --url http://127.0.0.1:8000 --model mine --concurrency 64 --requests 2000"""
    from perfbench.load.scale import make_scale
    from perfbench.quick_load import QuickLoad, quick_scenario
    from perfbench.run import run_scenario

    wanted = QuickLoad(
        url=url, model=model, arrival=arrival, concurrency=concurrency, rate_per_s=rate, burstiness=burstiness, requests=requests, duration_s=duration,
        warmup_s=warmup, input_tokens=input_tokens, output_tokens=output_tokens, api=api, tokenizer=tokenizer, api_key_env=api_key_env, seed=seed,
    )  # fmt: skip
    scale = make_scale(processes=processes, workers=workers, listen=listen, page=page)
    scenario = quick_scenario(wanted)
    if not quiet and scenario.load.stages[0].output.fixed is None:
        typer.echo(f"the server refuses ignore_eos: answers end when the model wants to, after {output_tokens} tokens at most", err=True)
    show_run(run_scenario(scenario, scenario_file=None, parent=out, quiet=quiet, scale=scale), as_json)


@app.command()
def worker(master: Annotated[str, typer.Option("--master", help="HOST or HOST:PORT of the machine with `perfbench run --workers N`.")]) -> None:
    """Drive load for a run on another machine, until that is done. Example: perfbench worker --master 10.0.0.5"""
    import socket

    from perfbench.errors import InputError
    from perfbench.load.scale import split_address

    host, port = split_address(master, "--master")
    try:
        socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"--master: the host {host} cannot be resolved: {error.strerror or error}; check the name or give an address") from None
    # Locust changes the whole interpreter it is imported in: the worker gets one of its own, under this process's number.
    os.execv(sys.executable, [sys.executable, "-m", "perfbench.load.worker", host, str(port)])  # noqa: S606
