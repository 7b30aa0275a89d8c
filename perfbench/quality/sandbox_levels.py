"""Which level of the code sandbox holds on this machine: every level is tried by a probe before anything else runs in it.

The probe (`sandbox_probe`) attempts what no program may be able to do: connect, read and write outside, signal a process of ours, see
our environment, take more memory, processes and files than allowed. A level that lets any of it happen is not used, whatever its name promises.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfbench.errors import SandboxError
from perfbench.quality import sandbox_probe
from perfbench.quality.sandbox import ENVIRONMENT, Level, Limits, Outcome, Sandbox

_LIMITS = Limits(time_s=20.0, cpu_s=10, memory_bytes=256 << 20, processes=12, files=100)
_SPARE = 8
"""So many processes and files more than allowed are tried."""
_HINT = "install bubblewrap (Debian: apt-get install bubblewrap), or allow user namespaces; `allow_weak_sandbox: true` runs it with limits only"


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """Which level holds on this machine, for the results."""

    level: Level
    other_user: bool
    """Programs run under a user id that owns nothing here."""
    leaks: list[str] = []
    """What the probe could do and should not have been able to; empty but for the level `weak`."""
    refused: dict[str, str] = {}
    """Stronger levels that do not hold here, and why."""


def open_sandbox(*, allow_weak: bool = False) -> tuple[Sandbox, Reached]:
    """The strongest level that holds, and what was found out. Raises SandboxError where only the weak one is left and it is not allowed."""
    refused: dict[str, str] = {}
    python = os.path.realpath(sys.executable)
    strong: tuple[Level, ...] = ("bubblewrap", "namespaces")
    for level in strong:
        if level == "bubblewrap" and shutil.which("bwrap") is None:
            refused[level] = "`bwrap` is not installed"
            continue
        problem, leaks, other_user = probe(Sandbox(level, python))
        if problem is None and not leaks:
            return Sandbox(level, python), Reached(level=level, other_user=other_user, refused=refused)
        refused[level] = problem or "; ".join(leaks)
    told = "; ".join(f"{level}: {why}" for level, why in refused.items())
    if not allow_weak:
        raise SandboxError(f"no sandbox on this machine holds code that a model wrote ({told})", hint=_HINT)
    for candidate in dict.fromkeys((python, "/usr/bin/python3")):  # as another user, a Python inside root's home cannot be read
        problem, leaks, other_user = probe(Sandbox("weak", candidate))
        if problem is None:
            return Sandbox("weak", candidate), Reached(level="weak", other_user=other_user, leaks=leaks, refused=refused)
    raise SandboxError(f"not even the weak sandbox works on this machine: {problem} ({told})", hint=_HINT)


def probe(sandbox: Sandbox) -> tuple[str | None, list[str], bool]:
    """(why the level cannot run at all or None, what leaks, whether it is another user)."""
    with _bait() as bait:
        try:
            outcome = sandbox.run(Path(sandbox_probe.__file__).read_text(encoding="utf-8"), msgspec.json.encode(bait.given), _LIMITS)
            found: dict[str, Any] = msgspec.json.decode(outcome.stdout)
        except (OSError, SandboxError) as error:
            return str(error), [], False
        except msgspec.DecodeError:
            return _why_not(outcome), [], False
        leaks = [*_leaks(found), *bait.taken()]
        problem = None if found["own_folder"] else "a program cannot write into its own folder"
        return problem, leaks, found["uid"] != os.getuid() and os.geteuid() == 0


def _why_not(outcome: Outcome) -> str:
    last = outcome.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"it ended by {outcome.ending}, exit code {outcome.exit_code}"]
    return f"the probe did not run: {last[0][:200]}"


def _leaks(found: dict[str, Any]) -> list[str]:
    said = {
        "network": "the machine's network can be reached", "abstract_socket": "abstract sockets can be reached",
        "unix_socket": "sockets of the machine can be reached",
        "signalled": "processes of ours can be signalled", "memory": "the limit on memory does not hold",
        "hidden_memory": "memory that no process shows can be taken",
    }  # fmt: skip
    leaks = [sentence for what, sentence in said.items() if found[what]]
    leaks += [f"{path} can be read" for path in found["read"]]
    leaks += [f"{folder} can be written" for folder in found["write"]]
    unknown = set(found["environment"]) - set(ENVIRONMENT) - {"PWD", "LC_CTYPE"}
    leaks += [f"our environment can be seen ({', '.join(sorted(unknown))})"] if unknown else []
    if found["processes"] >= _LIMITS.processes:
        leaks.append(f"the limit of {_LIMITS.processes} processes does not hold")
    if found["files"] > _LIMITS.files:
        leaks.append(f"the limit of {_LIMITS.files} files does not hold")
    return leaks


class _Bait:
    """What the probe is to try, and whether it got it."""

    def __init__(self, folder: Path, port: int, victim: subprocess.Popen[bytes], name: str) -> None:
        (folder / "secret").write_text("secret")
        (folder / "secret").chmod(0o644)
        self._victim, self._name = victim, name
        self._folders = dict.fromkeys([str(folder), "/", "/tmp", "/var/tmp", "/dev/shm", str(Path.home()), str(Path.cwd())])  # noqa: S108 - tried, not used
        self.given = {
            "port": port, "name": name, "socket_path": str(folder / "socket"), "victim": victim.pid, "secrets": [str(folder / "secret")],
            "folders": list(self._folders), "memory_bytes": 2 * _LIMITS.memory_bytes, "processes": _LIMITS.processes + _SPARE,
            "files": _LIMITS.files + _SPARE,
        }  # fmt: skip

    def taken(self) -> list[str]:
        """Seen from outside: traces that the probe left in our files, and a process of ours that it ended."""
        found = []
        for folder in self._folders:
            trace = Path(folder) / self._name
            if trace.exists():
                trace.unlink()
                found.append(f"{folder} was written")
        return [*found, "a process of ours was ended"] if self._victim.poll() is not None else found


@contextlib.contextmanager
def _bait() -> Iterator[_Bait]:
    name = f"perfbench-probe-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perfbench-bait-")))
        folder.chmod(0o777)  # open to everybody, so that only walls keep the probe out
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))]
        for address in ("\0" + name, str(folder / "socket")):
            listening.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            listening[-1].bind(address)
            listening[-1].listen()
        (folder / "socket").chmod(0o777)
        victim = subprocess.Popen(["sleep", "60"])
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        yield _Bait(folder, listening[0].getsockname()[1], victim, name)
