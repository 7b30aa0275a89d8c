"""Runs unit tests against code that a model wrote. Runs inside the sandbox, one process a test; the standard library only.

stdin: JSON `{code, tests, test_s}`. stdout: a JSON list, per test null for passed or one line that says how it failed. The code never runs in
this process: a child executes it and then the test, and has to say at the end that it got there. So code that exits, crashes or
hangs fails its test and no other.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import sys
import time
from typing import NoReturn

_MESSAGE = 300


def main() -> None:
    """Run every test and say how each one went."""
    given = json.load(sys.stdin)
    sys.stdout.write(json.dumps([_outcome(given["code"], test, given["test_s"]) for test in given["tests"]]))


def _outcome(code: str, test: str, limit_s: float) -> str | None:
    token = secrets.token_hex(8)
    listen, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listen)
        _run(code, test, token, say)
    os.close(say)
    said, deadline = b"", time.monotonic() + limit_s
    while (left_s := deadline - time.monotonic()) > 0 and select.select([listen], [], [], left_s)[0]:
        chunk = os.read(listen, 1 << 12)
        if not chunk or len(said) > 1 << 16:
            break
        said += chunk
    os.close(listen)
    late = time.monotonic() >= deadline
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    first, _, message = said.decode("utf-8", "replace").partition("\n")
    if first == token:
        return message or None
    if late:
        return f"no end within {limit_s:g} s"
    by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return "ended before the test did" if by_signal in (None, signal.SIGKILL) else f"ended by signal {by_signal} before the test did"


def _run(code: str, test: str, token: str, say: int) -> NoReturn:
    quiet = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    message = ""
    space: dict[str, object] = {"__name__": "answer"}
    where = "the code"
    try:
        exec(compile(code, "answer.py", "exec"), space)  # noqa: S102 - what the sandbox is for
        where = "the test"
        exec(compile(test, "test.py", "exec"), space)  # noqa: S102
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures here too
        text = " ".join(str(error).split())[:_MESSAGE]
        message = f"{type(error).__name__}: {text}".rstrip(": ") + f", in {where}"
    os.write(say, f"{token}\n{message}".encode("utf-8", "replace"))
    os._exit(0)


if __name__ == "__main__":
    main()
