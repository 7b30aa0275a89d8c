"""Commands over models: merge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from perfbench.cli.app import app
from perfbench.cli.output import JsonFlag, print_json


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
        print_json({"path": str(merged), "model": inspect_model(merged)})
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
