"""A run as OpenMetrics text, the format that Prometheus and its kin read: one gauge a metric, labelled by variant, stage and repeat.

Figures of a trial are statistics of a finished experiment, not counters that go on, so each is a gauge with a `stat` label (mean, p50, ...), stamped with
the time at which the run started. What was not measured has no line. Names are `perfbench_<metric with its unit>`; OpenMetrics 1.0 asks for `# EOF` at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.stages import STATISTICS
from perfbench.analyse.trials import RATES
from perfbench.records import Manifest, Summary


class Point(NamedTuple):
    """One number of a run."""

    name: str
    """`ttft_s`, `usd_per_request`, `quality_exact_match`: with its unit in it, without the prefix."""
    labels: dict[str, str]
    value: float


def points(summary: Summary) -> Iterator[Point]:
    """Every number of a run that was measured: latencies, rates, memory, cost and quality of every variant. Void trials are left out."""
    for name, variant in summary.variants.items():
        for trial in variant.trials:
            if trial.audit.verdict == "void":
                continue
            labels = {"variant": name, "stage": trial.stage, "repeat": str(trial.repeat)}
            for metric, figures in trial.metrics.items():
                for stat in STATISTICS:
                    yield from _measured(metric, {**labels, "stat": stat}, getattr(figures, stat))
            for rate in RATES:
                yield from _measured(rate, labels, getattr(trial.rates, rate))
            for outcome in ("ok", "failed"):
                yield from _measured("requests", {**labels, "outcome": outcome}, getattr(trial.requests, outcome))
        of_variant = {"variant": name}
        for part in ("vram_bytes_peak", "vram_bytes_steady", "host_rss_bytes_peak", "kv_cache_tokens"):
            yield from _measured(part, of_variant, getattr(variant.memory, part))
        for price in ("usd_per_request", "usd_per_million_output_tokens", "usd_per_correct_request", "usd_per_request_raw"):
            yield from _measured(price, of_variant, getattr(variant.cost, price))
        if variant.quality is not None:
            for metric, estimate in variant.quality.metrics.items():
                yield from _measured(f"quality_{metric}", of_variant, estimate.value)


def _measured(name: str, labels: dict[str, str], value: float | None) -> Iterator[Point]:
    if value is not None:
        yield Point(name, labels, float(value))


def render_open_metrics(summary: Summary, manifest: Manifest) -> str:
    """The text of one exposition: families together, as the format wants them, every sample with the run's id and time."""
    stamp_s = datetime.fromisoformat(manifest.started_utc).timestamp()
    families: dict[str, list[str]] = {}
    for point in points(summary):
        labels = _labels({"run_id": summary.run_id, "scenario": summary.scenario, **point.labels})
        families.setdefault(point.name, []).append(f"perfbench_{point.name}{labels} {point.value!r} {stamp_s:.3f}")
    lines = []
    for name, samples in families.items():
        metric = BY_NAME.get(name)
        lines.append(f"# TYPE perfbench_{name} gauge")
        if metric is not None:
            lines.append(f"# HELP perfbench_{name} {_escaped(metric.meaning)}")
        lines += samples
    return "\n".join([*lines, "# EOF"]) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
