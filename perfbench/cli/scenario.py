"""Commands that help to write a scenario: init, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app


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
def schema() -> None:
    """JSON Schema of scenario files, for editors. Example: perfbench schema > scenario.schema.json"""
    from perfbench.scenario import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
