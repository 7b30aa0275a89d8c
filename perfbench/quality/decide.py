"""From scored records to a verdict. Pure: it reads records, starts nothing, and gives the same answer every time.

The question is non-inferiority, with the margin fixed in the scenario before the run, one-sided alpha 0.05:

    pass            the 90% interval of (variant - base) lies above -margin: it is not worse than base by the margin or more
    fail            the interval lies below -margin; or the metric itself lies below `minimum`
    inconclusive    neither: too few samples (the reason says how many would do), or the metric was not run; or both score so near to 0, within the
                    margin, that nothing could be worse by it: two models that cannot do the task are no pass
    not comparable  base was asked something else: other prompts, template, decoding or seed
    reference       base, which the others are held against

Several metrics (`metrics`) decide by Holm's step-down rule (Holm 1979), once for passing and once for failing, so that the chance of any wrong
claim stays at 0.05 in each direction: of m metrics the clearest must show at alpha / m, the next at alpha / (m - 1), and so on. As intervals:
a metric is decided when its two-sided interval at level 1 - 2 alpha / (metrics left) clears the margin. All must pass; one that fails, fails all.

Without base (an endpoint alone) `minimum` decides: below it fails; above it passes if the one-sided 95% limit is above it too.
Which interval: see `measures`. Samples that also stand in the training text are reported and left out of the verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from perfbench.quality.fairness import not_comparable
from perfbench.quality.intervals import mcnemar_p, n_to_decide, wilson
from perfbench.quality.labels import LABELS
from perfbench.quality.measures import (
    SHARES,
    WIN_RATE,
    Paired,
    Reading,
    clusters_of,
    confusion_of,
    estimates,
    paired_difference,
    reading_of,
    scores_of,
    standard_errors,
)
from perfbench.records import Estimate, GateSummary, JudgeSummary, ModelScored, QualityRecord, QualitySummary, QualityVerdict, SliceSummary
from perfbench.scenario.quality import Classification, Quality, Translation
from perfbench.scenario.quality_metrics import JUDGED, QUALITY_METRICS, quality_warnings

ALPHA = 0.05
"""One-sided."""
FEW_GROUPS = 20
_FICKLE = 0.5
_SOME = 10
"""Verdicts, before their all being the same says something of the judge."""
_MANY = 1_000_000
Records = Sequence[QualityRecord]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and what it rests on."""

    verdict: QualityVerdict
    reason: str
    gates: list[GateSummary] = []
    n_to_decide: int | None = None


def gates_of(quality: Quality) -> list[tuple[str, float]]:
    """(metric, margin) of every metric that decides; the first is the one that slices, tables and `minimum` look at."""
    if quality.metrics is not None:
        return [(gate.metric, gate.margin or quality.margin) for gate in quality.metrics]
    return [(quality.metric or QUALITY_METRICS[quality.task.task][0], quality.margin)]


def deciding_metric(quality: Quality) -> str:
    """The first metric that decides."""
    return gates_of(quality)[0][0]


def decide(
    base: Records | None, records: Records, quality: Quality, judge: JudgeSummary | None = None, models: Mapping[str, ModelScored] | None = None
) -> QualitySummary:
    """All metrics of one variant with 95% intervals, and its verdict; `base` is None where the run has none. `models`: how the metrics that one
    computes were computed.

    `metrics` and `labels` are over all samples; `without_contaminated`, slices and the verdict over those that are not in the training text.
    """
    reading, metric = reading_of(quality, records), deciding_metric(quality)
    clean = [record for record in records if not record.contaminated]
    flagged = len(records) - len(clean)
    metrics = estimates(records, reading)
    cleaned = estimates(clean, reading) if flagged else metrics
    kept, problem = _counterpart(base, clean)
    missing = _not_run(quality, metrics, models or {}, is_base=bool(records) and records[0].variant == "base")
    verdict = _verdict(kept if base is not None else None, problem, clean, cleaned, quality, reading, missing)
    note = f"; {flagged} of {len(records)} samples also stand in the training text and are left out of the verdict" if flagged else ""
    held_against = base if base is not None and records and records[0].variant != "base" and not not_comparable(base, records) else None
    first = verdict.gates[0] if verdict.gates else None
    clusters = clusters_of(clean)
    groups = None if clusters is None else len(set(clusters))
    lost = [] if held_against is None else regressions(held_against, records)
    return QualitySummary(
        verdict=verdict.verdict,
        reason=verdict.reason + note,
        n=len(records),
        metrics=metrics,
        labels=dict(sorted(Counter(record.label for record in records).items(), key=lambda item: LABELS.index(item[0]))),
        regressions=None if held_against is None else len(lost),
        improvements=None if held_against is None else len(regressions(records, held_against)),
        confusion=confusion_of(records, reading.known) if isinstance(quality.task, Classification) else None,
        metric=metric,
        difference=first.difference if first else None,
        mcnemar_p=first.mcnemar_p if first else None,
        n_to_decide=verdict.n_to_decide,
        without_contaminated=cleaned if records and all(record.contaminated is not None for record in records) else None,
        gates=verdict.gates,
        slices=slices_of(kept if held_against is not None else None, clean, quality, reading),
        groups=groups,
        standard_errors=standard_errors(clean),
        regressed=lost,
        warnings=[*_warnings(quality, groups), *_doubts(judge, records)],
        not_run=missing,
        signatures=_signatures(quality, records, metrics, models or {}),
        judge=judge,
    )


def _signatures(quality: Quality, records: Records, metrics: Collection[str], models: Mapping[str, ModelScored]) -> dict[str, str]:
    """How the corpus metrics of a translation were computed, in their library's own words; which model computed a metric."""
    found = {metric: how.signature for metric, how in models.items() if metric in metrics and how.signature is not None}
    if not isinstance(quality.task, Translation) or not records:
        return found
    from perfbench.quality.translation import references_of, signatures

    return {**signatures(quality.task.tokenizer, max(len(references_of(record.expected)) for record in records)), **found}


def _counterpart(base: Records | None, clean: Records) -> tuple[Records, str | None]:
    """Base's records of the samples that count, and why they cannot be compared, if so."""
    if base is None:
        return [], None
    ids = {record.sample_id for record in clean}
    kept = [record for record in base if record.sample_id in ids]
    return kept, not_comparable(kept, clean)


def _verdict(
    kept: Records | None, problem: str | None, clean: Records, cleaned: Mapping[str, Estimate], quality: Quality, reading: Reading, missing: Mapping[str, str]
) -> Verdict:
    """The verdict over the samples that count; `cleaned` are the metrics over them, `kept` what base said to them."""
    metric, minimum = deciding_metric(quality), quality.minimum
    if not clean:
        return Verdict(verdict="inconclusive", reason="no sample is left to decide by")
    estimate = cleaned.get(metric)
    value = estimate.value if estimate is not None else None
    below = minimum is not None and value is not None and value < minimum
    if clean[0].variant == "base":
        note = f"; its {metric} {value:.3f} lies below the minimum of {minimum:.3f}" if below else ""
        note = f"; {metric} was not run: {missing[metric]}" if metric in missing else note
        return Verdict(verdict="reference", reason=f"the other variants are held against it{note}")
    unavailable = next((name for name, _ in gates_of(quality) if name in missing or (name not in cleaned)), None)
    if unavailable is not None:
        return Verdict(verdict="inconclusive", reason=f"{unavailable} was not run: {missing.get(unavailable, 'no sample has it')}")
    assert estimate is not None
    against = _against_base(kept, problem, clean, cleaned, quality, reading)
    if below:
        reason = f"{metric} {value:.3f} lies below the minimum of {minimum:.3f}"
        return Verdict(verdict="fail", reason=reason, gates=against.gates)
    if kept is None and minimum is not None:
        return _against_minimum(metric, minimum, clean, estimate)
    return against


def _against_base(
    kept: Records | None, problem: str | None, clean: Records, cleaned: Mapping[str, Estimate], quality: Quality, reading: Reading
) -> Verdict:
    if kept is None:
        return Verdict(verdict="inconclusive", reason="the run has no base to hold it against; add the variant `base`, or give `quality.minimum`")
    if problem is not None:
        return Verdict(verdict="not comparable", reason=f"not comparable with base: {problem}")
    metrics = gates_of(quality)
    try:
        pairs = [paired_difference(kept, clean, metric, reading) for metric, _ in metrics]
    except ValueError as error:
        return Verdict(verdict="inconclusive", reason=str(error))
    found = holm(pairs, [margin for _, margin in metrics])
    gates = [_gate(metric, margin, pair, *ruling) for (metric, margin), pair, ruling in zip(metrics, pairs, found, strict=True)]
    gates = [_not_at_the_floor(gate, cleaned.get(gate.metric)) for gate in gates]
    verdicts = [gate.verdict for gate in gates]
    verdict: QualityVerdict = "fail" if "fail" in verdicts else "pass" if all(one == "pass" for one in verdicts) else "inconclusive"
    if len(gates) == 1:
        return Verdict(verdict=verdict, reason=gates[0].reason, gates=gates, n_to_decide=gates[0].n_to_decide)
    telling = [gate for gate in gates if gate.verdict == verdict]
    needed = [gate.n_to_decide for gate in telling if gate.n_to_decide is not None]
    reason = f"{len(telling)} of {len(gates)} metrics {verdict} (Holm's correction): " + "; ".join(gate.reason for gate in telling)
    return Verdict(verdict=verdict, reason=reason, gates=gates, n_to_decide=max(needed) if needed and len(needed) == len(telling) else None)


def holm(pairs: Sequence[Paired], margins: Sequence[float]) -> list[tuple[QualityVerdict, float]]:
    """The verdict of every metric by Holm's rule, and the level of the interval that it rests on."""
    found: list[tuple[QualityVerdict, float]] = [("inconclusive", 1 - 2 * ALPHA / len(pairs))] * len(pairs)
    sides: tuple[tuple[QualityVerdict, int], ...] = (("pass", 0), ("fail", 1))
    for verdict, side in sides:
        left = [number for number in range(len(pairs)) if found[number][0] == "inconclusive"]
        while left:
            level = 1 - 2 * ALPHA / len(left)
            ends = {number: pairs[number].interval(level)[side] for number in left}
            clear = [number for number in left if (ends[number] > -margins[number] if side == 0 else ends[number] < -margins[number])]
            for number in left:
                found[number] = (verdict if number in clear else "inconclusive", level)
            if not clear:
                break
            left = [number for number in left if number not in clear]
    return found


def _gate(metric: str, margin: float, pair: Paired, verdict: QualityVerdict, level: float) -> GateSummary:
    low, high = pair.interval(level)
    ci95 = pair.interval(0.95)
    told = f"{metric} differs from base by {pair.value:+.3f}" if metric != WIN_RATE else f"wins and half the ties against base are {pair.value:+.3f} off a half"
    where = {"pass": "above", "fail": "below"}.get(verdict, "across")
    needed = n_to_decide(pair.value, pair.variance, margin) if verdict == "inconclusive" else None
    b, c = pair.only_base, pair.only_variant
    interval = f"({100 * level:.3g}% interval {low:+.3f} to {high:+.3f})"
    return GateSummary(
        metric=metric,
        margin=margin,
        verdict=verdict,
        reason=f"{told} {interval}, {where} the margin of {-margin:+.3f}{samples_needed(needed) if verdict == 'inconclusive' else ''}",
        difference=Estimate(value=pair.value, ci95_low=ci95[0], ci95_high=ci95[1]),
        level=level,
        low=low,
        high=high,
        n=pair.n,
        n_to_decide=needed,
        mcnemar_p=None if b is None or c is None else mcnemar_p(b, c),
    )


def _not_at_the_floor(gate: GateSummary, own: Estimate | None) -> GateSummary:
    """Where base and the variant both lie within the margin of 0 a pass has shown nothing, and no number of samples would decide."""
    if gate.verdict == "fail" or gate.metric == WIN_RATE or own is None or own.value is None or gate.difference is None or gate.difference.value is None:
        return gate
    base = max(0.0, own.value - gate.difference.value)
    if max(base, own.value) > gate.margin:
        return gate
    reason = f"neither base nor this variant does the task: {gate.metric} is {base:.3f} and {own.value:.3f}, no more than the margin of {gate.margin:.3f}"
    return msgspec.structs.replace(gate, verdict="inconclusive", reason=reason, n_to_decide=None)


def _against_minimum(metric: str, minimum: float, clean: Records, estimate: Estimate) -> Verdict:
    """No base: the minimum decides. The 90% limit is Wilson's for shares; else the (wider) 95% interval stands in for it."""
    scored = [record for record in clean if metric in record.scores]
    value, n = estimate.value or 0.0, len(scored)
    share = metric in SHARES and bool(scored) and clusters_of(scored) is None
    low = wilson(float(scores_of(scored, metric).sum()), n, 0.90)[0] if share else estimate.ci95_low or 0.0
    if low >= minimum:
        return Verdict(verdict="pass", reason=f"no base in this run; {metric} {value:.3f} (at least {low:.3f}) reaches the minimum of {minimum:.3f}")
    needed = n_to_decide(value - minimum, value * (1 - value), 0.0)
    reason = f"no base in this run; {metric} {value:.3f} reaches the minimum of {minimum:.3f}, its lower limit {low:.3f} does not{samples_needed(needed)}"
    return Verdict(verdict="inconclusive", reason=reason, n_to_decide=needed)


def samples_needed(n: int | None) -> str:
    """How many would decide, as the end of an inconclusive verdict's reason."""
    if n is None or n > _MANY:
        return "; no practical number of samples would decide, the difference lies on the margin"
    return f"; about {n:,} samples would decide, if the difference stays as it is"


def slices_of(kept: Records | None, clean: Records, quality: Quality, reading: Reading) -> dict[str, dict[str, SliceSummary]]:
    """Column -> value -> the first deciding metric there, in the order in which values occur. They decide nothing, so nothing is corrected."""
    found: dict[str, dict[str, SliceSummary]] = {}
    metric = deciding_metric(quality)
    for column in quality.slices:
        parts: dict[str, list[QualityRecord]] = {}
        for record in clean:
            parts.setdefault(record.slices.get(column, ""), []).append(record)
        for value, part in parts.items():
            estimate = estimates(part, reading).get(metric)
            if estimate is None:
                continue
            found.setdefault(column, {})[value] = SliceSummary(n=len(part), value=estimate, difference=_slice_difference(kept, part, metric, reading))
    return found


def _slice_difference(kept: Records | None, part: Records, metric: str, reading: Reading) -> Estimate | None:
    if kept is None:
        return None
    try:
        pair = paired_difference(kept, part, metric, reading)
    except ValueError:
        return None
    low, high = pair.interval(0.95)
    return Estimate(value=pair.value, ci95_low=low, ci95_high=high)


def _not_run(quality: Quality, metrics: Mapping[str, Estimate], models: Mapping[str, ModelScored], *, is_base: bool) -> dict[str, str]:
    """Metrics of judges, people and models that have no value, each with the reason."""
    missing: dict[str, str] = {}
    for name in QUALITY_METRICS[quality.task.task]:
        if name in metrics or (name == WIN_RATE and is_base):
            continue
        if name in JUDGED:
            missing[name] = "no judge is configured; add `quality.judge`" if quality.judge is None else "the judge gave no verdict that could be read"
        elif name == "human_score":
            missing[name] = "no human labels have been imported"
        elif name in models:
            missing[name] = models[name].problem or "no sample has it"
    return missing


def _warnings(quality: Quality, groups: int | None) -> list[str]:
    found = quality_warnings(quality.model_dump(mode="json"))
    if groups is not None and groups < FEW_GROUPS:
        found.append(f"only {groups} groups: an interval that counts groups is too narrow below about {FEW_GROUPS}")
    return found


def _doubts(judge: JudgeSummary | None, records: Records) -> list[str]:
    """Signs that a judge does not judge."""
    if judge is None:
        return []
    found = []
    if judge.inconsistent is not None and judge.inconsistent > _FICKLE:
        found.append(f"the judge's pairwise verdicts changed with the order of the answers in {judge.inconsistent:.0%} of pairs: they say little")
    for metric in JUDGED:
        told = [record.scores[metric] for record in records if metric in record.scores and (record.output or "").strip()]
        if metric != WIN_RATE and len(told) >= _SOME and len(set(told)) == 1:
            found.append(f"the judge gave all {len(told)} answers the same {metric}: let people look at some (perfbench samples --blind)")
    return found


def regressions(base: Records, records: Records) -> list[str]:
    """Ids of the samples that `base` passes and `records` do not (label `regression from base`), in the order of `records`."""
    passed = {record.sample_id for record in base if record.passed}
    return [record.sample_id for record in records if record.passed is False and record.sample_id in passed]
