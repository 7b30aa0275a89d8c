"""The load process itself: progress, cancelling, dying and leaving nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.errors import LoadError
from perfbench.load.decode import recover_spool
from perfbench.load.engine import LoadProcess
from perfbench.load.messages import Progress
from tests.truth.conftest import TruthServer, make_spec, read_records, request_body, text_of, when_spooled


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_progress_about_once_a_second(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    seen: list[Progress] = []
    spec = make_spec(tmp_path / "t", truth_server.url, [request_body(ttft_ms=30, gap_ms=5, tokens=5)], concurrency=4, duration_s=2.6)
    outcome = load_process.run(spec, seen.append)
    assert len(seen) == 2
    assert seen[0].trial == "adapter.closed.r0"
    assert seen[0].length_s == 2.6
    assert 0.8 < seen[1].elapsed_s - seen[0].elapsed_s < 1.5
    assert seen[0].ok < seen[1].ok <= outcome.requests_ok
    assert seen[1].in_flight == 4
    assert seen[1].sent == seen[1].ok + seen[1].in_flight
    assert 0.029 < seen[1].ttft_p50_s < 0.1
    assert seen[1].ttft_p95_s >= seen[1].ttft_p50_s
    assert 4 / 0.05 * 5 * 0.3 < seen[1].chunks_per_s < 4 / 0.05 * 9


@pytest.mark.parametrize("offsets_s", [None, [0.05 * k for k in range(400)]])
def test_cancel_stops_sending_drains_and_saves(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Path, offsets_s: list[float] | None) -> None:
    bodies = [request_body(ttft_ms=5, gap_ms=20, tokens=5), request_body(fault="hang")]
    concurrency = None if offsets_s else 3
    spec = make_spec(tmp_path / "t", truth_server.url, bodies, duration_s=20.0, drain_s=20.0, offsets_s=offsets_s, concurrency=concurrency)
    when_spooled(spec, 3_000, load_process.cancel)
    started = time.monotonic()
    outcome = load_process.run(spec)
    assert time.monotonic() - started < 15
    records = read_records(Path(spec.records_path))
    assert outcome.requests_ok > 0
    cancelled = [record for record in records if record.status == "failed"]
    assert {(record.error, record.error_message) for record in cancelled} == {("cancelled", "still in flight when the trial was stopped")}
    assert len(cancelled) == len(records) - outcome.requests_ok
    assert max(record.sent_ns for record in records) < outcome.measure_until_ns + 50_000_000
    assert outcome.client_cpu_s is not None  # over the part that was driven


def test_ctrl_c_in_the_parent_saves_before_it_goes_on(truth_server: TruthServer, tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "t", truth_server.url, [request_body(ttft_ms=5, gap_ms=5, tokens=5)], concurrency=2, duration_s=30.0)
    with LoadProcess(tmp_path / "load.log") as load:
        when_spooled(spec, 30_000, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            load.run(spec)
        assert len(read_records(Path(spec.records_path))) > 10
        again = make_spec(tmp_path / "u", truth_server.url, [request_body(ttft_ms=5, gap_ms=5, tokens=5)], duration_s=0.1)
        assert load.run(again).requests_ok > 0


def test_kill_9_loses_only_what_was_in_flight(truth_server: TruthServer, tmp_path: Path) -> None:
    bodies = [request_body(ttft_ms=5, gap_ms=3, tokens=5)]
    spec = make_spec(tmp_path / "t", truth_server.url, bodies, concurrency=4, duration_s=30.0)
    with LoadProcess(tmp_path / "load.log") as load:
        pid = load.pid
        when_spooled(spec, 100_000, lambda: os.kill(pid, signal.SIGKILL))
        with pytest.raises(LoadError, match=r"was killed by signal 9 during trial adapter\.closed\.r0"):
            load.run(spec)
    assert not Path(spec.records_path).exists()
    time.sleep(0.1)
    records = {record.request_id: record for record in recover_spool(Path(spec.spool_path))}
    answered = truth_server.answers()
    assert len(records) >= 30
    assert set(records) <= set(answered)
    assert len(set(answered) - set(records)) <= 2 * 4  # in flight, and ended in the very moment
    assert {(record.status, record.output_text, record.trial, record.variant) for record in records.values()} == {
        ("ok", text_of(5), "adapter.closed.r0", "adapter")
    }


def test_records_that_cannot_be_written_stay_in_the_spool(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "t", truth_server.url, [request_body()], records_path="/nonexistent/records.parquet", duration_s=0.05)
    with pytest.raises(LoadError, match=r"cannot be written to /nonexistent/records\.parquet: .*No such file or directory; make room there"):
        load_process.run(spec)
    assert recover_spool(Path(spec.spool_path))


def test_a_crash_is_reported_with_the_logs_last_lines(truth_server: TruthServer, tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "t", truth_server.url, [request_body()], spool_path="/nonexistent/records.spool", duration_s=0.05)
    with LoadProcess(tmp_path / "load.log") as load, pytest.raises(LoadError, match=r"ended with code 1 .*FileNotFoundError") as caught:
        load.run(spec)
    assert str(tmp_path / "load.log") in (caught.value.hint or "")


def test_more_streams_than_open_files_are_refused_in_one_sentence_before_load(truth_server: TruthServer, tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "t", truth_server.url, [request_body()], concurrency=300)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with LoadProcess(tmp_path / "load.log") as load:
        resource.prlimit(load.pid, resource.RLIMIT_NOFILE, (256, 256))
        with pytest.raises(LoadError, match=r"300 connections at once need as many open files, and each process may have 256 here; raise the limit"):
            load.run(spec)
    assert truth_server.answers() == {}
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_leaving_the_block_ends_the_process(tmp_path: Path) -> None:
    with LoadProcess(tmp_path / "load.log") as load:
        pid = load.pid
        assert is_alive(pid)
    assert not is_alive(pid)
    with pytest.raises(LoadError, match="not running"):
        load.cancel()


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\nfrom perfbench.load.engine import LoadProcess\n"
        "with LoadProcess(pathlib.Path(sys.argv[1])) as load:\n    print(load.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "load.log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_alive(pid))


def test_the_parent_never_imports_gevent() -> None:
    code = "import sys, perfbench.load.engine, perfbench.load.decode, perfbench.load.arrivals; sys.exit('gevent' in sys.modules or 'locust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
