"""The sampling process itself: what it writes, and every way in which it or its parent can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from perfbench.errors import SampleError
from perfbench.results import RunFolder
from perfbench.sample import Sampler, SampleTarget
from perfbench.sample.sampler import Schedule
from perfbench.scenario.model import Telemetry

FAST = Telemetry(gpu_hz=20.0, host_hz=20.0, server_hz=20.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "t")


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "120"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 30 s"
        time.sleep(0.02)


def target(server: subprocess.Popen[bytes], url: str | None = None) -> SampleTarget:
    return SampleTarget(server="base", root_pid=server.pid, metrics_url=url, variants=["base"])


def test_a_session_becomes_parquet_on_the_records_clock(folder: RunFolder, server: subprocess.Popen[bytes]) -> None:
    before = time.monotonic_ns()
    with Sampler(folder, "s", [target(server)], FAST) as sampler:
        wait_for(lambda: "host_rss_bytes" in sampler.latest().get("base", {}) and "other_cpu_cores" in sampler.latest().get("machine", {}))
        own = psutil.Process(sampler.pid)
        assert sampler.latest()["client"]["client_processes"] >= 1
    after = time.monotonic_ns()
    assert not own.is_running()
    assert [path.name for path in (folder.path / "telemetry").iterdir()] == ["s.parquet"]
    rows = folder.samples().collect()
    assert rows["t_ns"].is_between(before, after).all()
    assert rows.filter(pl.col("name") == "host_rss_bytes")["value"].min() > 100_000
    assert {json.loads(text)["server"] for text in rows.filter(pl.col("name") == "server_cpu_s")["labels"]} == {"base"}
    assert rows.filter(pl.col("name") == "sampler_cpu_s")["value"].is_sorted()
    assert rows.filter(pl.col("name") == "machine_cpu_s")["value"].is_sorted()


def test_servers_come_and_go(folder: RunFolder, server: subprocess.Popen[bytes]) -> None:
    with Sampler(folder, "s", [], FAST) as sampler:
        wait_for(lambda: "machine_cpu_s" in sampler.latest().get("machine", {}))
        assert "base" not in sampler.latest()
        sampler.add_target(target(server))
        wait_for(lambda: "server_cpu_s" in sampler.latest().get("base", {}))
        sampler.remove_target("base")
        server.kill()
        server.wait()
        time.sleep(1.2)
    # Removed before it was stopped: its end is no failed reading (what is left are turns that an overloaded machine skipped).
    assert [name for name in sampler.missed if "base" in name] == []


def test_a_source_that_fails_is_named_once_and_stops_no_other(folder: RunFolder, server: subprocess.Popen[bytes]) -> None:
    with Sampler(folder, "s", [target(server, "http://127.0.0.1:9/metrics")], FAST) as sampler:
        wait_for(lambda: sampler.latest() and sampler.missed.get("metrics of server base", 0) >= 3)
    assert "127.0.0.1:9" in sampler.not_measured["metrics of server base"]
    rows = folder.samples().collect()
    assert rows.filter(pl.col("source") == "server")["name"].unique().to_list() == ["missed_readings"]
    counted = rows.filter((pl.col("name") == "missed_readings") & pl.col("labels").str.contains("metrics of server base"))["value"]
    assert counted.is_sorted()
    assert counted[-1] == sampler.missed["metrics of server base"]
    assert rows.filter(pl.col("name") == "host_rss_bytes").height >= 3


def test_a_sampler_that_is_killed_is_an_error_at_the_next_call_and_its_spool_comes_back(folder: RunFolder, server: subprocess.Popen[bytes]) -> None:
    with pytest.raises(SampleError, match="the sampling process died: signal 9"), Sampler(folder, "s", [target(server)], FAST) as sampler:
        wait_for(lambda: "server_cpu_s" in sampler.latest().get("base", {}))
        pid = sampler.pid
        os.kill(pid, signal.SIGKILL)
        # WNOWAIT leaves the exit status for the sampler to find; its threads may take a moment to die after the signal.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for call in (sampler.latest, lambda: sampler.remove_target("base")):
            with pytest.raises(SampleError, match="signal 9"):
                call()
    assert folder.samples().collect().is_empty()
    assert folder.telemetry_spool("s").stat().st_size > 0
    folder.recover_telemetry()
    assert {"server_cpu_s", "machine_cpu_s"} <= set(folder.samples().collect()["name"])
    assert not folder.telemetry_spool("s").exists()


def test_another_error_in_the_block_is_not_replaced(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), Sampler(folder, "s", [], FAST) as sampler:
        os.kill(sampler.pid, signal.SIGKILL)
        raise ZeroDivisionError


def test_the_sampler_ends_with_its_parent_and_keeps_what_it_read(folder: RunFolder) -> None:
    code = f"""
import sys, time
from pathlib import Path
from perfbench.results import RunFolder
from perfbench.sample import Sampler
from perfbench.scenario.model import Telemetry
with Sampler(RunFolder(Path({str(folder.path)!r})), "s", [], Telemetry(host_hz=20.0)) as sampler:
    print(sampler.pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    own = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not own.is_running() or own.status() == psutil.STATUS_ZOMBIE)
    assert folder.telemetry_path("s").is_file()
    assert not folder.telemetry_spool("s").exists()
    assert "machine_cpu_s" in set(folder.samples().collect()["name"])


def test_an_interrupt_at_the_terminal_does_not_reach_the_sampler(folder: RunFolder) -> None:
    with Sampler(folder, "s", [], FAST) as sampler:
        assert os.getpgid(sampler.pid) != os.getpgrp()
        os.kill(sampler.pid, signal.SIGINT)
        time.sleep(0.2)
        assert isinstance(sampler.latest(), dict)


def test_a_session_is_never_written_twice(folder: RunFolder) -> None:
    with Sampler(folder, "s", [], FAST):
        pass
    kept = folder.telemetry_path("s").read_bytes()
    with pytest.raises(SampleError, match=r"s\.parquet exists: session `s`"), Sampler(folder, "s", [], FAST):
        pass
    assert folder.telemetry_path("s").read_bytes() == kept


def test_outside_its_block_it_says_so(folder: RunFolder) -> None:
    with pytest.raises(SampleError, match="outside its `with` block"):
        Sampler(folder, "s", [], FAST).latest()


def test_a_folder_that_is_gone_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"did not start: exit status 1 .*No such file"), Sampler(RunFolder(tmp_path / "none"), "s", [], FAST):
        pass


def test_a_schedule_keeps_its_turns_and_counts_the_ones_it_missed() -> None:
    readings: list[float] = []
    skipped: list[int] = []
    begun = time.monotonic()
    done = threading.Event()

    def read() -> None:
        readings.append(time.monotonic() - begun)
        if len(readings) == 2:
            time.sleep(0.35)
        if len(readings) == 6:
            done.set()

    schedule = Schedule("test", 10.0, read, skipped.append)
    schedule.start()
    assert done.wait(20)
    schedule.stop()
    schedule.join()
    # Turns are 0.1 s apart from the start; the second reading took 3.5 of them, so that three were missed and none was caught up on.
    assert sum(skipped) >= 3
    turns = [round(t_s / 0.1) for t_s in readings[:6]]
    assert turns[2] - turns[1] >= 4
    assert len(set(turns)) == 6
    assert all(t_s >= turn * 0.1 - 0.05 for t_s, turn in zip(readings, turns, strict=False))


def test_an_end_without_the_last_word_is_no_success_whoever_collected_the_process(folder: RunFolder) -> None:
    # Another part of the run that waits for any child would take the exit status, and Popen then reports 0.
    with pytest.raises(SampleError, match="the sampling process died"), Sampler(folder, "s", [], FAST) as sampler:
        pid = sampler.pid
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
