"""One trial as analysed: metrics over requests scheduled in its window, rates over requests that ended in it, SLO and audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfbench.analyse.metrics import BY_NAME, NS_PER_S, PER_REQUEST
from perfbench.analyse.slo import good, judgeable
from perfbench.analyse.stats import NO_INTERVAL, Floats, Interval, mean_interval, percentile
from perfbench.analyse.window import ended_in_window, scheduled_in_window, window_s
from perfbench.records import AdapterSummary, MetricSummary, Rates, RequestCounts, TrialOutcome, TrialPlan, TrialSummary
from perfbench.results import RunFolder
from perfbench.scenario.model import SloLimit

PERCENTS = (50, 90, 95, 99)


@dataclass(frozen=True)
class AnalysedTrial:
    """A finished trial: its plan, what the load process said, all its requests, and its summary."""

    plan: TrialPlan
    outcome: TrialOutcome
    requests: pl.DataFrame
    summary: TrialSummary

    @property
    def usable(self) -> bool:
        """A void trial enters no verdict, comparison or price."""
        return self.summary.audit.verdict != "void"

    @property
    def measured(self) -> pl.DataFrame:
        """Requests scheduled in the window."""
        return self.requests.filter(scheduled_in_window(self.outcome))


def metric_summaries(folder: RunFolder, trial: str, requests: pl.DataFrame, outcome: TrialOutcome) -> dict[str, MetricSummary]:
    """METRIC -> summary over the trial's requests scheduled in the window, in the order of the table; `icl_s` over all their gaps."""
    found = _of_requests(requests.filter(scheduled_in_window(outcome)))
    found["icl_s"] = _inter_chunk_latency(folder, trial, outcome)
    return {name: found[name] for name in BY_NAME if name in found}


def adapter_summaries(requests: pl.DataFrame, outcome: TrialOutcome) -> dict[str, AdapterSummary]:
    """Adapter -> its part of the trial, the most asked first; empty where no request names one."""
    measured = requests.filter(scheduled_in_window(outcome) & pl.col("adapter").is_not_null())
    asked = measured.group_by("adapter").len().sort("len", "adapter", descending=[True, False])["adapter"].to_list()
    parts = {name: measured.filter(pl.col("adapter") == name) for name in asked}
    return {name: AdapterSummary(requests=request_counts(part, outcome), metrics=_of_requests(part)) for name, part in parts.items()}


def _of_requests(measured: pl.DataFrame) -> dict[str, MetricSummary]:
    return {name: _summary(name, measured[name].drop_nulls().to_numpy()) for name in PER_REQUEST}


def _summary(name: str, values: Floats, interval: Interval | None = None) -> MetricSummary:
    low, high = interval or mean_interval(values)
    percentiles = {f"p{percent}": percentile(values, percent) for percent in PERCENTS}
    mean = float(values.mean()) if len(values) else None
    return MetricSummary(unit=BY_NAME[name].unit, mean=mean, ci95_low=low, ci95_high=high, n=len(values), **percentiles)


def _inter_chunk_latency(folder: RunFolder, trial: str, outcome: TrialOutcome) -> MetricSummary:
    """Pooled gaps. One trial at a time: chunk times are the bulk of a run, and one trial of them fits in memory."""
    chosen = folder.records().filter((pl.col("trial") == trial) & (pl.col("status") == "ok") & scheduled_in_window(outcome))
    rows = chosen.select("scheduled_ns", "chunk_ns").filter(pl.col("chunk_ns").list.len() > 1).sort("scheduled_ns").select("chunk_ns").collect()
    if rows.is_empty():
        return _summary("icl_s", np.empty(0), NO_INTERVAL)
    chunks = rows["chunk_ns"]
    lengths = chunks.list.len().to_numpy().astype(np.int64)
    gaps = np.delete(np.diff(chunks.explode().to_numpy()), np.cumsum(lengths)[:-1] - 1) / NS_PER_S
    starts = np.concatenate([[0], np.cumsum(lengths - 1)[:-1]])
    interval = mean_interval(np.add.reduceat(gaps, starts), (lengths - 1).astype(np.float64))
    return _summary("icl_s", gaps, interval)


def request_counts(requests: pl.DataFrame, outcome: TrialOutcome) -> RequestCounts:
    """Answered and failed requests among those scheduled in the window."""
    measured = requests.filter(scheduled_in_window(outcome))
    answered = int((measured["status"] == "ok").sum())
    return RequestCounts(ok=answered, failed=len(measured) - answered)


def rates(requests: pl.DataFrame, outcome: TrialOutcome, slo: Mapping[str, SloLimit]) -> Rates:
    """Requests, output tokens and good requests a second of the window. Tokens are None where an answer came without usage."""
    seconds = window_s(outcome)
    if seconds <= 0:
        return Rates(requests_per_s=None, output_tokens_per_s=None, goodput_per_s=None)
    ended = requests.filter(ended_in_window(outcome))
    tokens = None if ended["output_tokens"].null_count() else float(ended["output_tokens"].sum()) / seconds
    goodput = ended.select(good(slo).sum()).item() / seconds if slo and judgeable(ended, slo) else None
    return Rates(requests_per_s=len(ended) / seconds, output_tokens_per_s=tokens, goodput_per_s=goodput)


def energy_summary(joules: float | None, requests: pl.DataFrame, outcome: TrialOutcome) -> MetricSummary | None:
    """GPU energy of the window over the requests that ended in it: a mean without percentiles. None without a counter or a request."""
    ended = len(requests.filter(ended_in_window(outcome)))
    if joules is None or not ended:
        return None
    empty = dict.fromkeys(("p50", "p90", "p95", "p99", "ci95_low", "ci95_high"))
    return MetricSummary(unit=BY_NAME["energy_j_per_request"].unit, mean=joules / ended, n=ended, **empty)
