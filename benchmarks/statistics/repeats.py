"""Does the 95% interval of a mean over repeats hold the truth 95 times in 100? analyse/repeats.py over analyse/intervals.py, as real runs use them.

    python -m benchmarks.statistics.repeats [--runs 1000] > /tmp/repeats.md               (2 minutes)

A run is R windows of a queue whose truth is known; the server of each takes exp(normal) times as long for everything. `one start`: all windows of one
server, whose repeats differ by their requests alone. Else every repeat has a start of its own, and starts differ by nothing, by what analyse/starts.py calls
usual, or by twice that. The truth is that of the middle server. `wide`: half of the interval of the mean as a share of it, median; in brackets that of
Student's t of the repeats alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.statistics import queues
from benchmarks.statistics.coverage import BEFORE, Truth, truth_of
from perfbench.analyse.intervals import CLOSED_BATCHES, OPEN_BATCHES, dependence, mean_interval, percentile_interval, rate_interval
from perfbench.analyse.repeats import over_repeats
from perfbench.analyse.starts import repeat_sd
from perfbench.analyse.stats import Interval, percentile, student_t975

REPEATS = (2, 3, 5)
FIGURES = {"mean": "e2e_s", "p95": "e2e_s", "requests/s": "requests_per_s"}
CLOSED, OPEN = partial(queues.closed, streams=4), partial(queues.slots, rho=0.5)
QUEUES = (("closed, 4 streams", CLOSED, 100), ("closed, 4 streams", CLOSED, 300), ("closed, 4 streams", CLOSED, 3000), ("eight slots, 50%", OPEN, 3000))
STARTS = (("one start", 0.0), ("alike", 0.0), ("as usual", 1.0), ("twice that", 2.0))


class Measured(NamedTuple):
    """One figure of one window."""

    value: float
    interval: Interval

    def slower(self, factor: float) -> Measured:
        low, high = self.interval
        return Measured(self.value * factor, Interval(None if low is None else low * factor, None if high is None else high * factor))


def measured(window: queues.Window, k: int, n: int, closed: bool) -> dict[str, Measured]:
    """Of the first n requests of replication k."""
    spent, given = window.spent[k, :n], dependence(closed=closed, in_flight=window.in_flight[k, :n])
    opens, closes = window.sent[k, BEFORE], window.sent[k, BEFORE + n - 1]
    at = np.sort(window.ended[k][(window.ended[k] >= opens) & (window.ended[k] < closes)]) - opens
    return {
        "mean": Measured(float(spent.mean()), mean_interval(spent, given)),
        "p95": Measured(percentile(spent, 95) or 0.0, percentile_interval(spent, 95, given)),
        "requests/s": Measured(len(at) / (closes - opens), rate_interval(at, np.ones(len(at)), closes - opens, given)),
    }


def windows(model: partial[queues.Window], n: int, count: int, rng: np.random.Generator) -> list[dict[str, Measured]]:
    found: list[dict[str, Measured]] = []
    while len(found) < count:
        drawn = model(rng, 200, n + BEFORE)
        found += [measured(drawn, k, n, "streams" in model.keywords) for k in range(200)]
    return found[:count]


def row(found: list[dict[str, Measured]], truth: Truth, *, closed: bool, repeats: int, starts: str, times: float, rng: np.random.Generator) -> list[str]:
    """Coverage of each figure, with the share of runs that were given an interval, and the widths of the mean's."""
    truths = {"mean": truth.mean, "p95": truth.percentiles[95], "requests/s": truth.rate}
    labels = ["one"] * repeats if starts == "one start" else [str(repeat) for repeat in range(repeats)]
    cells, wide, plain = [], [], []
    for figure, metric in FIGURES.items():
        arrival, given, held, runs = "closed" if closed else "poisson", 0, 0, len(found) // repeats
        usual = repeat_sd(metric, arrival, labels)
        # In open loop the schedule sets the rate, however fast the server is.
        factors = np.exp(rng.normal(0, times * usual, (runs, repeats))) if closed or metric != "requests_per_s" else np.ones((runs, repeats))
        for run in range(runs):
            ours = [found[run * repeats + r][figure].slower(float(factors[run, r])) for r in range(repeats)]
            values = [one.value for one in ours]
            low, high = over_repeats(values, [one.interval for one in ours], usual=usual, batches=CLOSED_BATCHES if closed else OPEN_BATCHES)
            if low is None or high is None:
                continue
            given += 1
            held += low <= truths[figure] <= high
            if figure == "mean":
                wide.append((high - low) / 2 / truth.mean)
                plain.append(student_t975(repeats - 1) * float(np.std(values, ddof=1)) / repeats**0.5 / truth.mean)
        cells.append(f"{held / given:.3f}" + (f" ({given / runs:.0%})" if given < runs else "") if given else "none")
    return [*cells, f"{np.median(wide):.1%} ({np.median(plain):.1%})" if wide else "none"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print(f"| queue | requests | repeats | starts differ | {' | '.join(FIGURES)} | wide |\n|---|---|---|---|{'---|' * (len(FIGURES) + 1)}")
    for name, model, n in QUEUES:
        began, rng, closed = time.monotonic(), np.random.default_rng(20261125), "streams" in model.keywords
        truth = truth_of(model, rng)
        for repeats in REPEATS:
            found = windows(model, n, runs * repeats, rng)
            for starts, times in STARTS:
                cells = row(found, truth, closed=closed, repeats=repeats, starts=starts, times=times, rng=rng)
                print(f"| {name} | {n:,} | {repeats} | {starts} | {' | '.join(cells)} |", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
