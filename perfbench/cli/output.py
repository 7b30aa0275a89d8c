"""What commands share: the flags that mean the same everywhere, and how a result is printed. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
RunsOption = Annotated[Path, typer.Option("--out", help="Folder that run folders are made in.")]
DefinitionsOption = Annotated[
    str | None,
    typer.Option("--definitions", help="Another tool's figures beside ours: vllm, guidellm, aiperf or inference-perf.", show_default=False),
]


def checked_tool(name: str) -> str:
    """The name of a tool whose definitions are known; raises InputError for any other."""
    from perfbench.analyse.definitions import TOOLS
    from perfbench.errors import InputError

    if name not in TOOLS:
        raise InputError(f"--definitions: expected one of {', '.join(TOOLS)}, got {name}")
    return name


def print_json(value: Any) -> None:
    """Structs, models and plain data as indented JSON on stdout."""
    import msgspec

    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2) + "\n")


def print_table(table: Any) -> None:
    """One of the report's tables: drawn in a terminal, Markdown in a pipe."""
    if not sys.stdout.isatty():
        from perfbench.report.markdown import table_markdown

        sys.stdout.write(table_markdown(table) + "\n")
        return
    from rich.console import Console

    from perfbench.report.terminal import fitted

    console = Console()
    console.print(fitted(table, console.width))


def show_run(folder: Any, as_json: bool) -> None:
    """The result of a run on stdout: its summary as JSON, or the tables and the report's path."""
    summary = folder.summary()
    if as_json:
        print_json(summary)
        return
    from rich.console import Console

    from perfbench.report.terminal import print_report

    print_report(summary, folder.manifest(), Console(), report_path=folder.path / "report.html")


def write_scenario(path: Path, text: str) -> None:
    """A new scenario file. Raises InputError where the file exists or cannot be written."""
    from perfbench.errors import InputError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} exists; name another file, perfbench never overwrites a scenario") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {path}; edit it, then: perfbench run {path} --dry-run", err=True)
