"""The commands: parse, call, print. Heavy parts are imported by the command that needs them, so that --help stays quick.

`app` is the application; each module holds a group of commands and is registered by being imported, in the order in which --help lists them.
"""

# isort: off
from perfbench.cli.app import app
from perfbench.cli import scenario
from perfbench.cli import run
from perfbench.cli import load
from perfbench.cli import models
from perfbench.cli import plan
from perfbench.cli import about

__all__ = ["about", "app", "load", "models", "plan", "run", "scenario"]
