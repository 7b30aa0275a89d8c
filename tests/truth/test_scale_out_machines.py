"""Workers on other machines, each a network namespace with an interface of its own: `perfbench load --workers 2` and two `perfbench worker`.

The first worker sees the run folder. The second has a file system of its own there, so that all goes by message, and a time namespace in which
CLOCK_MONOTONIC is 5,000 s ahead, so that its clock has to be found out. The server's log is on the master's clock and says what was true.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import psutil
import pytest

from perfbench.results import RunFolder
from tests.truth.conftest import byte_tokenizer

MASTER = "10.213.77.1"
AHEAD_S = 5_000
Process = subprocess.Popen[str]


@dataclass
class Machines:
    """A machine with a bridge and the server, `w1` and `w2` plugged into it."""

    prefix: str
    folder: Path
    shifts_clock: bool
    stack: ExitStack = field(repr=False)

    def start(self, machine: str, *command: object) -> Process:
        inside = ["ip", "netns", "exec", f"{self.prefix}{machine}", *map(str, command)]
        process = subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.stack.callback(end, process)
        return process

    def worker(self, machine: str, *, alone: bool) -> Process:
        perfbench = [sys.executable, "-m", "perfbench", "worker", "--master", MASTER]
        if not alone:
            return self.start(machine, *perfbench)
        clock = ["--time", "--monotonic", AHEAD_S] if self.shifts_clock else []
        hidden = f"mount -t tmpfs none {self.folder} && exec {' '.join(perfbench)}"
        return self.start(machine, "unshare", "--mount", "--fork", "--kill-child", *clock, "sh", "-c", hidden)

    def load(self, url: str, *options: object) -> Process:
        fixed = ["--input-tokens", 20, "--output-tokens", 4, "--tokenizer", self.folder.parent / "tokenizer", "--out", self.folder, "--workers", 2]
        return self.start("m", sys.executable, "-m", "perfbench", "load", "--url", url, "--model", "truth", *fixed, *options, "--json")


def end(process: Process) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, iproute2 and unshare to make network namespaces: workers on other machines are not tried")
    prefix = f"pb{os.getpid()}"
    (tmp_path / "tokenizer").mkdir()
    byte_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "results").mkdir()
    clock = subprocess.run(["unshare", "--time", "--monotonic", "1", "--fork", "true"], capture_output=True, check=False).returncode == 0
    with ExitStack() as stack:
        try:
            ip("netns", "add", f"{prefix}m")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here ({error.stderr.decode().strip()}): workers on other machines are not tried")
        stack.callback(ip, "netns", "del", f"{prefix}m")
        ip("-n", f"{prefix}m", "link", "add", "br0", "type", "bridge")
        ip("-n", f"{prefix}m", "addr", "add", f"{MASTER}/24", "dev", "br0")
        ip("-n", f"{prefix}m", "link", "set", "br0", "up")
        ip("-n", f"{prefix}m", "link", "set", "lo", "up")
        for number in (1, 2):
            name = f"{prefix}w{number}"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", f"{prefix}m", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", f"{prefix}m", "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", name, "addr", "add", f"10.213.77.{10 + number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield Machines(prefix, tmp_path / "results", clock, stack)


@pytest.fixture
def server(machines: Machines, truth_binary: Path, tmp_path: Path) -> str:
    process = machines.start("m", truth_binary, "*:0", tmp_path / "truth.jsonl", "truth")
    assert process.stdout is not None
    return f"http://{MASTER}:{process.stdout.readline().split()[1]}"


def finish(process: Process, seconds: float = 120.0) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def test_two_machines_send_exactly_the_schedule_and_their_records_come_together(machines: Machines, server: str, tmp_path: Path) -> None:
    workers = [machines.worker("w1", alone=False), machines.worker("w2", alone=True)]
    master = machines.load(server, "--arrival", "poisson", "--rate", 60, "--requests", 120, "--warmup", 0.5)
    code, out, err = finish(master)
    assert code == 0, err
    assert "load: 0 of 2 workers connected to *:5557 (perfbench worker --master HOST:PORT)" in err
    assert [finish(worker, 20)[0] for worker in workers] == [0, 0]

    (path,) = machines.folder.iterdir()
    folder = RunFolder.open(path)
    outcome = folder.finished("trial_finished")["endpoint.poisson.r0"]
    parts = [pl.read_parquet(folder.records_path("endpoint.poisson.r0", worker)).sort("scheduled_ns") for worker in (0, 1)]
    planned = pl.read_parquet(folder.schedule_path("poisson", 0))["offset_ns"].to_list()
    for worker, part in enumerate(parts):
        assert (part["scheduled_ns"] - outcome["started_ns"]).to_list() == planned[worker::2]
    together = pl.concat(parts)
    assert together["request_id"].n_unique() == len(together) == len(planned)
    answered = {line["id"]: line for line in map(json.loads, (tmp_path / "truth.jsonl").read_text().splitlines())}
    assert set(together["request_id"]) <= set(answered)
    assert set(together["status"]) == {"ok"}
    assert json.loads(out)["variants"]["endpoint"]["trials"][0]["requests"] == {"ok": 120, "failed": 0}

    told = outcome["workers"]
    assert sorted(worker["shared_folder"] for worker in told) == [False, True]
    for worker, part in zip(told, parts, strict=True):
        assert worker["requests"] == len(part)
        assert 0 <= worker["send_lag_p99_s"] < 0.25
        # On one clock: the server's log says when a request had come, a little after it was sent and never before by more than the clocks' doubt.
        after_s = pl.Series([answered[row["request_id"]]["received_ns"] - row["sent_ns"] for row in part.to_dicts()]) / 1e9
        doubt_s = (worker["clock_rtt_ns"] or 0) / 2e9
        assert after_s.min() > -doubt_s - 1e-3
        assert after_s.median() < doubt_s + 5e-3
        assert (part["first_token_ns"] - part["sent_ns"]).min() > 0
    if machines.shifts_clock:
        (other,) = [worker for worker in told if not worker["shared_folder"]]
        assert abs(other["clock_offset_ns"] / 1e9 - AHEAD_S) < 0.05
        assert 0 < other["clock_rtt_ns"] < 100e6
        assert abs(other["clock_drift_ns"]) < 50e6
    assert list((folder.path / "requests").glob("*.spool")) == []


def started(worker: Process) -> None:
    """Read what it says until it has connected."""
    assert worker.stderr is not None
    while "connected to the master" not in (line := worker.stderr.readline()):
        assert line, "the worker ended before it had connected"


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_worker_that_is_ended_is_missed_and_all_is_kept(machines: Machines, server: str) -> None:
    workers = [machines.worker("w1", alone=False), machines.worker("w2", alone=False)]
    master = machines.load(server, "--concurrency", 4, "--duration", 60)
    for worker in workers:
        started(worker)
    wait_for(lambda: sum(path.stat().st_size > 20_000 for path in machines.folder.glob("*/requests/*.spool")) == 2)
    os.killpg(workers[0].pid, signal.SIGINT)
    code, out, err = finish(master)
    assert (code, out) == (6, "")
    assert "load worker 0 " in err or "load worker 1 " in err
    assert "ended by its user" in err
    (path,) = machines.folder.iterdir()
    kept = pl.read_parquet(list((path / "requests").glob("*.interrupted-1.parquet")))
    assert set(kept["worker"]) == {0, 1}
    code, _, err = finish(workers[0], 20)
    assert (code, "ended by its user; what trial endpoint.closed.r0 had sent is in " in err) == (130, True)
    assert finish(workers[1], 20)[0] == 0


def test_workers_that_lose_their_master_stop_and_say_where_their_requests_are(machines: Machines, server: str) -> None:
    worker = machines.worker("w1", alone=True)
    other = machines.worker("w2", alone=False)
    master = machines.load(server, "--concurrency", 4, "--duration", 60)
    for one in (worker, other):
        started(one)
    wait_for(lambda: any(path.stat().st_size > 20_000 for path in machines.folder.glob("*/requests/*.spool")))
    (leading,) = [child for child in psutil.Process(master.pid).children() if "perfbench.load.process" in child.cmdline()]
    leading.kill()
    assert finish(master)[0] == 6
    for one in (worker, other):
        code, _, err = finish(one, 40)
        assert code == 6
        assert f"the master at {MASTER}:5557 is lost: no sign of life for 10 s; what trial endpoint.closed.r0 had sent is in " in err
