"""What it takes to bring an adapter to the GPU in the place of another, measured: a run whose load asks for more adapters than the server holds at once.

vLLM keeps the `max_loras` adapters that were used last (LRU; vllm/lora/worker_manager.py). So the order in which requests were sent says which of them
found their adapter and which had to wait for it:

    swap = mean TTFT of requests whose adapter was not among the max_loras last used ones - mean TTFT of those whose adapter was

over the closed-loop stage with the fewest streams that has enough of both: with many streams requests also wait for each other. The interval is Welch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from perfbench.analyse.stats import student_t975
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import scheduled_in_window
from perfbench.records import Estimate

MIN_EACH = 20
"""Requests of either kind; fewer say nothing of a difference of milliseconds."""


class Swap(NamedTuple):
    """Seconds for a swap, the stage that it was seen in, and how many swaps that were."""

    seconds: Estimate
    stage: str
    swaps: int


def measured_swap(trials: Sequence[AnalysedTrial], streams: dict[str, int], max_loras: int) -> Swap | None:
    """`streams` are the closed-loop stages with their concurrency. None where no stage swaps often enough."""
    for stage in sorted(streams, key=lambda name: streams[name]):
        waits: list[float] = []
        others: list[float] = []
        for trial in trials:
            if trial.usable and trial.plan.stage == stage:
                missed, hit = _split(trial, max_loras)
                waits += missed
                others += hit
        if len(waits) >= MIN_EACH and len(others) >= MIN_EACH:
            return Swap(_difference(waits, others), stage, len(waits))
    return None


def _split(trial: AnalysedTrial, max_loras: int) -> tuple[list[float], list[float]]:
    """TTFT of measured requests whose adapter had to be brought, and of those whose adapter was there."""
    rows = trial.requests.with_columns(measured=scheduled_in_window(trial.outcome)).drop_nulls(["adapter", "sent_ns"]).sort("sent_ns")
    held: dict[str, None] = {}
    missed: list[float] = []
    hit: list[float] = []
    for adapter, ttft_s, measured in rows.select("adapter", "ttft_s", "measured").iter_rows():
        there = adapter in held
        held.pop(adapter, None)
        held[adapter] = None
        if len(held) > max_loras:
            del held[next(iter(held))]
        if measured and ttft_s is not None:
            (hit if there else missed).append(ttft_s)
    return missed, hit


def _difference(waits: Sequence[float], others: Sequence[float]) -> Estimate:
    """Welch (1947): the degrees of freedom follow from both variances. A swap takes no negative time."""
    first, second = np.array(waits), np.array(others)
    parts = float(first.var(ddof=1)) / len(first), float(second.var(ddof=1)) / len(second)
    value = float(first.mean() - second.mean())
    error = math.sqrt(sum(parts))
    if error == 0.0:
        return Estimate(value=max(0.0, value), ci95_low=max(0.0, value), ci95_high=max(0.0, value))
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = student_t975(max(1, math.floor(degrees))) * error
    return Estimate(value=max(0.0, value), ci95_low=max(0.0, value - half), ci95_high=max(0.0, value + half))
