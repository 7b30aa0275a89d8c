"""Several load processes on one machine: one trial, dealt out without overlap or gap, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from perfbench.errors import LoadError
from perfbench.load.decode import recover_spool
from perfbench.load.engine import LoadProcess
from perfbench.load.messages import Progress
from perfbench.load.scale import Scale
from perfbench.load.trial import TrialSpec, WorkerFiles
from perfbench.records import Record
from tests.truth.conftest import TruthServer, make_spec, read_records, request_body, text_of, when_spooled
from tests.truth.test_load_process import is_alive, wait_for


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadProcess]:
    with LoadProcess(tmp_path_factory.mktemp("load") / "load.log", Scale(processes=2)) as load:
        yield load


def spec_for_two(folder: Path, url: str, bodies: list[dict[str, Any]], **changes: Any) -> TrialSpec:
    further = [WorkerFiles(spool_path=str(folder / "records.w1.spool"), records_path=str(folder / "records.w1.parquet"))]
    return make_spec(folder, url, bodies, further=further, **changes)


def records_of(spec: TrialSpec) -> list[list[Record]]:
    return [read_records(Path(spec.files_of(worker).records_path)) for worker in (0, 1)]


def number_of(record: Record) -> str:
    return record.request_id.rpartition("-")[2]


def test_a_schedule_is_dealt_out_in_turn(two_processes: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    offsets_s = [0.013 * number for number in range(61)]
    bodies = [request_body(ttft_ms=5, gap_ms=2, tokens=number % 5 + 1) for number in range(7)]
    spec = spec_for_two(tmp_path, truth_server.url, bodies, offsets_s=offsets_s, duration_s=0.8)
    seen: list[Progress] = []
    outcome = two_processes.run(spec, seen.append)
    parts = records_of(spec)
    offsets_ns = [round(offset_s * 1e9) for offset_s in offsets_s]
    for worker, records in enumerate(parts):
        assert [record.scheduled_ns - outcome.started_ns for record in records] == offsets_ns[worker::2]
        assert [int(number_of(record)) for record in records] == list(range(61))[worker::2]
        assert {record.worker for record in records} == {worker}
    together = sorted(parts[0] + parts[1], key=lambda record: record.scheduled_ns)
    assert [record.prompt_id for record in together] == [f"p{number % 7}" for number in range(61)]
    assert [record.output_text for record in together] == [text_of(number % 7 % 5 + 1) for number in range(61)]
    assert {record.request_id for record in together} == set(truth_server.answers())
    assert (outcome.requests_ok, outcome.requests_failed) == (61, 0)
    assert [(worker.worker, worker.requests, worker.clock_offset_ns, worker.clock_rtt_ns) for worker in outcome.workers] == [(0, 31, 0, None), (1, 30, 0, None)]
    assert all(worker.shared_folder and worker.client_cpu_s > 0 and worker.send_lag_p99_s < 0.2 for worker in outcome.workers)
    assert outcome.client_cpu_s == max(worker.client_cpu_s for worker in outcome.workers)
    assert outcome.measure_until_ns - outcome.measure_from_ns == 800_000_000


def test_streams_and_requests_of_a_closed_loop_are_shared(two_processes: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    spec = spec_for_two(tmp_path, truth_server.url, [request_body(ttft_ms=20, gap_ms=1, tokens=3)], concurrency=5, duration_s=None, requests=41)
    outcome = two_processes.run(spec)
    parts = records_of(spec)
    assert [len(records) for records in parts] == [25, 16]
    numbers = [int(number_of(record)) for records in parts for record in records]
    assert len(set(numbers)) == 41
    assert [max(overlapping(records)) for records in parts] == [3, 2]
    measured = [record for records in parts for record in records if outcome.measure_from_ns <= record.scheduled_ns < outcome.measure_until_ns]
    assert len(measured) >= 41 - 5  # the window ends with the first worker that has sent its share


def overlapping(records: list[Record]) -> list[int]:
    """How many were in flight whenever one was sent."""
    return [sum(other.sent_ns <= record.sent_ns < other.end_ns for other in records) for record in records]


def test_a_conversation_stays_with_one_worker(two_processes: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    asked = {"turns": ["second", "third"], "think_time_s": 0.01}
    bodies = [request_body(ttft_ms=5, gap_ms=1, tokens=2, log_body=1) for _ in range(5)]
    spec = spec_for_two(tmp_path, truth_server.url, bodies, asked=asked, offsets_s=[0.05 * number for number in range(10)], duration_s=1.0)
    two_processes.run(spec)
    parts = records_of(spec)
    turns: dict[str, set[int]] = {}
    for record in parts[0] + parts[1]:
        turns.setdefault(number_of(record).partition(".")[0], set()).add(record.worker)
    assert {int(number): worker for number, worker in turns.items()} == {number: {number % 2} for number in range(10)}
    assert len(parts[0] + parts[1]) == 30
    third = [answer.body for answer in truth_server.answers().values() if len(answer.body["messages"]) == 5]
    assert [message["content"] for message in third[0]["messages"][1:]] == [text_of(2), "second", text_of(2), "third"]


def test_more_processes_than_streams(two_processes: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    spec = spec_for_two(tmp_path, truth_server.url, [request_body(ttft_ms=5, gap_ms=1, tokens=2)], concurrency=1, duration_s=0.3)
    outcome = two_processes.run(spec)
    assert [worker.worker for worker in outcome.workers] == [0]
    assert outcome.requests_ok == outcome.workers[0].requests > 3


def test_cancel_reaches_every_worker(two_processes: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    spec = spec_for_two(tmp_path, truth_server.url, [request_body(ttft_ms=5, gap_ms=5, tokens=4)], concurrency=4, duration_s=30.0)
    when_spooled(spec, 15_000, two_processes.cancel)
    outcome = two_processes.run(spec)
    assert outcome.measure_until_ns - outcome.measure_from_ns < 20e9
    assert all(len(records) > 2 for records in records_of(spec))


def test_a_worker_that_cannot_connect_says_so_once(two_processes: LoadProcess, tmp_path: Path) -> None:
    spec = spec_for_two(tmp_path, "http://127.0.0.1:9", [request_body()], concurrency=2)
    with pytest.raises(LoadError, match=r"load worker \d \(process \d+ on .*\): no connection to http://127\.0\.0\.1:9: Connection refused"):
        two_processes.run(spec)


def test_after_a_refused_trial_the_next_one_is_driven(two_processes: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    spec = spec_for_two(tmp_path, truth_server.url, [request_body(ttft_ms=5, gap_ms=1, tokens=2)], concurrency=2, duration_s=0.2)
    assert two_processes.run(spec).requests_failed == 0


@pytest.fixture
def workers_of() -> Callable[[LoadProcess], list[int]]:
    return lambda load: [child.pid for child in psutil.Process(load.pid).children() if "perfbench.load.worker" in child.cmdline()]


def test_a_killed_worker_ends_the_trial_and_the_others_keep_what_they_sent(
    truth_server: TruthServer, tmp_path: Path, workers_of: Callable[[LoadProcess], list[int]]
) -> None:
    spec = spec_for_two(tmp_path, truth_server.url, [request_body(ttft_ms=5, gap_ms=5, tokens=4)], concurrency=4, duration_s=60.0)
    with LoadProcess(tmp_path / "load.log", Scale(processes=2)) as load:
        pids = workers_of(load)
        assert len(pids) == 2
        when_spooled(spec, 15_000, lambda: os.kill(pids[0], signal.SIGKILL))
        with pytest.raises(LoadError, match=rf"process {pids[0]} on .* has ended; what the others sent is saved"):
            load.run(spec)
        spools = [recover_spool(Path(spec.files_of(worker).spool_path)) for worker in (0, 1)]
    assert all(len(records) > 2 for records in spools)
    assert len({record.request_id for records in spools for record in records}) == len(spools[0]) + len(spools[1])
    wait_for(lambda: not any(map(is_alive, pids)))


def test_workers_end_with_their_master(tmp_path: Path, workers_of: Callable[[LoadProcess], list[int]]) -> None:
    with LoadProcess(tmp_path / "load.log", Scale(processes=2)) as load:
        pids = workers_of(load)
        os.kill(load.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, pids)))
