"""The words of a gate's rules: how much worse than a baseline a run may be. `read_gate` reads the file (gate.yaml)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from perfbench.errors import ScenarioError
from perfbench.scenario.read import findings_of, parse_mapping
from perfbench.scenario.strict import Strict

Allowable = Literal["models", "serve", "versions", "hardware", "price"]
ALLOWABLE: tuple[str, ...] = get_args(Allowable)
"""In what two runs may differ where the user says so."""

Latency = Literal["ttft_s", "ttft_scheduled_s", "tpot_s", "ntpot_s", "e2e_s", "e2e_scheduled_s"]
Rate = Literal["requests_per_s", "output_tokens_per_s", "goodput_per_s"]
OfStage = Literal["energy_j_per_request", "failed_share"]
OfRun = Literal["vram_bytes", "host_rss_bytes", "usd_per_request", "usd_per_million_output_tokens", "usd_per_correct_request", "quality"]
GateMetric = Literal[Latency, Rate, OfStage, OfRun]
LATENCIES: tuple[str, ...] = get_args(Latency)
RATES: tuple[str, ...] = get_args(Rate)
OF_STAGE: tuple[str, ...] = get_args(OfStage)


class GateRule(Strict):
    """One metric and how much worse it may get. Checked for every variant and stage that both runs have, unless it names some."""

    metric: GateMetric
    """By its name in docs/metrics.md; `quality` is the metric that decides in the scenario."""
    statistic: Literal["mean", "p50", "p90", "p95", "p99"] | None = None
    """Of a latency; default: mean. Rates, energy, failures, memory, prices and quality have one figure each."""
    variants: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only these."""
    stages: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only these; latencies, rates, energy and failures."""
    allowed_relative: Annotated[float, Field(ge=0, lt=10, allow_inf_nan=False)] | None = None
    """Worse by so much of the baseline: 0.05 is 5%."""
    allowed_absolute: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Worse by so much in the metric's own unit: seconds, bytes, USD, joules; for quality and failures 0.02 is two points of a hundred."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.allowed_relative is None) == (self.allowed_absolute is None):
            raise ValueError("expected exactly one of `allowed_relative` (share of the baseline) and `allowed_absolute` (the metric's unit)")
        if self.statistic is not None and self.metric not in LATENCIES:
            raise ValueError(f"`statistic` belongs to latencies; `{self.metric}` is one figure; remove it")
        if self.stages is not None and self.metric not in (*LATENCIES, *RATES, *OF_STAGE):
            raise ValueError(f"`stages` belongs to latencies, rates, energy and failures; `{self.metric}` is of the whole run; remove it")
        return self


class Gate(Strict):
    """What must not get worse, and by how much."""

    allow: tuple[Allowable, ...] = ()
    """In what run and baseline may differ: what is under test."""
    rules: Annotated[tuple[GateRule, ...], Field(min_length=1)]
    """All have to hold."""


def read_gate(path: str | Path) -> Gate:
    """Raises ScenarioError with every finding at once."""
    raw = parse_mapping(str(path), what="`rules`", written_by="docs/ci.md shows one")
    try:
        return Gate.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise ScenarioError(str(path), findings_of(error, raw, Gate)) from None
