"""Paths in a scenario: relative to its file, `~`, and `demo:NAME` for what `perfbench demo` prepares.

A data file is opened and read through here, so that a missing, empty or broken one is refused before anything starts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

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


def check_jsonl(path: str) -> None:
    """Raise ValueError unless the file exists, is UTF-8 and holds at least one row, every row a JSON object."""
    if not os.path.isfile(path):
        demo = f"{os.sep}demo{os.sep}" in path and path.startswith(str(cache_folder()))
        hint = "run `perfbench demo` once to make it" if demo else "expected an existing JSONL file; correct the path"
        raise ValueError(f"{path} does not exist; {hint}")
    rows = 0
    decoder = msgspec.json.Decoder()
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number} is not UTF-8 (byte {error.start}); save the file as UTF-8") from None
            try:
                row = decoder.decode(line)
            except msgspec.DecodeError:
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} is no JSON object; expected JSONL, one object a line")
            rows += 1
    if rows == 0:
        raise ValueError(f"{path} is empty; expected at least one row of JSONL")


def read_jsonl(path: str, limit: int | None = None) -> list[dict[str, object]]:
    """The rows of a checked JSONL file, in order, at most `limit`."""
    rows: list[dict[str, object]] = []
    decoder = msgspec.json.Decoder(dict[str, object])
    with open(path, "rb") as file:
        for line in file:
            if limit is not None and len(rows) >= limit:
                break
            if line.strip():
                rows.append(decoder.decode(line))
    return rows
