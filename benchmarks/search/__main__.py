"""Three ways to the highest rate that meets an SLO, on truth servers whose answer is known: what each finds, and how long it keeps the server busy.

    python -m benchmarks.search [single] [batch] [slots] [--guidellm PROGRAM --tokenizer FOLDER] [--save]

search   `load: {search: max_rate}`, through the main path
grid     exhaustive: every rate from half of saturation to 5% above it, 5% apart; the answer is the middle between two of them that the fewest
         windows contradict
sweep    guidellm 0.8.1's sweep profile (benchmark/profiles/sweep.py), its rates carried out by our own client so that only the strategy differs: one
         stream, then throughput at 512 in flight, then eight more rates, equally spaced from the first to the second; the answer is read
         from the curve: the straight line between the last rate that meets the SLO and the next, split in the same way
guidellm with --guidellm: the program itself (benchmarks.search.peer), whose own results are read off in the same way

All windows are WINDOW_S, all arrivals Poisson. The search's stop earlier where they are clear. Server-seconds are warm-ups, windows and drains; of
guidellm, from the start to the end of each of its benchmarks, without the time in which it starts processes. `wall` is all of it. --save puts a measurement
into results.json and makes RESULTS.md of it (benchmarks.search.table). Truth: the server's
own rule for 200,000 Poisson arrivals: a queue with fixed service times for `single` and `slots`, for `batch` answers whose time is stretched by the number
that are served meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.load.process_tree import machine_cpu_s
from benchmarks.search.found import DRAIN_S, SWEEP_SIZE, THROUGHPUT_STREAMS, WARMUP_S, WINDOW_S, Found, read_off, split
from benchmarks.search.peer import by_guidellm
from benchmarks.search.table import save, show
from perfbench.load.engine import LoadProcess
from perfbench.load.trial import TrialSpec
from perfbench.run import run_scenario
from perfbench.scenario import Scenario

SOURCE = Path(__file__).parents[2] / "tests" / "truth" / "truth_server.c"


@dataclass(frozen=True)
class Case:
    """A server, the limit on its p95 TTFT, and how it serves: so many at once, or all, stretched beyond the knee."""

    name: str
    limit_s: float
    service_s: float
    slots: int | None = None
    knee: int | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Of the truth server."""
        bound = ("--slots", str(self.slots)) if self.slots else ("--knee", str(self.knee))
        return (*bound, "--ttft", f"{self.service_s * 1e3:g}")

    def ttft_s(self, arrival_s: np.ndarray) -> np.ndarray:
        """What each arrival gets."""
        return _stretched(arrival_s, self.service_s, self.knee) if self.knee else _queued(arrival_s, self.service_s, self.slots or 1)


def _queued(arrival_s: np.ndarray, service_s: float, slots: int) -> np.ndarray:
    """First come, first served, all for the same time: the slot that is free first is the one that was taken first."""
    free, found = [0.0] * slots, []
    for number, now_s in enumerate(arrival_s.tolist()):
        free[number % slots] = max(now_s, free[number % slots]) + service_s
        found.append(free[number % slots] - now_s)
    return np.array(found)


def _stretched(arrival_s: np.ndarray, service_s: float, knee: int) -> np.ndarray:
    """The truth server's rule for one token: the event before it is due after the time that those served at the arrival make, and the token after the time
    that those served at that event make, counted from the arrival, or at once."""
    found = np.zeros(len(arrival_s))
    events: list[tuple[float, int, bool]] = []  # when, whose, whether it is the token
    serving, due = 0, 0
    arrivals = [*arrival_s.tolist(), math.inf]
    while due < len(arrival_s) or events:
        if events and events[0][0] <= arrivals[due]:
            now_s, number, token = heapq.heappop(events)
            if token:
                serving -= 1
                found[number] = now_s - arrivals[number]
            else:
                heapq.heappush(events, (max(now_s, arrivals[number] + service_s * max(1.0, serving / knee)), number, True))
            continue
        serving += 1
        heapq.heappush(events, (arrivals[due] + service_s * max(1.0, serving / knee), due, False))
        due += 1
    return found


CASES = (Case("single", 0.020, 0.004, slots=1), Case("batch", 0.0825, 0.040, knee=8), Case("slots", 0.040, 0.020, slots=8))


def truth_rate(case: Case) -> float:
    """The highest Poisson rate at which 95% of requests are within the limit."""
    gaps = np.random.default_rng(0).exponential(1.0, 200_000)
    low, high = 10.0, 500.0
    for _ in range(14):
        rate = (low + high) / 2
        within = np.mean(case.ttft_s(np.cumsum(gaps) / rate)[20_000:] <= case.limit_s) >= 0.95
        low, high = (rate, high) if within else (low, rate)
    return low


class Client:
    """Trials against one server, and the seconds that they keep it busy."""

    def __init__(self, load: LoadProcess, url: str, folder: Path) -> None:
        self._load, self._url, self._folder = load, url, folder
        self.server_s, self.trials = 0.0, 0

    def open(self, rate_per_s: float) -> float:
        """p95 TTFT of a window at a Poisson rate, seconds; failed requests never come."""
        rng = np.random.default_rng(self.trials)
        offsets_s = np.cumsum(rng.exponential(1 / rate_per_s, int(2 * rate_per_s * (WARMUP_S + WINDOW_S)) + 16))
        records, begin = self._drive(offsets_s[offsets_s < WARMUP_S + WINDOW_S], None)
        measured = records.filter(pl.col("scheduled_ns") >= begin)
        ttft_s = ((measured["first_token_ns"] - measured["sent_ns"]) / 1e9).fill_null(float("inf")).to_numpy()
        return float(np.quantile(ttft_s, 0.95, method="inverted_cdf"))

    def closed(self, streams: int) -> float:
        """Requests a second of a closed loop."""
        records, begin = self._drive(None, streams)
        ended = records.filter((pl.col("status") == "ok") & pl.col("end_ns").is_between(begin, begin + round(WINDOW_S * 1e9)))
        return len(ended) / WINDOW_S

    def _drive(self, offsets_s: np.ndarray | None, streams: int | None) -> tuple[pl.DataFrame, int]:
        folder = self._folder / f"trial-{self.trials}"
        folder.mkdir(parents=True)
        body = {"model": "truth", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 1}
        (folder / "bodies.jsonl").write_bytes(msgspec.json.encode({"prompt_id": "p", "body": body}) + b"\n")
        if offsets_s is not None:
            pq.write_table(pa.table({"offset_ns": pa.array((offsets_s * 1e9).astype(np.int64))}), folder / "schedule.parquet")
        outcome = self._load.run(
            TrialSpec(
                trial="t.t.r0", variant="t", url=self._url, path="/v1/chat/completions", api_key_env=None, bodies_path=str(folder / "bodies.jsonl"),
                arrival="closed" if offsets_s is None else "poisson", concurrency=streams,
                schedule_path=None if offsets_s is None else str(folder / "schedule.parquet"), warmup_s=WARMUP_S, duration_s=WINDOW_S, drain_s=DRAIN_S,
                max_in_flight=4096, request_timeout_s=30.0, keep_text=False, records_path=str(folder / "records.parquet"),
                spool_path=str(folder / "records.spool"),
            )
        )  # fmt: skip
        self.trials += 1
        self.server_s += (outcome.ended_ns - outcome.started_ns) / 1e9
        return pl.read_parquet(folder / "records.parquet"), outcome.measure_from_ns


def by_search(case: Case, url: str, folder: Path) -> Found:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(50)))
    search = {"find": "max_rate", "output": {"fixed": 1}, "warmup_s": WARMUP_S, "duration_s": WINDOW_S, "drain_s": DRAIN_S}
    scenario = {
        "name": "search", "endpoints": {"truth": {"url": url, "model": "truth"}}, "load": {"data": str(folder / "rows.jsonl"), "search": search},
        "slo": {"ttft_s": {"p95": case.limit_s}},
    }  # fmt: skip
    finished = run_scenario(Scenario.model_validate_json(json.dumps(scenario)), scenario_file=None, parent=folder / "results", quiet=True)
    found = finished.summary().variants["truth"].capacity
    assert found is not None
    return Found(case.name, "search", found.value, found.server_s, found.probes)


def by_grid(case: Case, client: Client) -> Found:
    rate = 0.5 * client.closed(64)
    rates, top = [], 2.1 * rate
    while rate <= top:
        rates.append(rate)
        rate *= 1.05
    last = split([client.open(rate) <= case.limit_s for rate in rates])
    answer = float(np.sqrt(rates[last - 1] * rates[last])) if 0 < last < len(rates) else None
    return Found(case.name, "grid", answer, client.server_s, client.trials)


def by_sweep(case: Case, client: Client) -> Found:
    rates = np.linspace(client.closed(1), client.closed(THROUGHPUT_STREAMS), SWEEP_SIZE - 1)[1:].tolist()
    return Found(case.name, "sweep", read_off(rates, [client.open(rate) for rate in rates], case.limit_s), client.server_s, client.trials)


def measure(case: Case, binary: Path, folder: Path, options: argparse.Namespace) -> list[Found]:
    """Each method against a server of its own, one after another."""
    with LoadProcess(folder / "load.log") as load:
        methods: dict[str, Callable[[str, Path], Found]] = {
            "search": lambda url, here: by_search(case, url, here),
            "grid": lambda url, here: by_grid(case, Client(load, url, here)),
            "sweep": lambda url, here: by_sweep(case, Client(load, url, here)),
        }
        if options.guidellm:
            methods["guidellm"] = lambda url, here: by_guidellm(case.name, case.limit_s, url, here, options.guidellm, options.tokenizer)
        return [_against_server(name, method, case, binary, folder) for name, method in methods.items()]


def _against_server(name: str, method: Callable[[str, Path], Found], case: Case, binary: Path, folder: Path) -> Found:
    server = subprocess.Popen([str(binary), "0", str(folder / f"{name}.log"), *case.options], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline().split()[1])
        here = folder / name
        here.mkdir()
        began_s, cpu_s = time.monotonic(), machine_cpu_s()
        found = method(f"http://127.0.0.1:{port}", here)
        wall_s = time.monotonic() - began_s
        return replace(found, truth_per_s=truth_rate(case), wall_s=wall_s, machine_cores=(machine_cpu_s() - cpu_s) / wall_s)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*(case.name for case in CASES), []], default=[case.name for case in CASES])
    parser.add_argument("--guidellm", type=lambda given: Path(given).absolute(), help="started from another folder")
    parser.add_argument("--tokenizer", type=lambda given: Path(given).absolute(), help="started from another folder")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.guidellm and not options.tokenizer:
        parser.error("--guidellm needs --tokenizer: guidellm makes its prompts with it")
    with contextlib.suppress(PermissionError):  # servers and clients inherit it: a server that stands still for 50 ms has another capacity
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    with tempfile.TemporaryDirectory() as scratch:
        binary = Path(scratch) / "truth_server"
        subprocess.run(["cc", "-O2", "-o", str(binary), str(SOURCE)], check=True)
        found: list[Found] = []
        for case in (case for case in CASES if case.name in options.cases):
            folder = Path(scratch) / case.name
            folder.mkdir()
            found += measure(case, binary, folder, options)
    print(show(found))
    if options.save:
        save(found)


if __name__ == "__main__":
    main()
