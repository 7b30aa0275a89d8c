"""Points for the plots, read from a run folder and thinned aloud.

Latencies are the metric table's own: TTFT and E2E from the first byte sent in a closed loop, from the scheduled time in an open one. A plot with
more points than `limit` shows every k-th of them and says so; the figures in tables never come from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import polars as pl

from perfbench.analyse.metrics import per_request_columns
from perfbench.records import Manifest, ServerInfo, Summary, TrialOutcome
from perfbench.results import RunFolder

CDF_POINTS = 400
TIME_POINTS = 1000


class TrialWindow(NamedTuple):
    """When a trial warmed up, measured and drained: seconds after its start."""

    trial: str
    variant: str
    stage: str
    repeat: int
    started_ns: int
    measure_from_s: float
    measure_until_s: float
    ended_s: float


class Points(NamedTuple):
    """Points of one curve, and what was left out: `every 12th of 4,801`, or ''."""

    x: list[float]
    y: list[float]
    thinned: str


def trial_windows(folder: RunFolder, manifest: Manifest) -> dict[str, TrialWindow]:
    """The finished trials by name, in planned order."""
    outcomes = {key: msgspec.convert(data, TrialOutcome) for key, data in folder.finished("trial_finished").items()}
    windows: dict[str, TrialWindow] = {}
    for plan in manifest.trials:
        outcome = outcomes.get(plan.trial)
        if outcome is None:
            continue
        moments = (outcome.measure_from_ns, outcome.measure_until_ns, outcome.ended_ns)
        offsets = ((moment - outcome.started_ns) / 1e9 for moment in moments)
        windows[plan.trial] = TrialWindow(plan.trial, plan.variant, plan.stage, plan.repeat, outcome.started_ns, *offsets)
    return windows


def request_latencies(folder: RunFolder, manifest: Manifest) -> pl.DataFrame:
    """One row a request of a finished trial: variant, stage, repeat, t_s, ttft_s, tpot_s, e2e_s, measured, and what identifies it.

    `t_s` counts from the trial's start to the scheduled time; `measured` is whether that lies in the measured window.
    """
    arrivals = {plan.trial: plan.arrival for plan in manifest.trials}
    schema = {
        "trial": pl.String, "stage": pl.String, "repeat": pl.Int64, "closed": pl.Boolean,
        "started_ns": pl.Int64, "from_s": pl.Float64, "until_s": pl.Float64,
    }  # fmt: skip
    rows = [
        (one.trial, one.stage, one.repeat, arrivals[one.trial] == "closed", one.started_ns, one.measure_from_s, one.measure_until_s)
        for one in trial_windows(folder, manifest).values()
    ]
    trials = pl.DataFrame(rows, schema=schema, orient="row").lazy()
    identity = ("request_id", "trial", "variant", "prompt_id", "status", "error", "error_message", "scheduled_ns")
    t_s = (pl.col("scheduled_ns") - pl.col("started_ns")) / 1e9
    return (
        folder.records()
        .select(*identity, *per_request_columns())
        .join(trials, on="trial", how="inner")
        .with_columns(
            t_s=t_s,
            ttft_s=pl.when("closed").then("ttft_s").otherwise("ttft_scheduled_s"),
            e2e_s=pl.when("closed").then("e2e_s").otherwise("e2e_scheduled_s"),
            output_tokens=pl.col("output_tokens").cast(pl.Int64),
            measured=t_s.is_between(pl.col("from_s"), pl.col("until_s"), closed="left"),
        )
        .collect()
    )


def counted(latencies: pl.DataFrame, summary: Summary) -> pl.DataFrame:
    """The requests that the figures are of: answered, of trials that may be used, in the part of their window that is kept."""
    rows = [
        (name, trial.stage, trial.repeat, *((None, None) if trial.steady is None else (trial.steady.kept_from_s, trial.steady.kept_until_s)))
        for name, variant in summary.variants.items() for trial in variant.trials if trial.audit.verdict != "void"
    ]  # fmt: skip
    schema = {"variant": pl.String, "stage": pl.String, "repeat": pl.Int64, "kept_from_s": pl.Float64, "kept_until_s": pl.Float64}
    usable = pl.DataFrame(rows, schema=schema, orient="row")
    since_s = pl.col("t_s") - pl.col("from_s")
    inside = (since_s >= pl.col("kept_from_s")).fill_null(True) & (since_s < pl.col("kept_until_s")).fill_null(True)
    return latencies.filter(pl.col("measured") & (pl.col("status") == "ok")).join(usable, on=["variant", "stage", "repeat"], how="inner").filter(inside)


def thin(frame: pl.DataFrame, limit: int) -> tuple[pl.DataFrame, str]:
    """Every k-th row, and the last, so that at most about `limit` are left; the words say which."""
    step = math.ceil(frame.height / limit)
    if step <= 1:
        return frame, ""
    rows = frame.with_row_index("_row").filter((pl.col("_row") % step == 0) | (pl.col("_row") == frame.height - 1)).drop("_row")
    return rows, f"every {ordinal(step)} of {frame.height:,}"


def ordinal(number: int) -> str:
    """2 -> `2nd`, 11 -> `11th`."""
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def cumulative(latencies: pl.DataFrame, metric: str) -> Points:
    """The empirical distribution of a latency: x in seconds, y the share of requests at or below it."""
    values = latencies.select(pl.col(metric)).drop_nulls().sort(metric)
    ranked = values.with_columns(share=(pl.int_range(1, pl.len() + 1) / values.height) if values.height else pl.lit(0.0))
    kept, thinned = thin(ranked, CDF_POINTS)
    return Points(_rounded(kept[metric]), _rounded(kept["share"]), thinned)


def over_time(latencies: pl.DataFrame, metric: str) -> Points:
    """A latency against the scheduled time in its trial, all answered requests, warm-up and drain too."""
    values = latencies.filter(pl.col("status") == "ok").select("t_s", metric).drop_nulls().sort("t_s")
    kept, thinned = thin(values, TIME_POINTS)
    return Points(_rounded(kept["t_s"]), _rounded(kept[metric]), thinned)


def _rounded(values: pl.Series) -> list[float]:
    """Five significant digits: finer than any plot, and a fifth of the bytes."""
    return [float(value) for value in values.cast(pl.Float64).round_sig_figs(5).to_list()]


def servers_of(folder: RunFolder) -> dict[str, str]:
    """variant -> name of the server that hosted it."""
    servers = [msgspec.convert(data, ServerInfo) for data in folder.finished("server_ready").values()]
    return {variant: server.name for server in servers for variant in server.variants}


def telemetry(folder: RunFolder, window: TrialWindow, server: str | None, name: str) -> Points:
    """One reading of a server over one trial: x in seconds after the trial's start."""
    ended_ns = window.started_ns + round(window.ended_s * 1e9)
    samples = (
        folder.samples()
        .filter((pl.col("name") == name) & pl.col("t_ns").is_between(window.started_ns, ended_ns))
        .with_columns(server=pl.col("labels").str.json_path_match("$.server"))
        .filter(pl.col("server").is_null() | (pl.col("server") == (server or "")))
        .select(t_s=(pl.col("t_ns") - window.started_ns) / 1e9, value="value")
        .sort("t_s")
        .collect()
    )
    kept, thinned = thin(samples, TIME_POINTS)
    return Points(_rounded(kept["t_s"]), _rounded(kept["value"]), thinned)


def pareto_front(curve: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (throughput, latency) points those that no other beats in both: more throughput only at more latency. By rising throughput."""
    front: list[tuple[float, float]] = []
    for throughput, latency in sorted(set(curve), key=lambda point: (-point[0], point[1])):
        if not front or latency < front[-1][1]:
            front.append((throughput, latency))
    return front[::-1]
