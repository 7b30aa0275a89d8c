"""The commands: parse, call, print. Heavy parts are imported by the command that needs them, so that --help stays quick.

`app` is the application; each module holds a group of commands and is registered by being imported, in the order in which --help lists them.
"""

# ruff: noqa: F401, I001
from perfbench.cli.app import app

# One line a group, in the order of --help.
from perfbench.cli import scenario
from perfbench.cli import run
from perfbench.cli import load
from perfbench.cli import compare
from perfbench.cli import quality
from perfbench.cli import models
from perfbench.cli import plan
from perfbench.cli import export
from perfbench.cli import samples
from perfbench.cli import benchmark
from perfbench.cli import about

__all__ = ["app"]
