"""Run code that a model wrote: no network, no files but one small folder of its own, limited CPU, memory, processes, output and time.

    sandbox, reached = open_sandbox()            sandbox_levels: the strongest level that holds here, proven by a probe
    outcome = sandbox.run(source, stdin, limits)

Levels, strongest first: `bubblewrap` (where `bwrap` is installed), `namespaces` (the same walls, built by `sandbox_guard`), and `weak`
(limits, another user and a filter of system calls, but the machine's files can be read), which is only taken where the user insists. Each run
has its own process tree, watched from outside: total memory, output and time; whatever it started is gone when `run` returns.
Programs see Python's standard library and nothing else. Linux only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import msgspec
import psutil

from perfbench.errors import SandboxError
from perfbench.quality import sandbox_guard

Level = Literal["bubblewrap", "namespaces", "weak"]
Ending = Literal["ended", "time", "memory", "output"]

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/work", "TMPDIR": "/work"}
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_LOOK_S = 0.02
_WEIGH_S = 0.05
"""How often the memory of all processes is added up: a program can take a few hundred MB more until then."""
_GONE_S = 10.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one program may take."""

    time_s: float = 10.0
    """Wall time from start to end."""
    cpu_s: int = 10
    """CPU seconds of one process."""
    memory_bytes: int = 512 << 20
    """Address space of one process, and resident memory of all together."""
    processes: int = 16
    """At a time, threads too."""
    output_bytes: int = 1 << 20
    """stdout and stderr together; more ends the program."""
    files_bytes: int = 32 << 20
    """Its folder (a tmpfs; at the weak level, each file)."""
    files: int = 1000
    """In its folder; not at the weak level."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended."""

    ending: Ending
    """ended: by itself, `exit_code` says how. Otherwise the limit that ended it."""
    exit_code: int | None
    """128 + number for a signal."""
    stdout: bytes
    stderr: bytes
    wall_s: float


class _Ran(Exception):  # noqa: N818 - not an error: how the watch ends
    def __init__(self, ending: Ending) -> None:
        self.ending = ending


@dataclass(frozen=True)
class Sandbox:
    """One level, ready to run programs; `sandbox_levels.open_sandbox` makes one that has been proven."""

    level: Level
    python: str
    """The interpreter that programs run on."""

    def run(self, source: str, stdin: bytes = b"", limits: Limits | None = None) -> Outcome:
        """Run `source` as a program with `stdin` at its standard input, within `limits`.

        Raises SandboxError when the walls cannot be built, or when a process is left that cannot be killed.
        """
        limits = limits or Limits()
        with _job_folder(source, stdin) as job, (job / "stdin").open("rb") as given:
            started = time.monotonic()
            process = subprocess.Popen(
                self._command(job, limits), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=ENVIRONMENT, cwd="/", start_new_session=True, close_fds=True,
            )  # fmt: skip
            output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
            ending: Ending = "ended"
            tree = _Tree(process, walls=self.level != "weak")
            try:
                _watch(process, tree, output, limits, started + limits.time_s)
            except _Ran as ran:
                ending = ran.ending
            finally:
                wall_s = time.monotonic() - started
                tree.end()
            code = process.returncode
            return Outcome(
                ending=ending, exit_code=None if ending != "ended" else code if code >= 0 else 128 - code,
                stdout=bytes(output["stdout"][: limits.output_bytes]), stderr=bytes(output["stderr"][: limits.output_bytes]), wall_s=wall_s,
            )  # fmt: skip

    def _command(self, job: Path, limits: Limits) -> list[str]:
        uid = _nobody()
        plan = {
            "step": "walls", "walls": self.level == "namespaces", "parent": os.getpid(), "python": self.python, "root": str(job / "root"),
            "code": str(job / "code"), "work": str(job / "work"), "read_only": _read_only(self.python), "uid": uid, **msgspec.structs.asdict(limits),
        }  # fmt: skip
        if self.level == "bubblewrap":
            inner = msgspec.json.encode({**plan, "step": "inside", "code": "/code", "bound_work": True}).decode()
            return [*_bubblewrap(job, self.python, limits, uid), self.python, "-I", "-S", "/code/guard.py", inner]
        if self.level == "weak" and os.geteuid() == 0:
            os.chown(job / "work", uid, uid)
        elif self.level == "weak":
            plan["processes"] = limits.processes + _threads_of_ours()
        return [self.python, "-I", "-S", str(job / "code" / "guard.py"), msgspec.json.encode(plan).decode()]


def _bubblewrap(job: Path, python: str, limits: Limits, uid: int) -> list[str]:
    root = os.geteuid() == 0
    command = [shutil.which("bwrap") or "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
    # As root, namespaces are root's and the program becomes another user inside; a user namespace would keep it root outside.
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user", "--uid", str(uid), "--gid", str(uid)]
    command += ["--cap-add", "CAP_SYS_ADMIN"]  # until `sandbox_guard` has limited the number of files in /work, for which bubblewrap has no word
    for path in _read_only(python):
        if Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            # Folders on the way open to everybody; bubblewrap would give them the rights that they have outside.
            parents = [str(parent) for parent in reversed(Path(path).parents)][1:]
            command += [word for parent in parents for word in ("--perms", "0755", "--dir", parent)] + ["--ro-bind", path, path]
    command += ["--perms", "0755", "--dir", "/dev"]
    for device in sandbox_guard.DEVICES:
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    command += ["--ro-bind", str(job / "code"), "/code", "--perms", "1777", "--size", str(limits.files_bytes), "--tmpfs", "/work"]
    return [*command, "--remount-ro", "/", "--chdir", "/work", "--"]


@functools.cache
def _read_only(python: str) -> tuple[str, ...]:
    """What a program may read: the system's libraries and the folder of its Python."""
    prefix = str(Path(python).resolve().parent.parent)
    return _SYSTEM_FOLDERS if prefix == "/usr" or prefix.startswith("/usr/") else (*_SYSTEM_FOLDERS, prefix)


def _nobody() -> int:
    """A user id that owns nothing here. Another one each time, for the limit on processes counts all of a user."""
    import pwd

    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return random.choice([uid for uid in range(61_184, 65_000) if uid not in taken])


def _threads_of_ours() -> int:
    """Without another user, the limit on processes counts everything that runs under our own id."""
    total = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            total += process.num_threads() if process.uids().real == os.getuid() else 0
    return total


@contextlib.contextmanager
def _job_folder(source: str, stdin: bytes) -> Iterator[Path]:
    """A folder that any user may pass through: code/main.py, code/guard.py, stdin, root (where walls are built) and work (weak level)."""
    with tempfile.TemporaryDirectory(prefix="perfbench-sandbox-", ignore_cleanup_errors=True) as name:
        job = Path(name)
        for folder in ("code", "root", "work"):
            (job / folder).mkdir()
        (job / "code" / "main.py").write_text(source, encoding="utf-8", errors="replace")
        shutil.copyfile(sandbox_guard.__file__, job / "code" / "guard.py")
        (job / "stdin").write_bytes(stdin)
        job.chmod(0o711)
        yield job


# -- watching and ending


def _watch(process: subprocess.Popen[bytes], tree: _Tree, output: dict[str, bytearray], limits: Limits, deadline: float) -> None:
    """Read until the program has ended; raises _Ran with the limit that it ran into."""
    assert process.stdout is not None and process.stderr is not None
    with selectors.DefaultSelector() as selector:
        streams: dict[str, IO[bytes]] = {"stdout": process.stdout, "stderr": process.stderr}
        for name, stream in streams.items():
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, name)
        weigh_at = 0.0
        while process.poll() is None or selector.get_map():
            now = time.monotonic()
            if now >= deadline:
                raise _Ran("time")
            if now >= weigh_at:
                weigh_at = now + _WEIGH_S
                if tree.resident_bytes() > limits.memory_bytes:
                    raise _Ran("memory")
            for key, _ in selector.select(_LOOK_S):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                output[key.data] += chunk
            if sum(len(part) for part in output.values()) > limits.output_bytes:
                raise _Ran("output")
            if not selector.get_map():  # it has closed both: nothing to wait for but its end
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)


class _Tree:
    """All processes of one run. Who was seen once is remembered: an orphan has another parent."""

    def __init__(self, process: subprocess.Popen[bytes], *, walls: bool) -> None:
        self._process, self._walls = process, walls
        self._first = psutil.Process(process.pid)
        self._seen: set[psutil.Process] = {self._first}

    def resident_bytes(self) -> int:
        """Of all living processes together."""
        self._look()
        total = 0
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                total += int(process.memory_info().rss)
        return total

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error):
            self._seen |= set(self._first.children(recursive=True))

    def end(self) -> None:
        """Kill everything and wait until it is gone. Raises SandboxError if it is not."""
        if self._process.poll() is None:
            self._look()
            # From the inside out, so that the first process still reaps what it started: a namespace whose first process dies is emptied by the kernel.
            for process in self._seen - {self._first} if self._walls else ():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not self._walls:
                self._process.terminate()  # the guard kills what it has adopted, and ends
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GONE_S / 2)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        deadline = time.monotonic() + _GONE_S
        while left := [process for process in self._seen if _lives(process)]:
            if time.monotonic() > deadline:
                raise SandboxError(f"processes {', '.join(str(process.pid) for process in left)} of a sandboxed program cannot be killed; end them by hand")
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(_LOOK_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
