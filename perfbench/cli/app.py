"""The application that every module of commands adds its own to."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="perfbench",
    help="Deployment performance profiler for fine-tuned language models: what does each way of serving cost, and are the answers still right?",
    no_args_is_help=True,
    rich_markup_mode=None,  # panels cost half of the time to the first line of --help
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from perfbench import __version__

        sys.stdout.write(f"perfbench {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass
