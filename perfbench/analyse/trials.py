"""One trial as analysed: metrics over requests scheduled in its window, rates over requests that ended in it, each with how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfbench.analyse.intervals import Dependence, dependence, mean_interval, percentile_interval, rate_interval
from perfbench.analyse.metrics import BY_NAME, NS_PER_S, PER_REQUEST
from perfbench.analyse.slo import good, judgeable
from perfbench.analyse.stats import Floats, Interval, percentile
from perfbench.analyse.window import ended_in_window, in_flight_when_due, scheduled_in_window, window_s
from perfbench.records import AdapterSummary, Estimate, MetricSummary, Rates, RequestCounts, TrialOutcome, TrialPlan, TrialSummary
from perfbench.results import RunFolder
from perfbench.scenario.model import SloLimit

PERCENTS = (50, 90, 95, 99)
RATES = ("requests_per_s", "output_tokens_per_s", "goodput_per_s")


@dataclass(frozen=True)
class AnalysedTrial:
    """A finished trial: its plan, what the load process said, all its requests, and its summary."""

    plan: TrialPlan
    outcome: TrialOutcome
    requests: pl.DataFrame
    summary: TrialSummary
    start: str | None = None
    """Of the server that answered it (`window.server_starts`); None where that is not known."""

    @property
    def usable(self) -> bool:
        """A void trial enters no verdict, comparison or price."""
        return self.summary.audit.verdict != "void"

    @property
    def measured(self) -> pl.DataFrame:
        """Requests scheduled in the window."""
        return self.requests.filter(scheduled_in_window(self.outcome))


def dependence_of(requests: pl.DataFrame, outcome: TrialOutcome, arrival: str) -> Dependence:
    """What the trial's requests have in common, as its intervals must know."""
    return dependence(closed=arrival == "closed", in_flight=in_flight_when_due(requests, outcome))


def metric_summaries(folder: RunFolder, trial: str, requests: pl.DataFrame, outcome: TrialOutcome, given: Dependence) -> dict[str, MetricSummary]:
    """METRIC -> summary over the trial's requests scheduled in the window, in the order of the table; `icl_s` over all their gaps."""
    found = _of_requests(requests.filter(scheduled_in_window(outcome)), given)
    found["icl_s"] = _inter_chunk_latency(folder, trial, outcome, given)
    return {name: found[name] for name in BY_NAME if name in found}


def adapter_summaries(requests: pl.DataFrame, outcome: TrialOutcome, given: Dependence) -> dict[str, AdapterSummary]:
    """Adapter -> its part of the trial, the most asked first; empty where no request names one."""
    measured = requests.filter(scheduled_in_window(outcome) & pl.col("adapter").is_not_null())
    asked = measured.group_by("adapter").len().sort("len", "adapter", descending=[True, False])["adapter"].to_list()
    parts = {name: measured.filter(pl.col("adapter") == name) for name in asked}
    return {name: AdapterSummary(requests=request_counts(part, outcome), metrics=_of_requests(part, given)) for name, part in parts.items()}


def _of_requests(measured: pl.DataFrame, given: Dependence) -> dict[str, MetricSummary]:
    return {name: _summary(name, measured[name].drop_nulls().to_numpy(), given) for name in PER_REQUEST}


def _summary(name: str, values: Floats, given: Dependence, counts: Floats | None = None) -> MetricSummary:
    """`counts`: how many neighbouring values belong to each request, where that is not one."""
    sums = values if counts is None else np.add.reduceat(values, np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64))
    low, high = mean_interval(sums, given, counts)
    found = {f"p{percent}": _estimate(percentile(values, percent), percentile_interval(values, percent, given, counts)) for percent in PERCENTS}
    return MetricSummary(
        unit=BY_NAME[name].unit, mean=float(values.mean()) if len(values) else None, ci95_low=low, ci95_high=high, n=len(values),
        intervals=known(found), p50=found["p50"].value, p90=found["p90"].value, p95=found["p95"].value, p99=found["p99"].value,
    )  # fmt: skip


def _estimate(value: float | None, interval: Interval) -> Estimate:
    return Estimate(value=value, ci95_low=interval.low, ci95_high=interval.high) if value is not None else Estimate(value=None)


def known(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Those that have an interval."""
    return {name: estimate for name, estimate in estimates.items() if estimate.ci95_low is not None}


def _inter_chunk_latency(folder: RunFolder, trial: str, outcome: TrialOutcome, given: Dependence) -> MetricSummary:
    """Pooled gaps. One trial at a time: chunk times are the bulk of a run, and one trial of them fits in memory."""
    chosen = folder.records().filter((pl.col("trial") == trial) & (pl.col("status") == "ok") & scheduled_in_window(outcome))
    rows = chosen.select("scheduled_ns", "chunk_ns").filter(pl.col("chunk_ns").list.len() > 1).sort("scheduled_ns").select("chunk_ns").collect()
    if rows.is_empty():
        return _summary("icl_s", np.empty(0), given)
    chunks = rows["chunk_ns"]
    lengths = chunks.list.len().to_numpy().astype(np.int64)
    gaps = np.delete(np.diff(chunks.explode().to_numpy()), np.cumsum(lengths)[:-1] - 1) / NS_PER_S
    return _summary("icl_s", gaps, given, (lengths - 1).astype(np.float64))


def request_counts(requests: pl.DataFrame, outcome: TrialOutcome) -> RequestCounts:
    """Answered and failed requests among those scheduled in the window."""
    measured = requests.filter(scheduled_in_window(outcome))
    answered = int((measured["status"] == "ok").sum())
    return RequestCounts(ok=answered, failed=len(measured) - answered)


def rates(requests: pl.DataFrame, outcome: TrialOutcome, slo: Mapping[str, SloLimit], given: Dependence) -> Rates:
    """Requests, output tokens and good requests a second of the window. Tokens are None where an answer came without usage."""
    seconds = window_s(outcome)
    if seconds <= 0:
        return Rates(requests_per_s=None, output_tokens_per_s=None, goodput_per_s=None)
    ended = requests.filter(ended_in_window(outcome)).sort("end_ns")
    ended_s = (ended["end_ns"].to_numpy() - outcome.measure_from_ns) / NS_PER_S
    found: dict[str, Estimate] = {}

    def rate(name: str, amounts: Floats, queues: Floats | None = None) -> None:
        found[name] = _estimate(float(amounts.sum()) / seconds, rate_interval(ended_s, amounts, seconds, given, queues=queues))

    rate("requests_per_s", np.ones(len(ended)))
    if not ended["output_tokens"].null_count():
        rate("output_tokens_per_s", ended["output_tokens"].to_numpy().astype(np.float64))
    if slo and judgeable(ended, slo):
        met = ended.select(good(slo)).to_series().to_numpy().astype(np.float64)
        rate("goodput_per_s", met, queues=met)
    requests_per_s, tokens_per_s, goodput_per_s = (found[name].value if name in found else None for name in RATES)
    return Rates(requests_per_s=requests_per_s, output_tokens_per_s=tokens_per_s, goodput_per_s=goodput_per_s, intervals=known(found))


def energy_summary(joules: float | None, requests: pl.DataFrame, outcome: TrialOutcome) -> MetricSummary | None:
    """GPU energy of the window over the requests that ended in it: a mean without percentiles. None without a counter or a request."""
    ended = len(requests.filter(ended_in_window(outcome)))
    if joules is None or not ended:
        return None
    return MetricSummary(
        unit=BY_NAME["energy_j_per_request"].unit, mean=joules / ended, n=ended, p50=None, p90=None, p95=None, p99=None, ci95_low=None, ci95_high=None
    )
