"""Commands that help to write a scenario: init, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from perfbench.cli.app import app
from perfbench.cli.output import write_scenario


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("scenario.yaml"),
) -> None:
    """Write a commented scenario to start from. Example: perfbench init my-model.yaml"""
    from importlib.resources import files


    text = files("perfbench").joinpath("init_template.yaml").read_text(encoding="utf-8")
    write_scenario(path, text)


@app.command()
def schema() -> None:
    """JSON Schema of scenario files, for editors. Example: perfbench schema > scenario.schema.json"""
    from perfbench.scenario import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
