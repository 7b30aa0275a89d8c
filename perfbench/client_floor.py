"""What the client itself takes on this machine at the run's rate: the run's own load process against a server that answers at once, for about a second.

No latency that is measured later can be smaller, and none is known better than this. The audit holds every trial's TTFT against it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from perfbench.load.engine import LoadProcess
from perfbench.load.trial import Body, TrialSpec, WorkerFiles
from perfbench.records import ClientFloor
from perfbench.scenario import Scenario

WARMUP_S, DURATION_S = 0.3, 1.0
LEAST_RATE, MOST_RATE = 50.0, 1000.0
"""Requests/s: enough for a p99 of sorts, and not more than a second of warm machine can show."""
_BODY = b'{"model":"null","messages":[{"role":"user","content":"hello"}],"stream":true,"stream_options":{"include_usage":true}}'


def rate_to_measure(scenario: Scenario) -> float:
    """The highest rate that the run asks for, by its open stages; a closed one asks for as many a second as it has streams, until it is known better."""
    rates = [rate for stage in scenario.load.stages for rate in (stage.rate_per_s, stage.to_rate_per_s, stage.concurrency) if rate is not None]
    return min(MOST_RATE, max(LEAST_RATE, *rates)) if rates else LEAST_RATE


def measure_client_floor(load: LoadProcess, rate_per_s: float, *, processes: int = 1) -> ClientFloor | None:
    """Drive the null server at a constant rate, with as many load processes as the run has; None where it answered nothing."""
    with tempfile.TemporaryDirectory() as name, _null_server() as port:
        folder = Path(name)
        (folder / "bodies.jsonl").write_bytes(msgspec.json.encode(Body(prompt_id="null", body=msgspec.Raw(_BODY))) + b"\n")
        _write_schedule(folder / "schedule.parquet", rate_per_s)
        spec = TrialSpec(
            trial="client-floor", variant="null", url=f"http://127.0.0.1:{port}", path="/v1/chat/completions", api_key_env=None,
            bodies_path=str(folder / "bodies.jsonl"), arrival="constant", concurrency=None, schedule_path=str(folder / "schedule.parquet"),
            warmup_s=WARMUP_S, duration_s=DURATION_S, drain_s=1.0, max_in_flight=4096, request_timeout_s=5.0, keep_text=False,
            records_path=str(folder / "records-0.parquet"), spool_path=str(folder / "records-0.spool"), workers=processes,
            further=[
                WorkerFiles(spool_path=str(folder / f"records-{worker}.spool"), records_path=str(folder / f"records-{worker}.parquet"))
                for worker in range(1, processes)
            ],
        )  # fmt: skip
        outcome = load.run(spec)
        return _floor(folder / "records-*.parquet", outcome.measure_from_ns, rate_per_s)


def _write_schedule(path: Path, rate_per_s: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets_ns = [round(number / rate_per_s * 1e9) for number in range(round((WARMUP_S + DURATION_S) * rate_per_s))]
    pq.write_table(pa.table({"offset_ns": pa.array(offsets_ns, pa.int64())}), path)


def _floor(records: Path, measure_from_ns: int, rate_per_s: float) -> ClientFloor | None:
    import polars as pl

    answered = pl.read_parquet(records).filter((pl.col("status") == "ok") & (pl.col("scheduled_ns") >= measure_from_ns))
    ttft = (answered["first_token_ns"] - answered["sent_ns"]) / 1e9
    lag = (answered["sent_ns"] - answered["scheduled_ns"]) / 1e9
    figures = ttft.quantile(0.5, "higher"), ttft.quantile(0.99, "higher"), lag.quantile(0.99, "higher")
    if figures[0] is None or figures[1] is None or figures[2] is None:
        return None
    return ClientFloor(rate_per_s=rate_per_s, requests=len(answered), ttft_p50_s=figures[0], ttft_p99_s=figures[1], send_lag_p99_s=figures[2])


@contextmanager
def _null_server() -> Iterator[int]:
    """Its port, while it runs."""
    process = subprocess.Popen([sys.executable, "-m", "perfbench.load.null_server"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
