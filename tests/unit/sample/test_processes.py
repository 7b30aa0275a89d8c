"""Real processes: who belongs to whom, and CPU time that never falls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from perfbench.sample.host import HostReader
from perfbench.sample.processes import CLIENT, ProcessGroups, server_group
from perfbench.sample.spec import SampleTarget

BURN = "import time\nuntil = time.process_time() + {seconds}\nwhile time.process_time() < until: pass\n"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process in a session of its own; ends the session afterwards."""
    started: list[subprocess.Popen[str]] = []

    def begin(*argv: str, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True, **options)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 20 s"
        time.sleep(0.02)


def test_a_server_tree_is_its_own_although_the_client_started_it(start: Callable[..., subprocess.Popen[str]]) -> None:
    server = start("sh", "-c", "sleep 60 & echo $!; wait")
    worker = int(server.stdout.readline())
    load = start("sleep", "60")
    groups = ProcessGroups(client_root=os.getpid(), sampler_root=-1)
    groups.set_servers({"base": server.pid})
    groups.refresh()
    assert {process.pid for process in groups.members(server_group("base"))} == {server.pid, worker}
    assert {groups.group_of(os.getpid()), groups.group_of(load.pid)} == {CLIENT}
    assert groups.group_of(os.getppid()) is None
    assert {server.pid, load.pid, os.getppid()} <= groups.all_pids()
    groups.set_servers({})
    groups.refresh()
    assert groups.group_of(worker) == CLIENT, "a server that was removed is no server any more"


@pytest.fixture
def adopting() -> Iterator[None]:
    """This process adopts orphans, as the first process of a container does."""
    prctl, set_child_subreaper = ctypes.CDLL(None).prctl, 36
    prctl(set_child_subreaper, 1, 0, 0, 0)
    yield
    prctl(set_child_subreaper, 0, 0, 0, 0)


@pytest.mark.usefixtures("adopting")
def test_an_orphan_is_found_by_its_session_and_a_daemon_by_its_mark(start: Callable[..., subprocess.Popen[str]]) -> None:
    # The first shell ends at once, so both sleepers lose their parent; the second also leaves the session.
    code = "(sleep 60 & echo $!); (setsid sh -c 'sleep 60 & echo $!'); sleep 60"
    server = start("sh", "-c", code, env={**os.environ, "PERFBENCH_SERVER": "3f9a"})
    other = start("sleep", "60", env={**os.environ, "PERFBENCH_SERVER": "77c1"})
    orphan, daemon = int(server.stdout.readline()), int(server.stdout.readline())
    try:
        # Adopted by the client once the shells between have ended, and still the server's.
        wait_for(lambda: psutil.Process(daemon).ppid() == os.getpid() and os.getsid(daemon) != server.pid)
        groups = ProcessGroups(client_root=os.getpid(), sampler_root=-1)
        groups.set_servers({"base": server.pid})
        groups.refresh()
        assert groups.group_of(orphan) == groups.group_of(daemon) == server_group("base")
        groups.set_servers({"other": other.pid})
        groups.refresh()
        assert groups.group_of(other.pid) == server_group("other")
        assert groups.group_of(daemon) == CLIENT, "it carries the mark of a server that is not watched"
    finally:
        for pid in (orphan, daemon):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_cpu_time_counts_from_the_first_look_includes_newcomers_and_keeps_the_dead(start: Callable[..., subprocess.Popen[str]]) -> None:
    server = start(sys.executable, "-c", BURN.format(seconds=0.5) + "print('burnt', flush=True)\ninput()\n"
                   "import subprocess, sys\nsubprocess.run([sys.executable, '-c', " + repr(BURN.format(seconds=0.6) + "import time\ntime.sleep(1)\n") + "])\n"
                   "print('child', flush=True)\ninput()\n", stdin=subprocess.PIPE)  # fmt: skip
    assert server.stdout.readline() == "burnt\n"
    groups = ProcessGroups(client_root=-1, sampler_root=-1)
    groups.set_servers({"base": server.pid})
    groups.refresh()
    group = server_group("base")
    assert groups.cpu_s(group) == 0.0, "what it used before we looked is not ours to count"
    server.stdin.write("\n")
    server.stdin.flush()
    wait_for(lambda: groups.refresh() or groups.cpu_s(group) >= 0.4)
    assert server.stdout.readline() == "child\n"
    groups.refresh()
    assert len(groups.members(group)) == 1
    assert 0.4 <= groups.cpu_s(group) < 5.0
    assert groups.all_cpu_s() == groups.cpu_s(group)


def test_memory_is_summed_over_the_tree_and_absent_once_it_has_ended(start: Callable[..., subprocess.Popen[str]]) -> None:
    size = 64 * 2**20
    hold = f"import os, time\nheld = bytearray(b'x') * {size}\nos.fork()\nos.write(1, b'ready\\n')\ntime.sleep(60)\n"
    # The child is a fork: the parent's block is shared between them, so RSS counts it twice and PSS once.
    server = start(sys.executable, "-c", hold)
    assert [server.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    target = SampleTarget(server="base", root_pid=server.pid, metrics_url=None)
    groups = ProcessGroups(client_root=os.getpid(), sampler_root=-1)
    groups.set_servers({"base": server.pid})
    groups.refresh()
    missed: list[tuple[str, str]] = []
    reader = HostReader(groups)
    found = {sample.name: sample.value for sample in reader.read_server(target, lambda *why: missed.append(why))}
    assert found["server_processes"] == 2
    assert found["server_threads"] == 2
    assert found["host_rss_bytes"] > 2 * size
    assert size < found["host_pss_bytes"] < found["host_rss_bytes"] - 0.9 * size
    assert "host_pss_bytes" not in {sample.name for sample in reader.read_server(target, lambda *_: None)}, "PSS is read every 10 s only"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    wait_for(lambda: groups.refresh() or len(groups.members(server_group("base"))) == 0)
    assert reader.read_server(target, lambda *why: missed.append(why)) == []
    assert missed == [("host_rss_bytes of server base", f"its process {server.pid} has ended")]


def test_who_else_is_busy_is_told_from_the_server_and_the_client(start: Callable[..., subprocess.Popen[str]]) -> None:
    server = start(sys.executable, "-c", BURN.format(seconds=60))
    groups = ProcessGroups(client_root=os.getpid(), sampler_root=-1)
    groups.set_servers({"base": server.pid})
    reader = HostReader(groups)
    groups.refresh()
    first = {sample.name: sample.value for sample in reader.read_machine()}
    assert "other_cpu_cores" not in first, "one reading has no rate"
    begun, base = time.monotonic(), groups.cpu_s(server_group("base"))
    time.sleep(1.0)
    groups.refresh()
    second = {sample.name: sample.value for sample in reader.read_machine()}
    ours = groups.all_cpu_s()
    assert groups.cpu_s(server_group("base")) > base + 0.1
    busy = second["machine_cpu_s"] - first["machine_cpu_s"]
    others = second["other_cpu_cores"] * (time.monotonic() - begun)
    assert others == pytest.approx(max(0.0, busy - ours), abs=0.05)
    assert 0 < second["machine_available_bytes"] <= psutil.virtual_memory().total
