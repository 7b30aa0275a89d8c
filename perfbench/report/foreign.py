"""Result files of other tools: `vllm bench serve` (--save-result), guidellm (its JSON report) and aiperf (profile_export_aiperf.json).

A file is recognised by its keys. Its figures are taken over as they stand, milliseconds turned into seconds, each under the name that the tool gives it and
with that tool's formula: where two tools disagree, the formula is the first thing to look at. They never enter a verdict or a price of ours.
Key names as written by vLLM 0.32 (benchmarks/serve.py), guidellm 0.8.1 (report version 2) and aiperf 0.13 (export schema 1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from perfbench.analyse.stages import STATISTICS
from perfbench.errors import InputError
from perfbench.records import ForeignMetric, ForeignResult
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table

_MS = 1e-3

Reader = Callable[[Mapping[str, Any], str], list[ForeignResult]]


def read_foreign(path: Path) -> list[ForeignResult]:
    """Every benchmark in a file. Raises InputError for one that cannot be read or that none of the three tools wrote."""
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected a result file of vllm bench, guidellm or aiperf") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no JSON: {error}; expected a result file of vllm bench, guidellm or aiperf") from None
    known: tuple[tuple[str, Reader], ...] = (("mean_ttft_ms", _vllm), ("benchmarks", _guidellm), ("aiperf_version", _aiperf))
    for key, reader in known:
        if isinstance(content, dict) and key in content:
            try:
                return reader(content, str(path))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise InputError(f"{path} looks like a result of {reader.__name__[1:]}, but its part {error} is missing or of another kind") from None
    raise InputError(f"{path} is no result file that perfbench knows; expected one of vllm bench serve --save-result, guidellm (JSON) or aiperf (JSON)")


def _vllm(content: Mapping[str, Any], file: str) -> list[ForeignResult]:
    def metric(name: str, formula: str) -> ForeignMetric | None:
        figures = {stat: content.get(f"{stat}_{name}_ms") for stat in STATISTICS}
        figures["p50"] = figures["p50"] if figures["p50"] is not None else content.get(f"median_{name}_ms")
        return _foreign_metric(name, formula, figures, _MS)

    limit, rate = content.get("max_concurrency"), content.get("request_rate")
    load = f"concurrency {limit}" if limit is not None else "as fast as possible" if rate == "inf" else f"{rate} requests/s"
    return [
        ForeignResult(
            tool="vllm bench serve", version=None, file=file, load=load, model=content.get("model_id"), requests_ok=content.get("completed"),
            requests_failed=content.get("failed"), requests_per_s=content.get("request_throughput"),
            output_tokens_per_s=content.get("output_throughput"), goodput_per_s=content.get("request_goodput"),
            metrics=_present(
                ttft_s=metric("ttft", "first chunk with choices, even an empty one - s"), tpot_s=metric("tpot", "(end - s - ttft) / (n - 1)"),
                icl_s=metric("itl", "pooled gaps between chunks"), e2e_s=metric("e2el", "last chunk with choices - s"),
            ),
        )
    ]  # fmt: skip


def _guidellm(content: Mapping[str, Any], file: str) -> list[ForeignResult]:
    return [_guidellm_benchmark(one, file, (content.get("metadata") or {}).get("guidellm_version")) for one in content["benchmarks"]]


def _guidellm_benchmark(one: Mapping[str, Any], file: str, version: str | None) -> ForeignResult:
    metrics, strategy = one["metrics"], one["config"]["strategy"]

    def metric(name: str, formula: str, scale: float = _MS) -> ForeignMetric | None:
        found = (metrics.get(name) or {}).get("successful")
        if found is None:
            return None
        figures = {"mean": found["mean"], **{stat: found["percentiles"].get(stat) for stat in STATISTICS[1:]}}
        return _foreign_metric(name, formula, figures, scale)

    totals = metrics["request_totals"]
    streams, rate = strategy.get("streams"), strategy.get("rate")
    level = f", {streams} streams" if streams is not None else f", {rate} requests/s" if rate is not None else ""
    goodput = ((metrics.get("request_goodput") or {}).get("successful") or {}).get("mean")
    return ForeignResult(
        tool="guidellm", version=version, file=file, load=f"{strategy['type_']}{level}", model=None, requests_ok=totals["successful"],
        requests_failed=totals["errored"], requests_per_s=metrics["requests_per_second"]["successful"]["mean"],
        output_tokens_per_s=metrics["output_tokens_per_second"]["successful"]["mean"],
        goodput_per_s=goodput,
        metrics=_present(
            ttft_s=metric("time_to_first_token_ms", "f - s"), tpot_s=metric("inter_token_latency_ms", "(l - f) / (n - 1), weighted by tokens"),
            ntpot_s=metric("time_per_output_token_ms", "(l - s) / n, weighted by tokens"), e2e_s=metric("request_latency", "end - s", 1.0),
        ),
    )  # fmt: skip


def _aiperf(content: Mapping[str, Any], file: str) -> list[ForeignResult]:
    def metric(name: str, formula: str) -> ForeignMetric | None:
        found = content.get(name)
        if found is None:
            return None
        scale = {"ms": _MS, "s": 1.0, "sec": 1.0, "ns": 1e-9, "us": 1e-6}[found["unit"]]
        return _foreign_metric(name, formula, {"mean": found.get("avg"), **{stat: found.get(stat) for stat in STATISTICS[1:]}}, scale)

    def average(name: str) -> float | None:
        value = (content.get(name) or {}).get("avg")
        return None if value is None else float(value)

    def count(name: str) -> int | None:
        value = average(name)
        return None if value is None else round(value)

    return [
        ForeignResult(
            tool="aiperf", version=content.get("aiperf_version"), file=file, load=_aiperf_load(content.get("input_config") or {}), model=None,
            requests_ok=count("request_count"), requests_failed=count("error_request_count") or 0, requests_per_s=average("request_throughput"),
            output_tokens_per_s=average("output_token_throughput"), goodput_per_s=average("goodput"),
            metrics=_present(
                ttft_s=metric("time_to_first_token", "first non-empty content - s"),
                tpot_s=metric("inter_token_latency", "(end - s - ttft) / (n - 1), n by the client's tokenizer"),
                icl_s=metric("inter_chunk_latency", "gaps between chunks"), e2e_s=metric("request_latency", "last chunk - s"),
            ),
        )
    ]  # fmt: skip


def _aiperf_load(config: Mapping[str, Any]) -> str:
    """Its settings lie at different depths in different versions: the first that is set is taken."""
    for key, words in (("concurrency", "concurrency {}"), ("request_rate", "{} requests/s")):
        value = _find(config, key)
        if value is not None:
            return words.format(value)
    return "unknown"


def _find(config: object, key: str) -> object:
    parts = list(config.values()) if isinstance(config, Mapping) else config if isinstance(config, list) else []
    if isinstance(config, Mapping) and isinstance(config.get(key), (int, float)):
        return config[key]
    return next((found for part in parts if (found := _find(part, key)) is not None), None)


def _foreign_metric(theirs: str, formula: str, figures: Mapping[str, float | None], scale: float) -> ForeignMetric | None:
    scaled = {stat: None if value is None else float(value) * scale for stat, value in figures.items()}
    return ForeignMetric(theirs=theirs, formula=formula, **scaled) if any(value is not None for value in scaled.values()) else None


def _present(**metrics: ForeignMetric | None) -> dict[str, ForeignMetric]:
    return {name: metric for name, metric in metrics.items() if metric is not None}


def foreign_table(results: list[ForeignResult]) -> Table:
    """One row a benchmark, marked as theirs; each figure's tooltip is that tool's formula."""
    columns = (
        Column("Tool", align="left"), Column("Load", align="left"), Column("TTFT p50"), Column("TTFT p95", minor=True), Column("TPOT p50"),
        Column("TPOT p95", minor=True),
        Column("E2E p50", minor=True), Column("Tokens/s"), Column("Requests/s", minor=True),
        Column("Goodput", "requests/s within its own limits, where it was given some", minor=True), Column("Failed", minor=True),
        Column("File", align="left", minor=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{one.tool} {one.version or ''}".strip(), "theirs"), Cell(formats.one_line(one.load)),
            *(_latency(one, metric, stat) for metric, stat in (("ttft_s", "p50"), ("ttft_s", "p95"), ("tpot_s", "p50"), ("tpot_s", "p95"), ("e2e_s", "p50"))),
            Cell(formats.quantity(one.output_tokens_per_s, "")), Cell(formats.quantity(one.requests_per_s, "")),
            Cell(formats.quantity(one.goodput_per_s, "")),
            Cell(formats.count(one.requests_failed)), Cell(formats.one_line(Path(one.file).name)),
        )
        for one in results
    )  # fmt: skip
    caption = "Measured and computed by these tools, by their own formulas (hover a figure); they enter no verdict and no price here."
    return Table("foreign", "Figures of other tools", caption, columns, rows)


def _latency(one: ForeignResult, metric: str, stat: str) -> Cell:
    found = one.metrics.get(metric)
    return Cell(formats.DASH) if found is None else Cell(formats.seconds(getattr(found, stat)), title=f"{found.theirs}: {found.formula}")
