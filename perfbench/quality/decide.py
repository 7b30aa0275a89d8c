"""From scored records to a verdict. Pure: it reads records, starts nothing, and gives the same answer every time.

The question is non-inferiority, with the margin fixed in the scenario before the run, one-sided alpha 0.05:

    pass          the 90% interval of (variant - base) lies above -margin: it is not worse than base by the margin or more
    fail          the interval lies below -margin; or the metric itself lies below `minimum`
    inconclusive  neither: too few samples (the reason says how many would do)
    not comparable  base was asked something else: other prompts, template, decoding or seed
    reference     base, which the others are held against

Without base (an endpoint alone) `minimum` decides: below it fails; above it passes if the one-sided 95% limit is above it too.
Which interval: see `measures`. Samples that also stand in the training text are reported and left out of the verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from perfbench.quality.fairness import not_comparable
from perfbench.quality.intervals import mcnemar_p, n_to_decide, share_variance, tango, wilson
from perfbench.quality.labels import LABELS
from perfbench.quality.measures import confusion_of, estimates, known_labels_of, paired_difference
from perfbench.records import Estimate, QualityRecord, QualitySummary, QualityVerdict
from perfbench.scenario.combinations import QUALITY_METRICS
from perfbench.scenario.quality import Quality

_MANY = 1_000_000


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and what it rests on."""

    verdict: QualityVerdict
    reason: str
    difference: Estimate | None = None
    n_to_decide: int | None = None
    mcnemar_p: float | None = None


class Equivalence(msgspec.Struct, frozen=True, kw_only=True):
    """Whether two variants that should be the same (adapter and merged) are: TOST on what they pass, and how often they flip.

    Byte equality is no criterion: adapter and merged add in another order, so even greedy answers differ (vllm#5148, peft#1904).
    """

    verdict: Literal["same", "different", "cannot tell"]
    """same: the 90% interval of the difference lies inside +-margin. different: outside of it. cannot tell: across."""
    n: int
    flip_rate: Estimate
    """Share of samples that one passes and the other does not, with Wilson's interval."""
    differing_outputs: int
    """Samples whose texts are not equal, whether that matters or not."""
    difference: float
    """right - left, of the share that passes."""
    ci90_low: float
    ci90_high: float
    n_to_decide: int | None


def deciding_metric(quality: Quality) -> str:
    """The scenario's metric, else the task's default."""
    return quality.metric or QUALITY_METRICS[quality.task.task][0]


def decide(base: Sequence[QualityRecord] | None, records: Sequence[QualityRecord], quality: Quality) -> QualitySummary:
    """All metrics of one variant with 95% intervals, and its verdict; `base` is None where the run has none.

    `metrics` and `labels` are over all samples, `without_contaminated` and the verdict over those that are not in the training text.
    """
    task, metric, known = quality.task.task, deciding_metric(quality), known_labels_of(quality, records)
    clean = [record for record in records if not record.contaminated]
    flagged = len(records) - len(clean)
    metrics = estimates(records, task, known)
    cleaned = estimates(clean, task, known) if flagged else metrics
    without = cleaned if records and all(record.contaminated is not None for record in records) else None
    ruling = _rule(base, clean, cleaned.get(metric), quality, known)
    note = f"; {flagged} of {len(records)} samples also stand in the training text and are left out of the verdict" if flagged else ""
    held_against = base if base is not None and records and records[0].variant != "base" and not not_comparable(base, records) else None
    return QualitySummary(
        verdict=ruling.verdict,
        reason=ruling.reason + note,
        n=len(records),
        metrics=metrics,
        labels=dict(sorted(Counter(record.label for record in records).items(), key=lambda item: LABELS.index(item[0]))),
        regressions=None if held_against is None else len(regressions(held_against, records)),
        improvements=None if held_against is None else len(regressions(records, held_against)),
        confusion=confusion_of(records, known) if task == "classification" else None,
        metric=metric,
        difference=ruling.difference,
        mcnemar_p=ruling.mcnemar_p,
        n_to_decide=ruling.n_to_decide,
        without_contaminated=without,
    )


def _rule(
    base: Sequence[QualityRecord] | None, clean: Sequence[QualityRecord], estimate: Estimate | None, quality: Quality, known: Sequence[str]
) -> Ruling:
    """The verdict over the samples that count; `estimate` is the deciding metric over them."""
    metric, minimum = deciding_metric(quality), quality.minimum
    if not clean or estimate is None or estimate.value is None:
        return Ruling(verdict="inconclusive", reason="no sample is left to decide by")
    below = minimum is not None and estimate.value < minimum
    if clean[0].variant == "base":
        note = f"; its {metric} {estimate.value:.3f} lies below the minimum of {minimum:.3f}" if below else ""
        return Ruling(verdict="reference", reason=f"the other variants are held against it{note}")
    against = _against_base(base, clean, quality, known)
    if below:
        reason = f"{metric} {estimate.value:.3f} lies below the minimum of {minimum:.3f}"
        return Ruling(verdict="fail", reason=reason, difference=against.difference, mcnemar_p=against.mcnemar_p)
    if base is None and minimum is not None:
        return _against_minimum(metric, minimum, clean, estimate)
    return against


def _against_base(base: Sequence[QualityRecord] | None, clean: Sequence[QualityRecord], quality: Quality, known: Sequence[str]) -> Ruling:
    if base is None:
        return Ruling(verdict="inconclusive", reason="the run has no base to hold it against; add the variant `base`, or give `quality.minimum`")
    ids = {record.sample_id for record in clean}
    kept = [record for record in base if record.sample_id in ids]
    problem = not_comparable(kept, clean)
    if problem is not None:
        return Ruling(verdict="not comparable", reason=f"not comparable with base: {problem}")
    metric, margin = deciding_metric(quality), quality.margin
    paired = paired_difference(kept, clean, metric, known)
    low, high = paired.ci90
    told = f"{metric} differs from base by {paired.value:+.3f} (90% interval {low:+.3f} to {high:+.3f})"
    verdict: QualityVerdict = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    where = {"pass": "above", "fail": "below", "inconclusive": "across"}[verdict]
    needed = n_to_decide(paired.value, paired.variance, margin) if verdict == "inconclusive" else None
    b, c = paired.only_base, paired.only_variant
    return Ruling(
        verdict=verdict,
        reason=f"{told}, {where} the margin of {-margin:+.3f}{_needed(needed) if verdict == 'inconclusive' else ''}",
        difference=Estimate(value=paired.value, ci95_low=paired.ci95[0], ci95_high=paired.ci95[1]),
        n_to_decide=needed,
        mcnemar_p=None if b is None or c is None else mcnemar_p(b, c),
    )


def _against_minimum(metric: str, minimum: float, clean: Sequence[QualityRecord], estimate: Estimate) -> Ruling:
    """No base: the minimum decides. The 90% limit is Wilson's for shares; else the (wider) 95% interval stands in for it."""
    value, n = estimate.value or 0.0, len(clean)
    shares = metric in clean[0].scores and all(record.scores[metric] in (0.0, 1.0) for record in clean)
    low = wilson(value * n, n, 0.90)[0] if shares else estimate.ci95_low or 0.0
    if low >= minimum:
        return Ruling(verdict="pass", reason=f"no base in this run; {metric} {value:.3f} (at least {low:.3f}) reaches the minimum of {minimum:.3f}")
    needed = n_to_decide(value - minimum, value * (1 - value), 0.0)
    reason = f"no base in this run; {metric} {value:.3f} reaches the minimum of {minimum:.3f}, its lower limit {low:.3f} does not{_needed(needed)}"
    return Ruling(verdict="inconclusive", reason=reason, n_to_decide=needed)


def _needed(n: int | None) -> str:
    if n is None or n > _MANY:
        return "; no practical number of samples would decide, the difference lies on the margin"
    return f"; about {n:,} samples would decide, if the difference stays as it is"


def regressions(base: Sequence[QualityRecord], records: Sequence[QualityRecord]) -> list[str]:
    """Ids of the samples that `base` passes and `records` do not (label `regression from base`), in the order of `records`."""
    passed = {record.sample_id for record in base if record.passed}
    return [record.sample_id for record in records if record.passed is False and record.sample_id in passed]


def equivalent(left: Sequence[QualityRecord], right: Sequence[QualityRecord], margin: float) -> Equivalence:
    """Two one-sided tests at alpha 0.05 each, as a 90% Tango interval inside +-margin, on `passed`.

    Raises ValueError where the two were not asked the same samples.
    """
    problem = not_comparable(left, right)
    if problem is not None or not left:
        raise ValueError(problem or "there are no samples")
    by_id = {record.sample_id: record for record in left}
    pairs = [(by_id[record.sample_id], record) for record in right]
    b = sum(before.passed is True and after.passed is False for before, after in pairs)
    c = sum(after.passed is True and before.passed is False for before, after in pairs)
    n = len(pairs)
    low, high = tango(b, c, n, 0.90)
    flip_low, flip_high = wilson(b + c, n)
    inside, outside = -margin < low and high < margin, high < -margin or low > margin
    verdict: Literal["same", "different", "cannot tell"] = "same" if inside else "different" if outside else "cannot tell"
    nearer = n_to_decide(-abs(c - b) / n, share_variance(b, c, n), margin)
    return Equivalence(
        verdict=verdict,
        n=n,
        flip_rate=Estimate(value=(b + c) / n, ci95_low=flip_low, ci95_high=flip_high),
        differing_outputs=sum(before.output != after.output for before, after in pairs),
        difference=(c - b) / n,
        ci90_low=low,
        ci90_high=high,
        n_to_decide=nearer if verdict == "cannot tell" else None,
    )
