"""Metrics of a set of records, with 95% intervals, and the paired difference of one metric. Pure.

A metric is one of four kinds, and the kind says which interval is right:

    share      each sample passes or fails: Wilson alone, Tango in pairs
    mean       each sample has a score in 0..1: BCa bootstrap of the mean, alone and in pairs
    whole      made from the whole set (F1 over classes, BLEU, chrF): bootstrap over samples, both variants drawn together
    win rate   what a judge says of a pair: 1 won, 0.5 tie, 0 lost against base; BCa bootstrap of the mean, its difference is that from 0.5

Where the scenario names groups, samples of one group are not independent: every kind then gets a bootstrap that draws whole groups.
A sample counts for a metric only if it has the score: one that must be refused has one of its own, one without a verdict none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from perfbench.quality import classification, translation
from perfbench.quality.intervals import (
    Array,
    Draws,
    Interval,
    as_floats,
    clustered_standard_error,
    mean_interval,
    normal_quantile,
    share_variance,
    tango,
    weighted_mean,
    wilson,
)
from perfbench.records import Estimate, QualityRecord
from perfbench.scenario.quality import Classification, Quality, QualityTask, Translation

SHARES = (
    "accuracy", "exact_match", "json_validity", "schema_validity", "contains", "length_ok", "prompt_strict", "prompt_loose",
    "answer_correctness", "refused_when_due",
    "tests_pass", "visible_pass",
)  # fmt: skip
WIN_RATE = "win_rate"
Records = Sequence[QualityRecord]


@dataclass(frozen=True)
class Reading:
    """How records of a run are read: its task, and the labels that a classification's answers are read against (over all samples)."""

    task: QualityTask
    known: tuple[str, ...]


@dataclass(frozen=True)
class Paired:
    """variant - base over the same samples: the estimate, its interval at any level, the variance of one sample's difference."""

    value: float
    n: int
    variance: float
    interval: Callable[[float], Interval]
    only_base: int | None = None
    """Shares of independent samples only: samples that base alone passes (b), and the variant alone (c)."""
    only_variant: int | None = None


def reading_of(quality: Quality, records: Records) -> Reading:
    """How `records` are read; give it all of them, before any is left out."""
    if not isinstance(quality.task, Classification):
        return Reading(quality.task, ())
    return Reading(quality.task, classification.known_labels(quality.task.labels, [record.expected for record in records if not record.must_refuse]))


def estimates(records: Records, reading: Reading) -> dict[str, Estimate]:
    """Every metric that the records hold, by name. Empty for no records."""
    found: dict[str, Estimate] = {}
    for name in dict.fromkeys(name for record in records for name in record.scores):
        scored = [record for record in records if name in record.scores]
        values, clusters = scores_of(scored, name), clusters_of(scored)
        if clusters is not None:
            interval = Draws(weighted_mean(values), len(values), as_floats([values.mean()]), clusters).intervals()[0]
        elif name in SHARES:
            interval = wilson(float(values.sum()), len(values))
        else:
            interval = mean_interval(values)
        found[name] = _estimate(float(values.mean()), interval)
    answerable = [record for record in records if not record.must_refuse]
    names = whole_metrics(reading.task)
    if names and answerable:
        statistics, n = _whole(answerable, reading), len(answerable)
        whole = statistics(np.ones((1, n)))[0]
        intervals = Draws(statistics, n, whole, clusters_of(answerable)).intervals()
        found |= {name: _estimate(value, interval) for name, value, interval in zip(names, whole.tolist(), intervals, strict=True)}
    return found


def standard_errors(records: Records) -> dict[str, float]:
    """Clustered standard error of every per-sample metric; empty where the samples come in no groups."""
    errors: dict[str, float] = {}
    for name in dict.fromkeys(name for record in records for name in record.scores):
        scored = [record for record in records if name in record.scores]
        clusters = clusters_of(scored)
        if clusters is not None:
            errors[name] = clustered_standard_error(scores_of(scored, name), clusters)
    return errors


def whole_metrics(task: QualityTask) -> tuple[str, ...]:
    """Names of the task's metrics that are made from the whole set."""
    if isinstance(task, Classification):
        return classification.CLASS_METRICS
    return translation.CORPUS_METRICS if isinstance(task, Translation) else ()


def _whole(records: Records, reading: Reading) -> Callable[[Array], Array]:
    """`whole_metrics` as a function of sample weights: resamples x n -> resamples x metrics."""
    expected = [record.expected for record in records]
    if isinstance(reading.task, Translation):
        return translation.corpus_statistics(expected, [record.output for record in records], reading.task.tokenizer)
    return classification.class_statistics(expected, predictions(records, reading.known), reading.known)


def paired_difference(base: Records, records: Records, metric: str, reading: Reading) -> Paired:
    """The difference of one metric over the samples that both have, paired by id. Raises ValueError where they have none in common."""
    by_id = {record.sample_id: record for record in base}
    bear = [record for record in records if record.sample_id in by_id and _bears_on(metric, record, reading.task)]
    pairs = [(by_id[record.sample_id], record) for record in bear if metric == WIN_RATE or _bears_on(metric, by_id[record.sample_id], reading.task)]
    if not pairs:
        raise ValueError(f"the variants have no sample in common that {metric} is measured on")
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    clusters, n = clusters_of(right), len(pairs)
    if metric in whole_metrics(reading.task):
        return _paired_whole(left, right, metric, reading)
    if metric == WIN_RATE:
        differences = scores_of(right, metric) - 0.5
    else:
        before, after = scores_of(left, metric), scores_of(right, metric)
        if metric in SHARES and clusters is None:
            b, c = int(((before == 1) & (after != 1)).sum()), int(((after == 1) & (before != 1)).sum())
            return Paired((c - b) / n, n, share_variance(b, c, n), cache(lambda level: tango(b, c, n, level)), b, c)
        differences = after - before
    value = float(differences.mean())
    if clusters is None:
        return Paired(value, n, float(differences.var()), cache(lambda level: mean_interval(differences, level)))
    draws = Draws(weighted_mean(differences), n, as_floats([value]), clusters)
    error = clustered_standard_error(differences, clusters)
    return Paired(value, n, n * error**2 or 3 / len(set(clusters)), lambda level: draws.intervals(level)[0])


def _paired_whole(left: Records, right: Records, metric: str, reading: Reading) -> Paired:
    column, n = whole_metrics(reading.task).index(metric), len(left)
    before, after = _whole(left, reading), _whole(right, reading)

    def difference(weights: Array) -> Array:
        return (after(weights) - before(weights))[:, [column]]

    values = difference(np.ones((1, n)))[0]
    draws = Draws(difference, n, values, clusters_of(right))
    low, high = draws.intervals()[0]
    standard_error = (high - low) / (2 * normal_quantile(0.95))
    return Paired(float(values[0]), n, n * standard_error**2, lambda level: draws.intervals(level)[0])


def predictions(records: Records, known: Sequence[str]) -> list[str]:
    """The label that each answer gives; a failed request is `unparsed`."""
    return [classification.UNPARSED if record.output is None else classification.predict(record.output, known) for record in records]


def confusion_of(records: Records, known: Sequence[str]) -> dict[str, dict[str, int]]:
    """expected -> predicted -> samples."""
    records = [record for record in records if not record.must_refuse]
    return classification.confusion([record.expected for record in records], predictions(records, known))


def clusters_of(records: Records) -> list[int] | None:
    """The group of every record as a number from 0, or None where they come in no groups."""
    if not records or any(record.group is None for record in records):
        return None
    numbers: dict[str | None, int] = {}
    return [numbers.setdefault(record.group, len(numbers)) for record in records]


def scores_of(records: Records, name: str) -> Array:
    """One score of every record."""
    return as_floats([record.scores[name] for record in records])


def _bears_on(metric: str, record: QualityRecord, task: QualityTask) -> bool:
    return metric in record.scores or (metric in whole_metrics(task) and not record.must_refuse)


def _estimate(value: float, interval: Interval) -> Estimate:
    return Estimate(value=value, ci95_low=max(0.0, interval[0]), ci95_high=min(1.0, interval[1]))
