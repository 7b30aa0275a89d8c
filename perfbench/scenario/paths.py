"""Paths in a scenario: relative to its file, `~`, and `demo:NAME` for what `perfbench demo` prepares.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DEMO_PREFIX = "demo:"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def cache_folder() -> Path:
    """Where perfbench keeps merged models and the demo's assets: $PERFBENCH_CACHE, else ~/.cache/perfbench."""
    return Path(os.environ.get("PERFBENCH_CACHE") or "~/.cache/perfbench").expanduser().absolute()


def absolute(value: str, folder: str | None, *, must_exist: bool = False) -> str:
    """The absolute path that `value` means; ValueError where `must_exist` and nothing is there."""
    if value.startswith(DEMO_PREFIX):
        path = cache_folder() / "demo" / value.removeprefix(DEMO_PREFIX)
    else:
        path = Path(folder or ".").absolute() / Path(value).expanduser()
    resolved = os.path.normpath(path)
    if must_exist and not os.path.exists(resolved):
        hint = "run `perfbench demo` once to make it" if value.startswith(DEMO_PREFIX) else "expected an existing path; correct it"
        raise ValueError(f"{resolved} does not exist; {hint}")
    return resolved


def looks_like_hub_id(value: str, folder: str | None) -> bool:
    """Whether a plain string is a hub id: `owner/name`, and no such folder exists."""
    if value.startswith((DEMO_PREFIX, ".", "/", "~")) or not _HUB_ID.match(value):
        return False
    return not os.path.exists(absolute(value, folder))
