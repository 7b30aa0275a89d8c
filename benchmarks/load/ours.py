"""perfbench's own load process, and the C client that is the floor."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.load.measure import BenchmarkError, Level, Reading
from benchmarks.load.truth import CLIENT_CORE, PATH, Truth
from perfbench.errors import PerfbenchError
from perfbench.load.arrivals import schedule
from perfbench.load.engine import LoadProcess
from perfbench.load.trial import TrialSpec
from perfbench.scenario.model import Output, Stage

_DRAIN_S = 20.0


class Perfbench:
    """The load process alone, as `perfbench run` and `perfbench load` start it."""

    name = "perfbench"

    def __init__(self, binaries: Path) -> None:
        self._trusted = {"SSL_CERT_FILE": str(binaries / "certificate.pem")}

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningLoad:
        trusted = self._trusted if level.tls else {}
        return RunningLoad(order(level, truth, folder), folder, trusted)


class RunningLoad:
    """A load process with its one trial, which is ordered from a thread."""

    def __init__(self, spec: TrialSpec, folder: Path, environment: dict[str, str]) -> None:
        self._spec = spec
        self._failed: str | None = None
        self._stack = contextlib.ExitStack()
        with _environment(environment):
            self._load = self._stack.enter_context(LoadProcess(folder / "load.log"))
        self.pid = self._load.pid
        os.sched_setaffinity(self.pid, {CLIENT_CORE})
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    def _drive(self) -> None:
        try:
            outcome = self._load.run(self._spec)
        except PerfbenchError as error:
            self._failed = error.message
        else:
            if outcome.requests_failed or outcome.held_back or outcome.stamp != "kernel":
                self._failed = f"{outcome.requests_failed} requests failed, {outcome.held_back} were held back, stamps by {outcome.stamp}"

    def finish(self) -> list[Reading]:
        self._thread.join()
        if self._failed:
            raise BenchmarkError(f"perfbench: {self._failed}")
        columns = ["request_id", "scheduled_ns", "sent_ns", "chunk_ns"]
        rows = pl.read_parquet(self._spec.records_path, columns=columns).iter_rows()
        return [
            Reading(id=name, sent_ns=sent_ns, scheduled_ns=scheduled_ns, ttft_ns=chunks[0] - sent_ns, gaps_ns=np.diff(chunks).tolist())
            for name, scheduled_ns, sent_ns, chunks in rows
        ]

    def stop(self) -> None:
        self._stack.close()
        self._thread.join()


@contextlib.contextmanager
def _environment(changes: dict[str, str]):  # type: ignore[no-untyped-def]
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def request_json() -> dict[str, object]:
    return {"model": "truth", "prompt": "Hello", "max_tokens": 64, "stream": True, "stream_options": {"include_usage": True}}


def order(level: Level, truth: Truth, folder: Path) -> TrialSpec:
    bodies, arrivals = folder / "bodies.jsonl", folder / "schedule.parquet"
    bodies.write_bytes(msgspec.json.encode({"prompt_id": "p", "body": request_json()}) + b"\n")
    if level.rate_per_s is not None:
        stage = Stage(name="s", arrival="poisson", rate_per_s=level.rate_per_s, warmup_s=0.0, duration_s=level.seconds, output=Output(fixed=1))
        pq.write_table(pa.table({"offset_ns": schedule(stage, 0)}), arrivals)
    return TrialSpec(
        trial="benchmark", variant="truth", url=truth.url, path=PATH, api_key_env=None, bodies_path=str(bodies),
        arrival="poisson" if level.rate_per_s else "closed", concurrency=level.streams, schedule_path=str(arrivals) if level.rate_per_s else None,
        warmup_s=0.0, duration_s=level.seconds, drain_s=_DRAIN_S, max_in_flight=1 << 16, request_timeout_s=60.0, keep_text=False,
        records_path=str(folder / "records.parquet"), spool_path=str(folder / "records.spool"),
    )  # fmt: skip


class Floor:
    """floor.c: only reads and stamps. What any client on this machine needs at least."""

    name = "C client (floor)"

    def __init__(self, binaries: Path) -> None:
        self._program = binaries / "floor"

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningFloor:
        body = msgspec.json.encode(request_json())
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {'0' * 12}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        (folder / "request").write_bytes(head.encode() + body)
        seconds = str(round(level.seconds) + 1)
        command = [str(self._program), str(truth.port), str(level.streams), seconds, str(folder / "request"), str(folder / "floor.jsonl")]
        return RunningFloor(subprocess.Popen(["taskset", "-c", str(CLIENT_CORE), *command]), folder / "floor.jsonl")


class _FloorLine(msgspec.Struct):
    id: str
    sent_ns: int
    reads: list[int]


class RunningFloor:
    """The C client's process. Its first read of an answer brings the head, each one after it a token."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self._process = process
        self._path = path
        self.pid = process.pid

    def finish(self) -> list[Reading]:
        if self._process.wait():
            raise BenchmarkError(f"the C client ended with code {self._process.returncode}")
        lines = msgspec.json.Decoder(_FloorLine).decode_lines(self._path.read_bytes())
        return [Reading(id=line.id, sent_ns=line.sent_ns, ttft_ns=line.reads[1] - line.sent_ns, gaps_ns=np.diff(line.reads[1:]).tolist()) for line in lines]

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
