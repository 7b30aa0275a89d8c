"""What the checks of answers leave behind: one held-out sample, and the reference's opinion of a variant."""

from __future__ import annotations

from typing import Literal

import msgspec


class QualityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out sample answered by one variant."""

    sample_id: str
    variant: str
    prompt: str
    """The messages as sent, as JSON."""
    prompt_sha256: str
    expected: str
    """The expected label, or the expected fields as JSON."""
    output: str | None
    """None when the request failed; `error` then says why."""
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    scores: dict[str, float] = {}
    """Per-sample scores in 0..1, by the names of the task's per-sample metrics."""
    passed: bool
    label: str
    """One of quality.tasks.LABELS: `correct answer`, `invalid JSON`, ..."""
    contaminated: bool | None = None
    """Equal to a training row after normalisation; None when no training data was given."""


class ReferenceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How probable the reference finds the tokens that a server answered with, for one variant."""

    variant: str
    verdict: Literal["pass", "fail", "skipped"]
    reason: str
    prompts: int = 0
    tokens: int = 0
    mean_logprob: float | None = None
    worst_logprob: float | None = None
    top1_share: float | None = None
    """Share of served tokens that are the reference's own first choice."""
    examples: list[dict[str, str]] = []
    """[{prompt, served, reference}]: texts side by side."""
