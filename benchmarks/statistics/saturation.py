"""How often a stage is stopped early that its server could have carried, and how soon one that it cannot: perfbench/saturation.py as real runs use it.

    python -m benchmarks.statistics.saturation [--windows 400] > /tmp/saturation.md               (2 minutes)

Poisson arrivals at a share of what the server carries, from an empty server, 5 s of warm-up; slots are served in order of arrival, and the first token comes a
tenth of a service after a slot is free. The watch gets a report a second, as in a run. Below 100% the queue is stable, and every stop is false.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from perfbench.load.messages import Progress
from perfbench.saturation import SaturationWatch
from perfbench.scenario.model import Output, Stage

WARMUP_S = 5.0


class Server(NamedTuple):
    """`slots` at once, each request for `service_s` on average: gamma with a squared coefficient of variation of `cv2`."""

    name: str
    slots: int
    service_s: float
    cv2: float


SERVERS = (
    Server("one slot, 10/s, exponential", 1, 0.1, 1.0), Server("8 slots, 4/s", 8, 2.0, 0.25), Server("32 slots, 8/s", 32, 4.0, 0.25),
    Server("32 slots, 80/s", 32, 0.4, 0.25), Server("8 slots, 4/s, long tail", 8, 2.0, 4.0),
)  # fmt: skip
LOADS = (0.8, 0.9, 0.95, 0.99, 1.1, 1.2, 1.5, 2.0)
WINDOWS_S = {True: (60.0, 300.0), False: (60.0,)}
"""A stable queue is also watched for long: the watch looks once a second, and each look may err."""


def trial(server: Server, load: float, length_s: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sent, first token, end of each request."""
    rate = load * server.slots / server.service_s
    sent = np.cumsum(rng.exponential(1 / rate, round(rate * (length_s + WARMUP_S) * 1.2) + 50))
    service = rng.gamma(1 / server.cv2, server.cv2 * server.service_s, len(sent))
    free, begins = np.zeros(server.slots), np.empty(len(sent))
    for number, (at, takes) in enumerate(zip(sent.tolist(), service.tolist(), strict=True)):
        slot = int(free.argmin())
        begins[number] = max(at, free[slot])
        free[slot] = begins[number] + takes
    return sent, begins + 0.1 * service, begins + service


def stopped_after(server: Server, load: float, length_s: float, rng: np.random.Generator) -> float | None:
    """Seconds of the window after which the watch ends it; None where it does not."""
    sent, first, end = trial(server, load, length_s, rng)
    rate = load * server.slots / server.service_s
    watch = SaturationWatch(Stage(name="one", arrival="poisson", rate_per_s=rate, warmup_s=WARMUP_S, duration_s=length_s, output=Output(fixed=8)))
    in_order = np.sort(end)
    for second in range(1, round(WARMUP_S + length_s) + 1):
        ended = (end > second - 1) & (end <= second)
        number = int(np.searchsorted(sent, second))
        report = Progress(
            trial="t", elapsed_s=float(second), length_s=WARMUP_S + length_s, sent=number, in_flight=number - int(np.searchsorted(in_order, second)),
            ok=0, failed=0, held_back=0, ttft_p50_s=float(np.median((first - sent)[ended])) if ended.any() else None, ttft_p95_s=None, chunks_per_s=0.0,
        )  # fmt: skip
        if watch.ends(report):
            return second - WARMUP_S
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=400)
    windows = parser.parse_args().windows
    print("| server | load | window | stopped | after, median | after, 90% |\n|---|---|---|---|---|---|")
    for server in SERVERS:
        for load in LOADS:
            for length_s in WINDOWS_S[load < 1]:
                rng = np.random.default_rng(20261125)
                found = [stopped_after(server, load, length_s, rng) for _ in range(windows)]
                ends = sorted(one for one in found if one is not None)
                when = [f"{np.quantile(ends, share):.0f} s" if ends else "-" for share in (0.5, 0.9)]
                print(f"| {server.name} | {load:.0%} | {length_s:.0f} s | {len(ends) / windows:.1%} | {when[0]} | {when[1]} |", flush=True)


if __name__ == "__main__":
    main()
