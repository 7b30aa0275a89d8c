"""What a comparison of two runs, and a gate over one, come to."""

from __future__ import annotations

from typing import Literal

import msgspec

GateVerdict = Literal["pass", "regression", "cannot tell"]


class Unlike(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in which two runs differ."""

    kind: str
    """prompts, template, decoding, load, models, serve, versions, hardware or price."""
    what: str
    """A sentence with both values."""


class RunDifference(msgspec.Struct, frozen=True, kw_only=True):
    """run - baseline in one statistic of one variant."""

    variant: str
    stage: str
    """Empty for what is of a whole run: memory, cost, quality."""
    metric: str
    statistic: str
    """mean, p50, p90, p95, p99; `rate`, `peak`, `price` or `share` where there is nothing to choose."""
    unit: str
    baseline: float | None
    value: float | None
    difference: float | None
    ci95_low: float | None
    ci95_high: float | None
    relative: float | None
    """difference / baseline."""
    relative_ci95_low: float | None = None
    relative_ci95_high: float | None = None
    n: int
    """Pairs: requests that both runs answered, slices of windows, or samples."""
    verdict: Literal["better", "worse", "same", "cannot tell"]
    n_to_decide: int | None = None
    starts: int | None = None
    """Starts of each run's server behind it, where starts enter; with 1, the interval allows for what another start would change (analyse/starts.py)."""
    note: str = ""
    """Why there is no figure or no interval; else empty."""


class RunComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that two runs have in common, compared; every difference is `run` - `baseline`."""

    baseline: str
    run: str
    unlike: list[Unlike]
    """In what the runs differ and were allowed to."""
    differences: list[RunDifference]
    only_in_one: list[str] = []
    """Variants and stages that could not be compared, each as a sentence."""


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One rule for one variant and stage. `change` and its interval are on the rule's scale: a share of the baseline, or the metric's unit."""

    rule: int
    """Its place in the file, from 0."""
    variant: str
    stage: str
    metric: str
    statistic: str
    unit: str
    relative: bool
    """Whether `change` is a share of the baseline."""
    baseline: float | None
    value: float | None
    change: float | None
    ci95_low: float | None
    ci95_high: float | None
    allowed: float
    """How far the change may go for the worse."""
    verdict: GateVerdict
    reason: str
    n: int
    n_to_decide: int | None = None


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's answer: regression when one check is, else cannot tell when one check is, else pass."""

    baseline: str
    run: str
    verdict: GateVerdict
    checks: list[GateCheck]
    unlike: list[Unlike]
    only_in_one: list[str] = []
    """Variants and stages that no rule could be checked for, each as a sentence."""
