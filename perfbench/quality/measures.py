"""Metrics of a set of records, with 95% intervals, and the paired difference of one metric. Pure.

A metric is one of three kinds, and the kind says which interval is right:

    share      each sample passes or fails: Wilson alone, Tango in pairs
    mean       each sample has a score in 0..1: BCa bootstrap of the mean, alone and in pairs
    statistic  made from the whole set (precision, recall, F1 over classes): bootstrap over samples, both variants drawn together
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from perfbench.quality import classification
from perfbench.quality.intervals import Array, Interval, as_floats, mean_interval, normal_quantile, share_variance, tango, weighted_bootstrap, wilson
from perfbench.records import Estimate, QualityRecord
from perfbench.scenario.quality import Classification, Quality

SHARES = ("accuracy", "exact_match", "json_validity", "schema_validity", "contains", "refused_when_due")

CLASS_METRICS = ("macro_precision", "macro_recall", "macro_f1", "micro_precision", "micro_recall", "micro_f1")

Statistics = Callable[[Array], Array]


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """variant - base over the same samples: the estimate, its two intervals, the variance of one sample's difference."""

    value: float
    ci95: Interval
    ci90: Interval
    variance: float
    only_base: int | None = None
    """Shares only: samples that base alone passes (b), and the variant alone (c)."""
    only_variant: int | None = None


def known_labels_of(quality: Quality, records: Sequence[QualityRecord]) -> tuple[str, ...]:
    """The labels that a classification's answers are read against; () for other tasks."""
    if not isinstance(quality.task, Classification):
        return ()
    return classification.known_labels(quality.task.labels, [record.expected for record in records if not record.must_refuse])


def estimates(records: Sequence[QualityRecord], task: str, known: Sequence[str]) -> dict[str, Estimate]:
    """Every metric of the task by name. Empty for no records."""
    if not records:
        return {}
    found: dict[str, Estimate] = {}
    for name in dict.fromkeys(name for record in records for name in record.scores):
        values = _scores([record for record in records if name in record.scores], name)
        low, high = wilson(float(values.sum()), len(values)) if name in SHARES else _within_0_1(mean_interval(values))
        found[name] = Estimate(value=float(values.mean()), ci95_low=low, ci95_high=high)
    answerable = [record for record in records if not record.must_refuse]
    if task == "classification" and answerable:
        expected, predicted = _expected(answerable), predictions(answerable, known)
        values_of = classification.corpus_metrics(expected, predicted, known)
        whole = as_floats([values_of[name] for name in CLASS_METRICS])
        intervals = weighted_bootstrap(class_statistics(expected, predicted, known), len(answerable), whole)
        for name, value, interval in zip(CLASS_METRICS, whole.tolist(), intervals, strict=True):
            low, high = _within_0_1(interval)
            found[name] = Estimate(value=value, ci95_low=low, ci95_high=high)
    return found


def paired_difference(base: Sequence[QualityRecord], records: Sequence[QualityRecord], metric: str, known: Sequence[str]) -> Paired:
    """The difference of one metric over the samples that both have, paired by id. Raises ValueError where they have none in common."""
    by_id = {record.sample_id: record for record in base}
    pairs = [(by_id[record.sample_id], record) for record in records if record.sample_id in by_id and _bears_on(metric, record)]
    if not pairs:
        raise ValueError(f"the variants have no sample in common that {metric} is measured on")
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    n = len(pairs)
    if metric in SHARES:
        before, after = _scores(left, metric) == 1.0, _scores(right, metric) == 1.0
        b, c = int((before & ~after).sum()), int((after & ~before).sum())
        return Paired(
            value=(c - b) / n, ci95=tango(b, c, n), ci90=tango(b, c, n, 0.90), variance=share_variance(b, c, n), only_base=b, only_variant=c
        )
    if metric in right[0].scores:
        differences = _scores(right, metric) - _scores(left, metric)
        return Paired(
            value=float(differences.mean()), ci95=mean_interval(differences), ci90=mean_interval(differences, 0.90), variance=float(differences.var())
        )
    return _paired_statistic(left, right, metric, known)


def _paired_statistic(left: Sequence[QualityRecord], right: Sequence[QualityRecord], metric: str, known: Sequence[str]) -> Paired:
    expected, column = _expected(left), CLASS_METRICS.index(metric)
    before = class_statistics(expected, predictions(left, known), known)
    after = class_statistics(expected, predictions(right, known), known)
    n = len(left)

    def difference(weights: Array) -> Array:
        return (after(weights) - before(weights))[:, [column]]

    values = difference(np.ones((1, n)))[0]
    (ci95,), (ci90,) = weighted_bootstrap(difference, n, values), weighted_bootstrap(difference, n, values, 0.90)
    standard_error = (ci95[1] - ci95[0]) / (2 * normal_quantile(0.95))
    return Paired(value=float(values[0]), ci95=ci95, ci90=ci90, variance=n * standard_error**2)


def class_statistics(expected: Sequence[str], predicted: Sequence[str], known: Sequence[str]) -> Statistics:
    """CLASS_METRICS as a function of sample weights (resamples x n -> resamples x 6). With all weights 1 they are scikit-learn's.

    A class that a resample draws no expected sample of is left out of that resample's macro mean: its recall is undefined.
    """
    labels = sorted({*known, *expected})
    truth, guess = (as_floats([[label == name for name in labels] for label in column]).reshape(len(expected), -1) for column in (expected, predicted))

    def values(weights: Array) -> Array:
        hits, wanted, given = weights @ (truth * guess), weights @ truth, weights @ guess
        drawn = (wanted > 0).astype(float)
        macro = [(ratio * drawn).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1.0) for ratio in _ratios(hits, wanted, given)]
        return np.column_stack([*macro, *_ratios(hits.sum(axis=1), wanted.sum(axis=1), given.sum(axis=1))])

    return values


def _ratios(hits: Array, wanted: Array, given: Array) -> list[Array]:
    """Precision, recall and F1; nothing out of nothing is 0."""
    return [np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0) for top, bottom in ((hits, given), (hits, wanted), (2 * hits, wanted + given))]


def predictions(records: Sequence[QualityRecord], known: Sequence[str]) -> list[str]:
    """The label that each answer gives; a failed request is `unparsed`."""
    return [classification.UNPARSED if record.output is None else classification.predict(record.output, known) for record in records]


def confusion_of(records: Sequence[QualityRecord], known: Sequence[str]) -> dict[str, dict[str, int]]:
    """expected -> predicted -> samples."""
    records = [record for record in records if not record.must_refuse]
    return classification.confusion(_expected(records), predictions(records, known))


def _bears_on(metric: str, record: QualityRecord) -> bool:
    """Whether a sample counts for a metric: those that must be refused have a score of their own and no other."""
    return metric in record.scores or (metric in CLASS_METRICS and not record.must_refuse)


def _expected(records: Sequence[QualityRecord]) -> list[str]:
    return [record.expected for record in records]


def _scores(records: Sequence[QualityRecord], name: str) -> Array:
    return as_floats([record.scores[name] for record in records])


def _within_0_1(interval: Interval) -> Interval:
    return max(0.0, interval[0]), min(1.0, interval[1])
