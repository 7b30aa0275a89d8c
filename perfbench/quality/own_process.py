"""Work for a process of its own: JSON on stdin, JSON on stdout, whatever libraries print on stderr.

What loads a model is kept out of the client: its memory is free again when the process ends, and the client, which is timed, imports no torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

OFFLINE = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""A GPU belongs to the server under test, so these processes compute on the CPU; and nothing is downloaded."""


class OwnProcessError(Exception):
    """The process gave no answer; the message says why, to go on after `the ... process`."""


def ours(module: str) -> list[str]:
    """The command that starts a module of this package."""
    return [sys.executable, "-m", module]


def answer_of(command: Sequence[str], given: bytes, *, timeout_s: float, environment: Mapping[str, str] | None = None) -> bytes:
    """What the command writes to stdout when `given` stands on its stdin. Raises OwnProcessError."""
    inherited = os.environ if environment is None else environment
    # This package is found whatever folder the user stands in.
    with subprocess.Popen(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**inherited, **OFFLINE}, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            output, errors = process.communicate(given, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise OwnProcessError(f"took longer than {timeout_s:.0f} s") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        raise OwnProcessError("was killed, most likely for its memory")
    if process.returncode > 0:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise OwnProcessError(f"ended with code {process.returncode} ({last[0][:300]})")
    return output


def reply(work: Callable[[bytes], bytes]) -> None:
    """The other side: `work` on what stands on stdin. Libraries that print do so on stderr."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    found = work(sys.stdin.buffer.read())
    with open(stdout, "wb") as file:
        file.write(found)
