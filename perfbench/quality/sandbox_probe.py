"""What a program inside the sandbox can do, tried for real. Runs inside; the standard library only.

Reads what to try as JSON from stdin (see `sandbox_levels.probe`), writes one JSON object to stdout: {what: whether it worked, or a number}.
Things that could end or block it come last.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Try everything and say what worked."""
    given: dict[str, Any] = json.load(sys.stdin)
    found: dict[str, Any] = {
        "network": _worked(lambda: socket.create_connection(("127.0.0.1", given["port"]), 2)),
        "abstract_socket": _worked(lambda: socket.socket(socket.AF_UNIX).connect("\0" + given["name"])),
        "unix_socket": _worked(lambda: socket.socket(socket.AF_UNIX).connect(given["socket_path"])),
        "read": [path for path in given["secrets"] if _worked(lambda path=path: _read(path))],  # type: ignore[misc]
        "write": [folder for folder in given["folders"] if _worked(lambda folder=folder: open(f"{folder}/{given['name']}", "xb").close())],  # type: ignore[misc]
        "own_folder": _worked(_use_own_folder),
        "files": _create(given["files"]),
        "environment": sorted(os.environ),
        "uid": os.getuid(),
        "signalled": _worked(lambda: os.kill(given["victim"], signal.SIGKILL)),
        "memory": _worked(lambda: bytearray(given["memory_bytes"])),
        "hidden_memory": _worked(lambda: mmap.mmap(-1, 4096)),
    }
    found["processes"] = _fork(given["processes"])
    sys.stdout.write(json.dumps(found))


def _worked(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return False
    return True


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _use_own_folder() -> None:
    with open("probe.txt", "x") as file:
        file.write("x")
    os.remove("probe.txt")


def _create(most: int) -> int:
    """How many files its own folder holds, up to `most`."""
    made: list[str] = []
    with contextlib.suppress(OSError):
        for number in range(most):
            open(f"probe-{number}", "xb").close()
            made.append(f"probe-{number}")
    for name in made:
        os.remove(name)
    return len(made)


def _fork(most: int) -> int:
    """How many children can live at a time, up to `most`."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for _ in range(most):
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


if __name__ == "__main__":
    main()
