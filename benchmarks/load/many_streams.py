"""How many streams one load process keeps open at once, without error, and what that takes.

    python -m benchmarks.load.many_streams [--streams 10000] [--seconds 20]

The ground-truth server (tests/truth/truth_server.c) answers each stream with a token after 2 s and one every 0.5 s, 16 in all. All streams send at the
first moment: their send lag is how long it takes to send so many. One line comes out; any failed request, or fewer streams in flight than asked
for, ends it with code 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from perfbench.load.engine import LoadProcess
from perfbench.load.trial import TrialSpec

SOURCE = Path(__file__).parents[2] / "tests" / "truth" / "truth_server.c"
TTFT_MS, GAP_MS, TOKENS = 2_000, 500, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(measure(Path(name), options.streams, options.seconds))


def measure(folder: Path, streams: int, seconds: float) -> int:
    subprocess.run(["cc", "-O2", "-o", str(folder / "server"), str(SOURCE)], check=True)
    server = subprocess.Popen([str(folder / "server"), "0", str(folder / "truth.jsonl")], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        spec = order(folder, f"http://127.0.0.1:{int(server.stdout.readline().split()[1])}", streams, seconds)
        with LoadProcess(folder / "load.log") as load:
            outcome = load.run(spec)
            peak_mib = peak_of(load.pid)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    records = pl.read_parquet(spec.records_path)
    most = most_at_once(records["sent_ns"].drop_nulls().to_numpy(), records["end_ns"].to_numpy())
    lag_ms = (records["sent_ns"] - records["scheduled_ns"]).drop_nulls().to_numpy() / 1e6
    tokens = records["chunk_ns"].explode().drop_nulls()
    inside = int(tokens.is_between(outcome.measure_from_ns, outcome.measure_until_ns).sum())
    assert outcome.client_cpu_s is not None
    assert outcome.loop_lag_max_s is not None
    print(
        f"{most:,} of {streams:,} streams open at once, {outcome.requests_ok:,} answers, {outcome.requests_failed} failed, {inside / seconds:,.0f} tokens/s, "
        f"client {outcome.client_cpu_s / seconds:.0%} of a core, peak {peak_mib:.0f} MiB, send lag p50/p99 {np.percentile(lag_ms, 50):.0f}/"
        f"{np.percentile(lag_ms, 99):.0f} ms (all at once at the start), reader late by at most {outcome.loop_lag_max_s * 1e3:.0f} ms, "
        f"stamps by {outcome.stamp}"
    )
    return int(outcome.requests_failed > 0 or most < streams)


def order(folder: Path, url: str, streams: int, seconds: float) -> TrialSpec:
    truth = {"ttft_ms": TTFT_MS, "gap_ms": GAP_MS, "tokens": TOKENS}
    body = {"model": "truth", "messages": [{"role": "user", "content": "Hello"}], "stream": True, "stream_options": {"include_usage": True}, "truth": truth}
    (folder / "bodies.jsonl").write_bytes(msgspec.json.encode({"prompt_id": "p", "body": body}) + b"\n")
    return TrialSpec(
        trial="streams", variant="truth", url=url, path="/v1/chat/completions", api_key_env=None, bodies_path=str(folder / "bodies.jsonl"), arrival="closed",
        concurrency=streams, schedule_path=None, warmup_s=0.0, duration_s=seconds, drain_s=30.0, max_in_flight=streams, request_timeout_s=60.0,
        keep_text=False, records_path=str(folder / "records.parquet"), spool_path=str(folder / "records.spool"),
    )


def most_at_once(sent_ns: np.ndarray, end_ns: np.ndarray) -> int:
    """The most requests in flight at any moment."""
    moments = np.concatenate([sent_ns, end_ns])
    steps = np.concatenate([np.ones(len(sent_ns), int), -np.ones(len(end_ns), int)])
    return int(np.cumsum(steps[np.lexsort((steps, moments))]).max())


def peak_of(pid: int) -> float:
    """Peak resident memory of the load process in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
