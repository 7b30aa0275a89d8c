"""Lighteval with the tasks of one file: started by `lighteval` in Lighteval's own Python, where perfbench is not installed.

Lighteval's command line imports every task that it brings before it looks at the wanted one, and one of those (tiny_benchmarks, as of 0.13) downloads
a file from GitHub when it is imported: offline nothing would run. The task file alone is loaded here.
"""

from __future__ import annotations

import sys
from typing import Any

del sys.path[0]  # this folder: its modules are not for others

from lighteval.__main__ import app  # noqa: E402
from lighteval.tasks.registry import Registry  # noqa: E402


def _own_tasks(custom_tasks: Any = None, load_multilingual: bool = False) -> Any:
    return Registry._extract_configs(Registry.create_custom_tasks_module(custom_tasks))


if __name__ == "__main__":
    Registry.load_all_task_configs = staticmethod(_own_tasks)
    app()
