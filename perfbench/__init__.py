"""perfbench: a deployment performance profiler for fine-tuned language models.

The public names; everything else may change. They are found when they are first used, so that `import perfbench` costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["LlmUser", "Run", "Scenario", "__version__", "load_run", "run"]

if TYPE_CHECKING:
    from perfbench.library import Run, load_run, run
    from perfbench.load.locust_user import LlmUser
    from perfbench.scenario import Scenario

_HOME = {
    "Run": "perfbench.library", "Scenario": "perfbench.scenario", "LlmUser": "perfbench.load.locust_user", "load_run": "perfbench.library",
    "run": "perfbench.library",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'perfbench' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """The main path is the module `perfbench.run`, and `perfbench.run` is a function of the library: importing the one must not replace the other."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "run" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
