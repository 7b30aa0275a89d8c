"""Do 95% intervals hold the truth 95 times in 100? The code of real runs (analyse/intervals.py) on synthetic queues whose truth is known.

    python -m benchmarks.statistics.coverage [--quick] [--seed N] > /tmp/coverage.md          (2 minutes on one core; --quick: 20 s)

A cell is a queue, its load, and the number of requests in the measured window. `given` is the share of windows that get an interval at all; `covers`, of those
given, the share that hold the truth; `false`, of all windows, those that show a false interval. A cell fails when at least 90% of windows get an interval and
those cover less than 93% or more than 97%, by more than three standard errors of the simulation.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.statistics import queues
from perfbench.analyse.intervals import Dependence, dependence, mean_interval, percentile_interval, rate_interval
from perfbench.analyse.stats import Interval

FROM, TO = 0.93, 0.97
SIZES = (30, 100, 300, 1000, 3000, 10000, 30000)
MODELS = {
    "single server, 30%": (partial(queues.single, rho=0.3), False, 3000),
    "single server, 50%": (partial(queues.single, rho=0.5), False, 10000),
    "single server, 80%": (partial(queues.single, rho=0.8), False, 30000),
    "eight slots, 50%": (partial(queues.slots, rho=0.5), False, 3000),
    "eight slots, 80%": (partial(queues.slots, rho=0.8), False, 10000),
    "batch, 30%": (partial(queues.batch, rho=0.3), False, 3000),
    "batch, 50%": (partial(queues.batch, rho=0.5), False, 3000),
    "batch, 80%": (partial(queues.batch, rho=0.8), False, 10000),
    "closed, 4 streams": (partial(queues.closed, streams=4), True, 3000),
    "closed, 16 streams": (partial(queues.closed, streams=16), True, 3000),
    "closed, 64 streams": (partial(queues.closed, streams=64), True, 3000),
}
BEFORE = 300
FIGURES = ("mean", "p50", "p95", "p99", "requests/s", "goodput/s")


class Truth(NamedTuple):
    """Long-run values; `limit` is the latency that 90% of requests keep, the SLO of goodput."""

    mean: float
    percentiles: dict[int, float]
    rate: float
    limit: float


class Cell(NamedTuple):
    """One figure of one queue at one size."""

    windows: int
    given: int
    held: int

    @property
    def covers(self) -> float:
        return self.held / self.given if self.given else math.nan

    @property
    def verdict(self) -> str:
        if self.given < 0.9 * self.windows:
            return "none" if self.given == 0 else "rarely"
        error = 3 * math.sqrt(0.95 * 0.05 / self.given)
        return "ok" if FROM - error <= self.covers <= TO + error else "FAILS"

    def __str__(self) -> str:
        if not self.given:
            return "none"
        return f"{self.covers:.3f} ({self.given / self.windows:.0%}; {(self.given - self.held) / self.windows:.1%})"


def truth_of(model: partial[queues.Window], rng: np.random.Generator) -> Truth:
    long = model(rng, 300, 6000)
    limit = float(np.quantile(long.spent, 0.90))
    rho = model.keywords.get("rho")
    if model.func is queues.single:  # exact: Exponential(1 - rho)
        return Truth(1 / (1 - rho), {p: -math.log(1 - p / 100) / (1 - rho) for p in (50, 95, 99)}, rho, -math.log(0.1) / (1 - rho))
    if rho is None:  # exact: eight services at a time, or as many as there are streams
        streams = model.keywords["streams"]
        rate = float(min(streams, queues.SLOTS))
        mean = streams / rate
    else:
        rate, mean = rho * queues.SLOTS, float(long.spent.mean())
    return Truth(mean, {p: float(np.quantile(long.spent, p / 100)) for p in (50, 95, 99)}, rate, limit)


def intervals(window: queues.Window, k: int, n: int, closed: bool, truth: Truth) -> Iterator[tuple[str, Interval, float]]:
    """(figure, interval, truth) of the first n requests of replication k."""
    spent = window.spent[k, :n]
    given: Dependence = dependence(closed=closed, in_flight=window.in_flight[k, :n])
    yield "mean", mean_interval(spent, given), truth.mean
    for percent, value in truth.percentiles.items():
        yield f"p{percent}", percentile_interval(spent, percent, given), value
    # What ends in the window of a rate may have begun before it, so that window lies inside the simulated time.
    opens, closes = window.sent[k, BEFORE], window.sent[k, BEFORE + n - 1]
    seconds = closes - opens
    inside = (window.ended[k] >= opens) & (window.ended[k] < closes)
    order = np.argsort(window.ended[k][inside], kind="stable")
    at, good = window.ended[k][inside][order] - opens, (window.spent[k][inside][order] <= truth.limit).astype(np.float64)
    yield "requests/s", rate_interval(at, np.ones(len(at)), seconds, given), truth.rate
    yield "goodput/s", rate_interval(at, good, seconds, given, queues=good), truth.rate * 0.9


def simulate(name: str, windows: int, rng: np.random.Generator, sizes: tuple[int, ...]) -> dict[tuple[int, str], Cell]:
    model, closed, largest = MODELS[name]
    truth = truth_of(model, rng)
    sizes = tuple(size for size in sizes if size <= largest)
    counts: dict[tuple[int, str], list[int]] = {(size, figure): [0, 0] for size in sizes for figure in FIGURES}
    for _ in range(math.ceil(windows / 200)):
        window = model(rng, 200, max(sizes) + BEFORE)
        for size in sizes:
            for k in range(200):
                for figure, (low, high), value in intervals(window, k, size, closed, truth):
                    if low is not None and high is not None:
                        counts[size, figure][0] += 1
                        counts[size, figure][1] += low <= value <= high
    return {key: Cell(math.ceil(windows / 200) * 200, *pair) for key, pair in counts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 windows a cell, up to 1000 requests")
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--only", default="", help="queues whose name begins so")
    parser.add_argument("--seed", type=int, default=20261125)
    given = parser.parse_args()
    sizes = tuple(size for size in SIZES if size <= (1000 if given.quick else SIZES[-1]))
    print(f"| queue | requests | {' | '.join(FIGURES)} |\n|---|---|{'---|' * len(FIGURES)}")
    failed = 0
    for name in (name for name in MODELS if name.startswith(given.only)):
        began = time.monotonic()
        cells = simulate(name, 200 if given.quick else given.windows, np.random.default_rng(given.seed), sizes)
        for size in dict.fromkeys(size for size, _ in cells):
            row = [cells[size, figure] for figure in FIGURES]
            failed += sum(cell.verdict == "FAILS" for cell in row)
            print(f"| {name} | {size:,} | {' | '.join(str(cell) + (' **fails**' if cell.verdict == 'FAILS' else '') for cell in row)} |", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(f"\n{failed} cells fail.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
