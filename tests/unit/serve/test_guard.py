"""Which processes belong to a server: all of them, and no stranger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perfbench.serve import guard

from .conftest import living, wait_until


@contextmanager
def sleeper(mark: str | None) -> Iterator[subprocess.Popen[bytes]]:
    env = {} if mark is None else {guard.MARK_VARIABLE: mark}
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], env=env, start_new_session=True)
    # Until it has started its program, a child still shows its parent's environment.
    assert wait_until(lambda: b"time.sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_only_the_mark_counts() -> None:
    with sleeper("a" * 16) as ours, sleeper("b" * 16), sleeper(None):
        assert guard.processes_of("a" * 16, ours.pid) .keys() == {ours.pid}
        assert guard.processes_of("a" * 16, None).keys() == {ours.pid}
        assert not guard.processes_of("a" * 15, None)  # no part of a mark is a mark


def test_a_stranger_with_the_number_of_an_ended_server_is_left_alone() -> None:
    with sleeper(None) as stranger:
        assert not guard.processes_of("c" * 16, stranger.pid)
        assert not guard.processes_of("c" * 16, None, {stranger.pid: 1})  # the number is the same, the start is another
        assert guard.kill_processes("c" * 16, stranger.pid, terminate_s=0.1, kill_s=0.1) == set()
        assert living({stranger.pid})


def test_a_zombie_is_not_left_over() -> None:
    with sleeper("d" * 16) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: not living({process.pid}))
        assert not guard.processes_of("d" * 16, process.pid)


def test_the_guard_ends_by_itself_when_the_pipe_closes() -> None:
    with sleeper("e" * 16) as process:
        watcher = subprocess.Popen([sys.executable, "-I", "-S", guard.__file__, "e" * 16], stdin=subprocess.PIPE)
        watcher.communicate(f"{process.pid}\n".encode(), timeout=30)
        assert watcher.returncode == 0
        assert process.wait(10) == -signal.SIGTERM
