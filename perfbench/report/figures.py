"""The plots of the HTML report as Plotly figures in plain JSON, each with a title, a text alternative and a note on what was left out.

Colours of paper, text and grid are the page's and are set there, so that one figure serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from perfbench.analyse.metrics import metric_label
from perfbench.records import Manifest, Summary, TrialSummary
from perfbench.report import formats, points
from perfbench.report.differences import adapter_metrics, adapter_steps
from perfbench.report.evidence import LEDGER_LABELS, ledger_parts
from perfbench.report.repeats import Statistic, arrival_of, metric_over_repeats, rate_over_repeats, stage_names
from perfbench.report.tables import metric_unit
from perfbench.results import RunFolder

PALETTE = ("#3b82c4", "#c9720a", "#2a9d6f", "#b565a7", "#d6455d", "#7a8b20", "#5b6fd6", "#8a6d5a")
"""At least 3:1 against the light and the dark paper."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star", "x")
DASHES = ("solid", "dash", "dot", "dashdot")
SHADE = "rgba(128,128,128,0.16)"
STEADY_BAR = 0.025
"""Share of a plot's height that the bar of one trial takes."""
TELEMETRY = (
    ("kv_cache_usage_perc", "KV cache in use", ".1~%"), ("num_requests_running", "Requests running", ""), ("num_requests_waiting", "Requests waiting", ""),
)  # fmt: skip
"""(the sampler's name, title, tick format). The first is a share, whatever its name says."""


@dataclass(frozen=True)
class Figure:
    """One plot. Figures of one group and different stages share a place on the page; the reader picks the stage."""

    key: str
    group: str
    title: str
    stage: str | None
    alt: str
    note: str
    plot: dict[str, Any]


def all_figures(folder: RunFolder, summary: Summary, manifest: Manifest, latencies: pl.DataFrame) -> list[Figure]:
    """Every plot that the run has data for; `latencies` is what points.request_latencies gives."""
    windows, counted = points.trial_windows(folder, manifest), points.counted(latencies, summary)
    found: list[Figure | None] = [latency_throughput(summary, metric) for metric in ("ttft_s", "tpot_s")]
    for stage in stage_names(summary):
        of_stage = latencies.filter(pl.col("stage") == stage)
        found += [distribution(summary, counted.filter(pl.col("stage") == stage), stage, metric) for metric in ("ttft_s", "tpot_s", "e2e_s")]
        found.append(latency_over_time(summary, of_stage, stage, windows.values()))
        found += [server_over_time(folder, summary, stage, windows.values(), reading) for reading in TELEMETRY]
        found.append(adapter_tax(summary, stage))
    found.append(memory_ledger(summary))
    return [figure for figure in found if figure is not None]


def _line_style(summary: Summary, variant: str) -> dict[str, Any]:
    """Name and line of a variant: colour and dashes both tell it apart."""
    index = list(summary.variants).index(variant)
    return {"name": variant, "line": {"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index % len(DASHES)]}}


def _marker_style(summary: Summary, variant: str) -> dict[str, Any]:
    """Name and marker of a variant: colour and shape both tell it apart."""
    index = list(summary.variants).index(variant)
    return {"name": variant, "marker": {"color": PALETTE[index % len(PALETTE)], "symbol": SYMBOLS[index % len(SYMBOLS)]}}


def plot_layout(x_title: str, y_title: str, **more: Any) -> dict[str, Any]:
    """Axes, margins and legend that every plot shares."""
    return {
        "xaxis": {"title": {"text": x_title}, "automargin": True},
        "yaxis": {"title": {"text": y_title}, "automargin": True},
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hovermode": "closest",
        "height": 360,
        **more,
    }


def from_zero(layout: dict[str, Any], *axes: str) -> dict[str, Any]:
    """Lengths and heights are compared from zero. Not for axes of names."""
    for axis in axes:
        layout[axis]["rangemode"] = "tozero"
    return layout


def _line(axis: str, at: float, text: str) -> dict[str, Any]:
    """A labelled limit across the plot: `axis` is the one that it is a value of."""
    other = "x" if axis == "y" else "y"
    shape = {"type": "line", f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper", "line": {"dash": "dash", "width": 1.5}}
    beside = {"x": 1, "xref": "paper", "y": at, "xanchor": "right", "yanchor": "bottom"}
    place = beside if axis == "y" else {"x": at, "y": 0.02, "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return {"shapes": [shape], "annotations": [{**place, "text": text, "showarrow": False}]}


def _slo_limit(summary: Summary, metric: str) -> tuple[int, float] | None:
    """(percentile, limit in seconds) of the SLO on a latency, or on the same one from the scheduled time."""
    for variant in summary.variants.values():
        for trial in variant.trials:
            limits = (trial.slo or {}).get("limits") or {}
            for name in (metric, metric.replace("_s", "_scheduled_s")):
                if name in limits:
                    return int(str(limits[name]["percentile"]).lstrip("p")), float(limits[name]["limit"])
    return None


def _scheduled(metric: str, arrival: str) -> str:
    """Open loop: the same latency from the scheduled time; TPOT does not depend on it."""
    return metric if arrival == "closed" or metric == "tpot_s" else metric.replace("_s", "_scheduled_s")


def latency_throughput(summary: Summary, metric: str) -> Figure | None:
    """Latency against what was served, one line a variant, one point a stage."""
    slo = _slo_limit(summary, metric)
    percentile = slo[0] if slo is not None else 95
    statistics: dict[int, Statistic] = {50: "p50", 90: "p90", 95: "p95", 99: "p99"}
    traces: list[dict[str, Any]] = []
    words: list[str] = []
    for name, variant in summary.variants.items():
        curve: list[tuple[float, float, str]] = []
        for stage in stage_names(summary):
            rate = rate_over_repeats(variant, stage, "requests_per_s").mean
            latency = metric_over_repeats(variant, stage, _scheduled(metric, arrival_of(summary, stage)), statistics[percentile]).mean
            if rate is not None and latency is not None:
                curve.append((rate, latency, stage))
        curve.sort()
        if not curve:
            continue
        words.append(f"{name}: " + ", ".join(f"{formats.seconds(y)} at {formats.quantity(x, '1/s')} ({stage})" for x, y, stage in curve))
        traces.append(
            {
                **_line_style(summary, name), **_marker_style(summary, name), "type": "scatter", "mode": "lines+markers",
                "x": [x for x, _, _ in curve], "y": [y for _, y, _ in curve], "text": [stage for _, _, stage in curve],
                "hovertemplate": "%{text}<br>%{x:.3g} requests/s<br>%{y:.3g} s<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    if not traces:
        return None
    traces += _pareto_trace(traces)
    label = f"{metric_label(metric)} p{percentile}"
    limit = {} if slo is None else _line("y", slo[1], f"SLO {formats.seconds(slo[1])}")
    plot = {"data": traces, "layout": from_zero(plot_layout("requests per second", f"{label}, s", **limit), "xaxis", "yaxis")}
    note = "One point a stage, the mean over repeats; points are joined by rising throughput. Right and low is better; the broad band joins the points "
    note += "that no other beats in both."
    return Figure(f"throughput-{metric}", "throughput", f"{label} against throughput", None, "; ".join(words), note, plot)


def _pareto_trace(traces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The front over all variants, below their lines; none where there is one variant, whose line says it all."""
    front = points.pareto_front((x, y) for trace in traces for x, y in zip(trace["x"], trace["y"], strict=True))
    if len(traces) < 2 or len(front) < 2:
        return []
    band = {"color": SHADE, "width": 12, "shape": "vh"}
    return [
        {
            "type": "scatter", "mode": "lines", "name": "Pareto front", "x": [x for x, _ in front], "y": [y for _, y in front], "line": band,
            "hoverinfo": "skip",
        }
    ]  # fmt: skip


def distribution(summary: Summary, latencies: pl.DataFrame, stage: str, metric: str) -> Figure | None:
    """Share of requests at or below each latency, one curve a variant; `latencies` is what points.counted gives."""
    traces: list[dict[str, Any]] = []
    thinned: list[str] = []
    for name in summary.variants:
        curve = points.cumulative(latencies.filter(pl.col("variant") == name), metric)
        if not curve.x:
            continue
        thinned += [f"{name}: {curve.thinned} requests"] if curve.thinned else []
        hover = "%{y:.1%} within %{x:.3g} s<extra>%{fullData.name}</extra>"
        style = _line_style(summary, name)
        style["line"]["shape"] = "hv"
        traces.append({**style, "type": "scatter", "mode": "lines", "x": curve.x, "y": curve.y, "hovertemplate": hover})
    if not traces:
        return None
    slo = _slo_limit(summary, metric)
    limit = {} if slo is None else _line("x", slo[1], f"SLO p{slo[0]}")
    label = metric_label(metric)
    layout = from_zero(plot_layout(f"{label}, s", "share of requests", **limit), "xaxis")
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.01]}
    alt = f"Cumulative distribution of {label} at stage {stage}; its percentiles stand in the table Latency at stage {stage}."
    note = "Answered requests of the windows that the tables are of, all usable repeats together." + _points_note(thinned)
    return Figure(f"cdf-{metric}-{stage}", f"cdf-{metric}", f"{label}: share of requests within", stage, alt, note, {"data": traces, "layout": layout})


def _points_note(thinned: Sequence[str]) -> str:
    return f" Points shown: {'; '.join(thinned)}." if thinned else ""


def latency_over_time(summary: Summary, latencies: pl.DataFrame, stage: str, windows: Iterable[points.TrialWindow]) -> Figure | None:
    """TTFT of each request against its scheduled time, with warm-up and drain shaded."""
    traces: list[dict[str, Any]] = []
    thinned: list[str] = []
    for name in summary.variants:
        dots = points.over_time(latencies.filter(pl.col("variant") == name), "ttft_s")
        if not dots.x:
            continue
        thinned += [f"{name}: {dots.thinned} requests"] if dots.thinned else []
        style = _marker_style(summary, name)
        style["marker"] |= {"size": 5, "opacity": 0.75}
        hover = "%{y:.3g} s at %{x:.3g} s<extra>%{fullData.name}</extra>"
        traces.append({**style, "type": "scatter", "mode": "markers", "x": dots.x, "y": dots.y, "hovertemplate": hover})
    if not traces:
        return None
    shown = list(windows)
    shades = _shades(stage, shown)
    bars, kept = _steady_bars(summary, stage, shown)
    shades["shapes"] = [*shades.get("shapes", []), *bars]
    plot = {"data": traces, "layout": from_zero(plot_layout("seconds after the trial's start", "TTFT, s", **shades), "yaxis")}
    alt = f"TTFT of every answered request at stage {stage} over the time of its trial; shaded: warm-up and drain."
    void = [f"{name} r{trial.repeat}" for name, variant in summary.variants.items() for trial in variant.trials if _is_void(trial, stage)]
    left_out = f" Void, and in no other figure: {', '.join(void)}." if void else ""
    note = "All repeats, warm-up and drain too; only the window counts." + left_out + kept + _points_note(thinned)
    return Figure(f"ttft-time-{stage}", "ttft-time", "TTFT over time", stage, alt, note, plot)


def _is_void(trial: TrialSummary, stage: str) -> bool:
    return trial.stage == stage and trial.audit.verdict == "void"


def _shades(stage: str, windows: Iterable[points.TrialWindow]) -> dict[str, Any]:
    """Warm-up and drain as grey bands: from the trials of a stage, which share their times but for the end of the drain."""
    chosen = [window for window in windows if window.stage == stage]
    if not chosen:
        return {}
    begin, until, end = chosen[0].measure_from_s, chosen[0].measure_until_s, max(window.ended_s for window in chosen)
    bands = [(0.0, begin, "warm-up"), (until, end, "drain")]
    common = {"yref": "paper", "y0": 0, "y1": 1, "type": "rect", "layer": "below", "fillcolor": SHADE, "line": {"width": 0}}
    word = {"y": 1, "yref": "paper", "yanchor": "top", "showarrow": False}
    return {
        "shapes": [{**common, "x0": left, "x1": right} for left, right, _ in bands if right > left],
        "annotations": [{**word, "x": (left + right) / 2, "text": text} for left, right, text in [*bands, (begin, until, "window")] if right > left],
    }


def _steady_bars(summary: Summary, stage: str, windows: Iterable[points.TrialWindow]) -> tuple[list[dict[str, Any]], str]:
    """Of each trial whose window was cut, the steady part as a bar along the bottom in its variant's colour; with the sentence that reads them out."""
    begins = {(window.variant, window.repeat): window.measure_from_s for window in windows if window.stage == stage}
    bars: list[dict[str, Any]] = []
    words: list[str] = []
    for index, (name, variant) in enumerate(summary.variants.items()):
        for trial in variant.trials:
            state, begin = trial.steady, begins.get((name, trial.repeat))
            if trial.stage != stage or state is None or begin is None or not state.cut_s or state.kept_from_s is None or state.kept_until_s is None:
                continue
            left, right, low = begin + state.kept_from_s, begin + state.kept_until_s, STEADY_BAR * len(bars)
            bars.append(
                {
                    "type": "rect", "yref": "paper", "y0": low, "y1": low + 0.8 * STEADY_BAR, "x0": left, "x1": right, "layer": "below",
                    "fillcolor": PALETTE[index % len(PALETTE)], "opacity": 0.55, "line": {"width": 0},
                }
            )  # fmt: skip
            words.append(f"{name} r{trial.repeat} {formats.significant(left)} to {formats.significant(right)} s")
    return bars, f" Bars along the bottom: the steady part that the figures are of, where the window was cut: {', '.join(words)}." if words else ""


def server_over_time(
    folder: RunFolder, summary: Summary, stage: str, windows: Iterable[points.TrialWindow], reading: tuple[str, str, str]
) -> Figure | None:
    """One of vLLM's own readings over the first repeat of each variant."""
    name, title, tick_format = reading
    hosts = points.servers_of(folder)
    shown = list(windows)
    first = {variant: next((one for one in shown if (one.stage, one.variant) == (stage, variant)), None) for variant in summary.variants}
    traces: list[dict[str, Any]] = []
    for variant, window in first.items():
        curve = points.telemetry(folder, window, hosts.get(variant), name) if window is not None else points.Points([], [], "")
        if curve.x:
            traces.append({**_line_style(summary, variant), "type": "scatter", "mode": "lines", "x": curve.x, "y": curve.y})
    if not traces:
        return None
    layout = from_zero(plot_layout("seconds after the trial's start", title, **_shades(stage, shown)), "yaxis")
    layout["yaxis"] |= {"tickformat": tick_format} if tick_format else {}
    alt = f"{title} at stage {stage} over the time of the trial, one line a variant."
    return Figure(f"{name}-{stage}", name, title, stage, alt, "As the server reports it; the first repeat of each variant.", {"data": traces, "layout": layout})


def adapter_tax(summary: Summary, stage: str) -> Figure | None:
    """Relative differences from base to merged, with intervals."""
    traces: list[dict[str, Any]] = []
    words: list[str] = []
    for index, metric in enumerate(adapter_metrics(summary, stage)):
        steps = [(step, one) for step, _, one in adapter_steps(summary, metric, stage) if one.relative is not None and one.difference]
        if not steps:
            continue
        unit = metric_unit(summary, metric)
        shares = [one.relative for _, one in steps]
        up = [None if one.ci95_high is None else _share(one.ci95_high - (one.difference or 0), one.difference, one.relative) for _, one in steps]
        down = [None if one.ci95_low is None else _share((one.difference or 0) - one.ci95_low, one.difference, one.relative) for _, one in steps]
        words += [f"{metric_label(metric)} {step}: {formats.share_of(one.relative)} ({one.verdict})" for step, one in steps]
        texts = [f"{formats.signed(formats.quantity(one.difference, unit))}, {one.verdict}" for _, one in steps]
        traces.append(
            {
                "type": "bar", "name": metric_label(metric), "x": [step for step, _ in steps], "y": shares, "customdata": texts,
                "marker": {"color": PALETTE[index % len(PALETTE)]}, "error_y": {"type": "data", "array": up, "arrayminus": down},
                "hovertemplate": "%{x}<br>%{y:+.1%} (%{customdata})<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    if not traces:
        return None
    layout = plot_layout("", "difference, relative to the left one", barmode="group")
    layout["yaxis"] |= {"tickformat": "+.1~%"}
    note = "Bars: relative difference, paired by prompt. Whiskers: 95 % interval."
    return Figure(f"adapter-tax-{stage}", "adapter-tax", "Adapter tax", stage, "; ".join(words), note, {"data": traces, "layout": layout})


def _share(width: float, difference: float | None, relative: float | None) -> float | None:
    """A width in the metric's unit as a share of the left variant's value, which is difference / relative."""
    return abs(width * relative / difference) if difference and relative is not None else None


def memory_ledger(summary: Summary) -> Figure | None:
    """What each server's memory is for, stacked."""
    names = list(summary.variants)
    traces: list[dict[str, Any]] = []
    for index, part in enumerate(ledger_parts(summary)):
        sizes = [summary.variants[name].memory.ledger.get(part) for name in names]
        if any(size is not None for size in sizes):
            gibs = [None if size is None else size / 2**30 for size in sizes]
            label = LEDGER_LABELS.get(part, part)
            hover = "%{y:.3g} GiB<extra>%{fullData.name}, %{x}</extra>"
            traces.append({"type": "bar", "name": label, "x": names, "y": gibs, "marker": {"color": PALETTE[index % len(PALETTE)]}, "hovertemplate": hover})
    if not traces:
        return None
    plot = {"data": traces, "layout": plot_layout("", "GiB", barmode="stack", bargap=0.5)}
    return Figure("memory-ledger", "memory-ledger", "Memory ledger", None, "The parts of Memory by variant, stacked.", "Unknown parts are left out.", plot)
