"""How far perfbench's stamps are from the truth, and what they cost.

    python benchmarks/load/accuracy.py [--streams 64 256] [--seconds 10] [--rate 200]

The ground-truth server (tests/truth/truth_server.c) answers with 64 tokens, the first after 50 ms, one each 10 ms (94 tokens/s a stream), and
logs when it really sent them; client and server have a core each. One row a load level:

    TTFT error = (first token - sent, by the client) - (first write - request read, by the server)
    gap error  = |gap between two chunks by the client - by the server|
    CPU        = CPU time of the load process in the window, per 1,000 tokens that arrived in it
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from perfbench.load.arrivals import schedule
from perfbench.load.engine import LoadProcess
from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome
from perfbench.scenario.model import Output, Stage

SOURCE = Path(__file__).parents[2] / "tests" / "truth" / "truth_server.c"
TOKENS, TTFT_MS, GAP_MS = 64, 50, 10
SERVER_CORE, CLIENT_CORE = 0, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--rate", type=float, default=200.0, help="Poisson arrivals per second of short answers; 0: leave out")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["cc", "-O2", "-o", str(folder / "server"), str(SOURCE)], check=True)
        for streams in options.streams:
            print(measure(folder, options.seconds, streams=streams))
        if options.rate:
            print(measure(folder, options.seconds, rate=options.rate))


def measure(folder: Path, seconds: float, *, streams: int | None = None, rate: float | None = None) -> str:
    """One load level with a server and a load process of its own."""
    log = folder / "truth.jsonl"
    server = subprocess.Popen([str(folder / "server"), "0", str(log)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline().split()[1])}"
    os.sched_setaffinity(server.pid, {SERVER_CORE})
    try:
        with LoadProcess(folder / "load.log") as load:
            os.sched_setaffinity(load.pid, {CLIENT_CORE})
            spec = order(folder, url, seconds, streams, rate)
            outcome = load.run(spec)
            peak_mib = _peak_mib(load.pid)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    level = f"{streams} streams" if streams else f"Poisson {rate:g}/s"
    return f"{level}: {report(Path(spec.records_path), log, outcome)}, peak {peak_mib:.0f} MiB with decoding"


def order(folder: Path, url: str, seconds: float, streams: int | None, rate: float | None) -> TrialSpec:
    truth = {"ttft_ms": TTFT_MS, "gap_ms": GAP_MS, "tokens": TOKENS if streams else 1}
    body = {"model": "truth", "messages": [{"role": "user", "content": "Hello"}], "stream": True, "stream_options": {"include_usage": True}, "truth": truth}
    bodies, arrivals = folder / "bodies.jsonl", folder / "schedule.parquet"
    bodies.write_bytes(msgspec.json.encode({"prompt_id": "p", "body": body}) + b"\n")
    if rate is not None:
        stage = Stage(name="s", arrival="poisson", rate_per_s=rate, warmup_s=2.0, duration_s=seconds, output=Output(fixed=1))
        pq.write_table(pa.table({"offset_ns": schedule(stage, 0)}), arrivals)
    return TrialSpec(
        trial="accuracy", variant="truth", url=url, path="/v1/chat/completions", api_key_env=None, bodies_path=str(bodies),
        arrival="poisson" if rate else "closed", concurrency=streams, schedule_path=str(arrivals) if rate else None, warmup_s=2.0, duration_s=seconds,
        drain_s=10.0, max_in_flight=4096, request_timeout_s=60.0, keep_text=False, records_path=str(folder / "records.parquet"),
        spool_path=str(folder / "records.spool"),
    )


def report(records_path: Path, log: Path, outcome: TrialOutcome) -> str:
    answers = {answer["id"]: answer for answer in map(json.loads, log.read_text().splitlines())}
    ttft_us, gap_us, lag_us, tokens = [], [], [], 0
    for row in pl.read_parquet(records_path).iter_rows(named=True):
        assert row["status"] == "ok", row["error_message"]
        answer = answers[row["request_id"]]
        chunks = np.array(row["chunk_ns"])
        tokens += int(((chunks >= outcome.measure_from_ns) & (chunks < outcome.measure_until_ns)).sum())
        if not outcome.measure_from_ns <= row["sent_ns"] < outcome.measure_until_ns:
            continue
        ttft_us.append(((row["first_token_ns"] - row["sent_ns"]) - (answer["chunks"][0] - answer["received_ns"])) / 1e3)
        gap_us.extend(np.abs(np.diff(chunks) - np.diff(answer["chunks"])) / 1e3)
        lag_us.append((row["sent_ns"] - row["scheduled_ns"]) / 1e3)
    window_s = (outcome.measure_until_ns - outcome.measure_from_ns) / 1e9
    assert outcome.client_cpu_s is not None
    assert outcome.loop_lag_max_s is not None
    gap = f"gap error {_p50_p99(gap_us)}, " if gap_us else ""
    return (
        f"TTFT error {_p50_p99(ttft_us)}, {gap}send lag {_p50_p99(lag_us)}, CPU {outcome.client_cpu_s * 1e6 / tokens:.1f} ms per 1,000 tokens, "
        f"{tokens / window_s:,.0f} tokens/s, {len(ttft_us)} requests, stamps by {outcome.stamp}, reader late by at most {outcome.loop_lag_max_s * 1e3:.1f} ms"
    )


def _p50_p99(values_us: list[float]) -> str:
    p50, p99 = np.percentile(values_us, [50, 99])
    return f"{p50:.1f} / {p99:.1f} us"


def _peak_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
