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
    """What was expected, as text: a label, an object or a list as JSON, a reference answer."""
    output: str | None
    """None when the request failed; `error` then says why."""
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    scores: dict[str, float] = {}
    """Per-sample scores in 0..1, by the names of the task's per-sample metrics."""
    passed: bool | None
    """None where only a judge can say, and has not."""
    label: str
    """One of quality.labels.LABELS: `correct answer`, `invalid JSON`, ..."""
    contaminated: bool | None = None
    """Equal to a training row after normalisation; None when no training data was given."""
    template_sha256: str = ""
    """Of the templates that made the prompt."""
    decoding_sha256: str = ""
    """Of every decoding setting but the seed."""
    seed: int | None = None
    slices: dict[str, str] = {}
    """Slice column -> this sample's value in it."""
    group: str | None = None
    """Samples with the same group are not independent; None where the scenario names no groups."""
    must_refuse: bool = False
    """Right when refused. Such a record has the score `refused_when_due` and no other."""
    details: dict[str, str] = {}
    """What a person who looks at the sample wants to know: constraints that were broken, a judge's reason, a test's output."""
    attempts: list[str | None] = []
    """All answers where a task asks more than once; the first is `output`. Else empty."""


JudgeKind = Literal["rubric", "pairwise", "correctness", "faithfulness"]


class JudgeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict of the judge as it came, so that it can be read again."""

    sample_id: str
    variant: str
    kind: JudgeKind
    first: str = ""
    """Pairwise only: the variant whose answer stood first."""
    prompt: str
    """What the judge was asked: the messages as JSON. Empty where it needed not be asked (equal answers)."""
    answer: str | None
    """What it answered, the last time it was asked; None when the request failed."""
    verdict: str | None = None
    """rubric: `1` to `5`; pairwise: the better variant, or `tie`; correctness: `correct` or `incorrect`; faithfulness: `3 of 4 claims`. None: unread."""
    score: float | None = None
    """The verdict in 0..1; pairwise: 1 where the judged variant is better, 0 where base is, 0.5 for a tie."""
    reason: str = ""
    problem: str = ""
    """The error label that the verdict comes with."""
    retries: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    """Over all times it was asked."""
    output_tokens: int | None = None


class HumanLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of one answer of a finished run."""

    sample_id: str
    variant: str
    score: float
    """In 0..1: right or wrong is 1 or 0, one to five stars are 0, 0.25, ... 1."""
    comment: str = ""
    by: str = ""


class BlindKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which answer each row of an exported sheet is; it stays in the run folder."""

    sheet: str
    """Begins every key of the sheet."""
    seed: int
    rows: dict[str, list[str]]
    """key -> [sample_id, variant]."""


class HumanSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What people say of one variant's answers, beside the automatic verdict."""

    n: int
    """Labels; an answer that two people looked at counts twice."""
    people: int
    mean_score: float
    agreement: float | None
    """Share of labels that say what the automatic verdict says, over answers that have one."""
    kappa: float | None
    """Cohen's; None where chance explains everything."""


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One public benchmark of one variant, with what it is for and where it misleads."""

    task: str
    variant: str
    tool: str
    tool_version: str
    task_file: str
    api: str
    metrics: dict[str, list[float | None]]
    """Name -> [value, standard error or None], as the tool gives them."""
    n: int | None
    """Samples."""
    goal: str
    caution: str
    own_task_checked: bool
    """False where somebody went ahead without it."""
    command: list[str]
    samples: list[str] = []
    """Files with every sample."""


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
