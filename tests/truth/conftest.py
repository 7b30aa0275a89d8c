"""The ground-truth server (truth_server.c), built once a session, and a way to drive one trial against it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from perfbench.load.engine import LoadProcess
from perfbench.load.trial import TrialSpec
from perfbench.records import Record, TrialOutcome

SOURCE = Path(__file__).with_name("truth_server.c")


@dataclass(frozen=True)
class Answer:
    """What the server logged of one answer; times on CLOCK_MONOTONIC."""

    id: str
    arrived_ns: int
    """The kernel's stamp of the request; 0 where it gives none."""
    received_ns: int
    """When it had been read."""
    connection: int
    chunks: list[int]
    """Right before the write that holds the chunk's last byte."""
    written: list[int]
    """Right after it."""
    end_ns: int
    body: dict[str, Any] | None = None
    """What was asked, where the script says `log_body`."""


@dataclass
class TruthServer:
    url: str
    log_path: Path
    process: subprocess.Popen[str] = field(repr=False)

    def answers(self) -> dict[str, Answer]:
        """Logged answers by request id, oldest first."""
        lines = self.log_path.read_text().splitlines()
        return {answer.id: answer for answer in (Answer(**json.loads(line)) for line in lines)}


@pytest.fixture(scope="session")
def truth_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) on this machine: the ground-truth server cannot be built, so no timing is tested")
    binary = tmp_path_factory.mktemp("truth") / "truth_server"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(binary), str(SOURCE)], check=True)
    return binary


@contextmanager
def started(binary: Path, log_path: Path, *options: str) -> Iterator[TruthServer]:
    """A truth server with options (`--slots 1`, `--knee 8`, models), stopped at the end."""
    process = subprocess.Popen([str(binary), "0", str(log_path), *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline().split()[1])
    try:
        yield TruthServer(url=f"http://127.0.0.1:{port}", log_path=log_path, process=process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def truth_server(truth_binary: Path, tmp_path: Path) -> Iterator[TruthServer]:
    with started(truth_binary, tmp_path / "truth.jsonl") as server:
        yield server


@pytest.fixture
def capacity_server(truth_binary: Path, tmp_path: Path) -> Iterator[Callable[..., TruthServer]]:
    """Starts truth servers whose capacity is known: see the top of truth_server.c for `--slots` and `--knee`."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(started(truth_binary, tmp_path / "-".join(["truth", *options, "jsonl"]), *options))


def byte_tokenizer(folder: Path) -> None:
    """One token a byte, and a chat template that writes the user's words only: lengths can be counted by hand."""
    made = Tokenizer(BPE(vocab={character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")


@pytest.fixture(scope="session")
def load_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadProcess]:
    """One load process for many trials, as in a run."""
    with LoadProcess(tmp_path_factory.mktemp("load") / "load.log") as load:
        yield load


def request_body(*, stream: bool = True, usage: bool = True, **truth: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "truth", "messages": [{"role": "user", "content": "Grüß dich"}], "stream": stream, "truth": truth}
    return {**body, "stream_options": {"include_usage": True}} if stream and usage else body


def make_spec(
    folder: Path, url: str, bodies: list[dict[str, Any]], *, offsets_s: list[float] | None = None, asked: dict[str, Any] | None = None, **changes: Any
) -> TrialSpec:
    """A short closed trial; with `offsets_s`, an open one. `asked` is added to every `Body`: turns, think time, adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [msgspec.json.encode({"prompt_id": f"p{number}", "body": body, **(asked or {})}) for number, body in enumerate(bodies)]
    (folder / "bodies.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    schedule_path = None
    if offsets_s is not None:
        schedule_path = folder / "schedule.parquet"
        pq.write_table(pa.table({"offset_ns": pa.array([round(offset * 1e9) for offset in offsets_s], pa.int64())}), schedule_path)
    values: dict[str, Any] = {
        "trial": "adapter.closed.r0", "variant": "adapter", "url": url, "path": "/v1/chat/completions", "api_key_env": None,
        "bodies_path": str(folder / "bodies.jsonl"), "arrival": "closed" if offsets_s is None else "poisson",
        "concurrency": 1 if offsets_s is None else None, "schedule_path": None if schedule_path is None else str(schedule_path),
        "warmup_s": 0.0, "duration_s": 0.5, "drain_s": 5.0, "max_in_flight": 4096, "request_timeout_s": 10.0, "keep_text": True,
        "records_path": str(folder / "records.parquet"), "spool_path": str(folder / "records.spool"),
    }
    return TrialSpec(**(values | changes))


@dataclass
class Driven:
    """A trial that has been driven: what we recorded, and what the server logged."""

    spec: TrialSpec
    outcome: TrialOutcome
    records: list[Record]
    answers: dict[str, Answer]


Drive = Callable[..., Driven]


@pytest.fixture
def drive(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> Drive:
    """Drive one trial with these bodies against a fresh truth server."""

    def run(bodies: list[dict[str, Any]], **changes: Any) -> Driven:
        spec = make_spec(tmp_path / "trial", truth_server.url, bodies, **changes)
        outcome = load_process.run(spec)
        records = read_records(Path(spec.records_path))
        assert not Path(spec.spool_path).exists()
        time.sleep(0.05)
        return Driven(spec, outcome, records, truth_server.answers())

    return run


def when_spooled(spec: TrialSpec, size: int, action: Callable[[], object]) -> None:
    """Do something in the middle of a trial: as soon as it has spooled so many bytes. A pause would be too short on a busy machine."""

    def wait() -> None:
        spool, deadline = Path(spec.spool_path), time.monotonic() + 30
        while time.monotonic() < deadline and not (spool.exists() and spool.stat().st_size >= size):
            time.sleep(0.01)
        action()

    threading.Thread(target=wait, daemon=True).start()


def read_records(path: Path) -> list[Record]:
    return [msgspec.convert(row, Record) for row in pl.read_parquet(path).to_dicts()]


def text_of(tokens: int, first: int = 0) -> str:
    """What the server answers: see token_text in truth_answer.h."""
    return "".join(f" é{k}🙂" if k % 4 == 3 else f" w{k}" for k in range(first, tokens))
