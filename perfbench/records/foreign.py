"""What another tool measured, as it said it: kept beside our own figures, never mixed with them."""

from __future__ import annotations

import msgspec


class ForeignMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One latency of another tool, in seconds, under that tool's own name and formula."""

    theirs: str
    """Its name there: `inter_token_latency`."""
    formula: str
    """What that tool means by it, in the words of docs/metrics.md."""
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class ForeignResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result file of another tool, or one benchmark in it."""

    tool: str
    version: str | None
    file: str
    load: str
    """How it drove: `concurrency 4`, `2 requests/s`."""
    model: str | None
    requests_ok: int | None
    requests_failed: int | None
    requests_per_s: float | None
    output_tokens_per_s: float | None
    goodput_per_s: float | None
    metrics: dict[str, ForeignMetric]
    """By the name of our metric that comes nearest: ttft_s, tpot_s, icl_s, e2e_s."""
