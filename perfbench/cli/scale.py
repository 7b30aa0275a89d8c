"""Options that spread the load over processes and machines, shared by load and run."""

from __future__ import annotations

from typing import Annotated

import typer

ProcessesOption = Annotated[
    int | None, typer.Option("--processes", help="Load processes on this machine; default: 1, none where --workers are given.", show_default=False)
]
WorkersOption = Annotated[int, typer.Option("--workers", help="Wait for so many `perfbench worker` from other machines.", show_default=False)]
ListenOption = Annotated[
    str | None, typer.Option("--listen", help="HOST:PORT where workers find this machine; default: every address, port 5557.", show_default=False)
]
PageFlag = Annotated[bool, typer.Option("--ui", help="Show the run on Locust's own page, on this machine only.")]
