"""One client against the truth server at one level of load: drive, watch from outside, compare with the server's log.

Server and client have a core each. When the first answers have ended and a settling time has passed, a window begins; CPU is that of the client's whole
process tree over the window, and every number is about what happened in it. So what a client spends on starting and on its report is left out, for all.

    TTFT error     = (first token - sent, by the client) - (write of the first token - arrival of the request, by the server): signed, p50 and p99
    gap error      = |gap between two tokens by the client - by the server|
    CPU            = CPU time of the tree per 1,000 tokens that the server wrote in the window
    turnaround     = from the server's last write on a connection to the arrival of the next request on it: how long the client leaves a stream idle

The arrival of a request is the kernel's stamp at the server: when the server comes round to reading it is not the client's error. Errors against that
moment are kept beside it (`ttft_error_read_ms`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from benchmarks.load.process_tree import PeakMemory, cpu_s, machine_cpu_s, wait_until
from benchmarks.load.truth import Answer, Script, Truth, truth_server

SETTLE_S = 1.5
_START_TIMEOUT_S = 90.0


class BenchmarkError(Exception):
    """A client that did not do what was asked; the text says which and how."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is asked to do: keep `streams` requests in flight, or send `rate_per_s` by a Poisson process."""

    script: Script
    window_s: float
    streams: int | None = None
    rate_per_s: float | None = None
    tls: bool = False

    @property
    def seconds(self) -> float:
        """How long a client has to drive so that the window fits: until the first answer, settling, window, and a second of reserve."""
        return self.script.answer_s + SETTLE_S + self.window_s + 1.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of one request. `sent_ns` is on CLOCK_MONOTONIC where the client tells it."""

    id: str | None
    ttft_ns: float
    gaps_ns: list[float] | None
    """None where a client keeps no time of each token."""
    sent_ns: float | None = None
    scheduled_ns: float | None = None


class Running(Protocol):
    """A client that has been started."""

    pid: int

    def finish(self) -> list[Reading]:
        """Wait until it has ended by itself; raises BenchmarkError when it failed."""

    def stop(self) -> None:
        """End it if it still runs. May be called twice."""


class Client(Protocol):
    """A load generator."""

    name: str

    def start(self, level: Level, truth: Truth, folder: Path) -> Running:
        """Start it on the client's core; raises BenchmarkError where it cannot do this."""


class Spread(msgspec.Struct, frozen=True):
    """Of many values."""

    p50: float
    p99: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one client; times in milliseconds unless named otherwise. None: not measured, or the client does not tell."""

    client: str
    streams: int | None
    rate_per_s: float | None
    tls: bool
    requests: int
    matched: int
    ttft_error_ms: Spread | None
    ttft_error_read_ms: Spread | None
    gap_error_ms: Spread | None
    send_lag_ms: Spread | None
    turnaround_ms: Spread | None
    cpu_ms_per_1000_tokens: float
    cpu_share: float
    """Of one core."""
    server_cpu_share: float
    peak_memory_mb: float
    tokens_per_s: float
    requests_per_s: float
    open_at_once: int
    others_cpu_share: float | None = None
    """Of all that ran beside client and server in the window, in cores. The kernel counts it in ticks, so 0.15 more or less is nothing; far above that the
    numbers are not of this client alone."""


def measure(client: Client, level: Level, binaries: Path) -> Measured:
    """One run; raises BenchmarkError."""
    with tempfile.TemporaryDirectory(prefix="perfbench-load-") as name:
        folder = Path(name)
        with truth_server(binaries, folder, level.script, tls=level.tls) as truth:
            running = client.start(level, truth, folder)
            memory = PeakMemory(running.pid)
            try:
                if not wait_until(lambda: truth.log.stat().st_size > 0, timeout_s=_START_TIMEOUT_S + level.script.answer_s):
                    raise BenchmarkError(f"{client.name} got no answer in {_START_TIMEOUT_S:g} s")
                time.sleep(SETTLE_S)
                before, begin_ns = (cpu_s(running.pid), cpu_s(truth.pid), machine_cpu_s()), time.monotonic_ns()
                time.sleep(level.window_s)
                after, end_ns = (cpu_s(running.pid), cpu_s(truth.pid), machine_cpu_s()), time.monotonic_ns()
                peak_bytes = memory.stop()
                readings = running.finish()
            finally:
                running.stop()
                memory.stop()
            answers = truth.answers()
    cpu, server_cpu, machine_cpu = (later - earlier for earlier, later in zip(before, after, strict=True))
    return _judge(client.name, level, readings, answers, (begin_ns, end_ns), (cpu, server_cpu, machine_cpu), peak_bytes)


def _judge(
    name: str, level: Level, readings: Sequence[Reading], answers: dict[str, Answer], window: tuple[int, int], cpus: tuple[float, float, float],
    peak_bytes: int,
) -> Measured:  # fmt: skip
    begin_ns, end_ns = window
    cpu, server_cpu, machine_cpu = cpus
    window_s = (end_ns - begin_ns) / 1e9
    written = np.fromiter((chunk for answer in answers.values() for chunk in answer.chunks), np.int64)
    tokens = int(((written >= begin_ns) & (written < end_ns)).sum())
    ended = sum(begin_ns <= answer.end_ns < end_ns for answer in answers.values())
    last_s = int(((written >= end_ns - 500_000_000) & (written < end_ns)).sum())
    if not last_s:
        raise BenchmarkError(f"{name} had stopped sending before the window was over")
    pairs = [(reading, answer) for reading, answer in match(readings, answers) if begin_ns <= answer.arrived_ns < end_ns and answer.chunks]
    ttft = [reading.ttft_ns - (answer.chunks[0] - answer.arrived_ns) for reading, answer in pairs]
    ttft_read = [reading.ttft_ns - (answer.chunks[0] - answer.received_ns) for reading, answer in pairs]
    lag = [answer.arrived_ns - reading.scheduled_ns for reading, answer in pairs if reading.scheduled_ns is not None]
    return Measured(
        client=name, streams=level.streams, rate_per_s=level.rate_per_s, tls=level.tls,
        requests=sum(begin_ns <= answer.arrived_ns < end_ns for answer in answers.values()), matched=len(pairs),
        ttft_error_ms=_spread(ttft), ttft_error_read_ms=_spread(ttft_read), gap_error_ms=_spread(_gap_errors(pairs)), send_lag_ms=_spread(lag),
        turnaround_ms=_spread(_turnarounds(answers, window)) if level.streams else None,
        cpu_ms_per_1000_tokens=cpu * 1e6 / tokens, cpu_share=cpu / window_s, server_cpu_share=server_cpu / window_s,
        others_cpu_share=(machine_cpu - cpu - server_cpu) / window_s,
        peak_memory_mb=peak_bytes / 1e6, tokens_per_s=tokens / window_s, requests_per_s=ended / window_s, open_at_once=_most_open(answers),
    )  # fmt: skip


def match(readings: Sequence[Reading], answers: dict[str, Answer]) -> list[tuple[Reading, Answer]]:
    """Requests of the client with the server's answers: by the request's id, which the server logs. Without ids, both in the order in which
    they were sent and arrived: of requests sent within microseconds two may be swapped, which moves no error by more than these."""
    if all(reading.id is not None for reading in readings):
        return [(reading, answers[reading.id]) for reading in readings if reading.id in answers]
    if len(readings) != len(answers) or any(reading.sent_ns is None for reading in readings):
        raise BenchmarkError(f"{len(readings)} requests of the client cannot be matched with {len(answers)} of the server")
    in_order = sorted(readings, key=lambda reading: reading.sent_ns or 0)
    return list(zip(in_order, sorted(answers.values(), key=lambda answer: answer.arrived_ns), strict=True))


def _gap_errors(pairs: Sequence[tuple[Reading, Answer]]) -> list[float]:
    errors: list[float] = []
    for reading, answer in pairs:
        true_gaps = np.diff(np.array(answer.chunks, np.float64))
        if reading.gaps_ns is None or len(reading.gaps_ns) < len(true_gaps):
            continue
        errors.extend(np.abs(np.array(reading.gaps_ns[: len(true_gaps)]) - true_gaps))
    return errors


def _turnarounds(answers: dict[str, Answer], window: tuple[int, int]) -> list[float]:
    last: dict[int, int] = {}
    found = []
    for answer in sorted(answers.values(), key=lambda answer: answer.arrived_ns):
        if answer.connection in last and window[0] <= answer.arrived_ns < window[1]:
            found.append(float(answer.arrived_ns - last[answer.connection]))
        last[answer.connection] = answer.end_ns
    return found


def _most_open(answers: dict[str, Answer]) -> int:
    """The most requests that were open at the server at once."""
    moments = sorted([(answer.arrived_ns, 1) for answer in answers.values()] + [(answer.end_ns, -1) for answer in answers.values()])
    return int(np.cumsum([change for _, change in moments]).max()) if moments else 0


def _spread(values_ns: Sequence[float]) -> Spread | None:
    if not values_ns:
        return None
    p50, p99 = np.percentile(np.array(values_ns, np.float64) / 1e6, [50, 99])
    return Spread(float(p50), float(p99))
