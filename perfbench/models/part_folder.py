"""A folder that appears whole or not at all: it is filled beside its place and renamed into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def part_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that becomes `target` when the block ends well, and vanishes when it does not.

    Where `target` holds something by then, because another process was faster, that stands. Leftovers of killed processes are removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".*.part"):
        pid = left.name.removesuffix(".part").rsplit(".", maxsplit=1)[-1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        try:
            part.replace(target)
        except OSError:
            if not target.is_dir() or not any(target.iterdir()):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
