"""How the spot-check of a variant was decided: every deciding metric, slices, judge, people."""

from __future__ import annotations

from typing import Literal

import msgspec

from perfbench.records.answers import HumanSummary
from perfbench.records.estimate import Estimate

QualityVerdict = Literal["pass", "fail", "inconclusive", "reference", "not comparable"]


class GateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One metric that decides."""

    metric: str
    margin: float
    verdict: QualityVerdict
    reason: str
    difference: Estimate | None = None
    """variant - base."""
    level: float | None = None
    """Level of the two-sided interval that the verdict rests on: 0.90 for a single metric, higher by Holm's correction over several."""
    low: float | None = None
    high: float | None = None
    """That interval."""
    n: int = 0
    n_to_decide: int | None = None
    mcnemar_p: float | None = None


class SliceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The deciding metric over the samples of one slice. Slices decide nothing: they show where a difference comes from."""

    n: int
    value: Estimate
    difference: Estimate | None = None
    """variant - base over the same samples; None for base, and where the two cannot be compared."""


class JudgeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge did for one variant, and how far it can be trusted."""

    model: str
    verdicts: int
    """Verdicts that could be read."""
    unread: int = 0
    """Answers that were no verdict after all retries, and requests that failed."""
    retries: int = 0
    prompt_tokens: int | None = None
    """None where the judge's server gives no usage."""
    output_tokens: int | None = None
    usd: float | None = None
    """None where the scenario gives no price for the judge."""
    inconsistent: float | None = None
    """Share of pairwise verdicts that changed with the order of the answers; each counts as a tie."""
    kappa: float | None = None
    """Cohen's kappa of the judge and the human labels, over `kappa_n` answers that have both."""
    kappa_n: int = 0


class Rescored(msgspec.Struct, frozen=True, kw_only=True):
    """The stored answers were scored again: when, by what, and where the scores before it are."""

    utc: str
    perfbench_version: str
    """Whose rules: a newer version may score the same answer otherwise."""
    command: list[str]
    scenario_file: str | None
    """Whose quality block was taken; None for the run's own."""
    changed: list[str]
    """What was not as before: keys of the quality block, `expected answers`."""
    kept: str
    """Folder in the run's: manifest, summary, scores and verdicts as they were."""


class ModelScored(msgspec.Struct, frozen=True, kw_only=True):
    """A metric that a local model computes: how it was, or why it was not."""

    signature: str | None = None
    """The model's folder and sha256, and the settings."""
    problem: str | None = None


class QualitySummary(msgspec.Struct, frozen=True, kw_only=True):
    """The spot-check of one variant, decided."""

    verdict: QualityVerdict
    """`reference` for the base variant, which the others are held against; `not comparable` for one that was asked something else."""
    reason: str
    n: int
    metrics: dict[str, Estimate]
    labels: dict[str, int]
    regressions: int | None = None
    """Samples that base passes and this variant does not."""
    improvements: int | None = None
    confusion: dict[str, dict[str, int]] | None = None
    metric: str | None = None
    """The metric that decides."""
    difference: Estimate | None = None
    """variant - base in that metric, over the samples that count."""
    mcnemar_p: float | None = None
    """Exact, two-sided; None where the metric is no share of samples. Above 0.05 does not mean equal."""
    n_to_decide: int | None = None
    """Samples that would decide an inconclusive verdict; None where it is decided, or where no number would do."""
    without_contaminated: dict[str, Estimate] | None = None
    """`metrics` without the samples that also stand in the training text; None when no training data was given."""
    gates: list[GateSummary] = []
    """Every metric that decides, each with its own verdict; one where the scenario names one."""
    slices: dict[str, dict[str, SliceSummary]] = {}
    """Slice column -> value -> the deciding metric there."""
    groups: int | None = None
    """Groups that the intervals count instead of samples; None where the scenario names none."""
    standard_errors: dict[str, float] = {}
    """Clustered standard error of each per-sample metric; empty without groups."""
    regressed: list[str] = []
    """Ids of the samples that base passes and this variant does not, in the file's order."""
    warnings: list[str] = []
    """What weakens the verdict, one sentence each: a weak metric alone, few groups."""
    not_run: dict[str, str] = {}
    """Metric -> why it was not run. Nothing is guessed for it."""
    signatures: dict[str, str] = {}
    """Metric -> the settings that it was computed with, where there is something to name: sacrebleu's signature, the model of BERTScore."""
    judge: JudgeSummary | None = None
    """None where no judge has judged this variant."""
    human: HumanSummary | None = None
    """None where nobody has looked at this variant's answers."""
