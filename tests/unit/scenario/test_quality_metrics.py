"""A metric that does not fit its task is refused with a sentence; deployment metrics are never quality; weak metrics are warned about."""

from typing import Any

import pytest

from perfbench.analyse.metrics import BY_NAME
from perfbench.quality.constraints import KINDS
from perfbench.scenario.quality import TASKS
from perfbench.scenario.quality_metrics import JUDGED, QUALITY_METRICS, WEAK, quality_findings, quality_warnings


def problems(task: str, metric: str | None = None, *, metrics: Any = None, must_refuse: str | None = None, **keys: Any) -> dict[str, str]:
    quality = {"task": {"task": task, **keys}, "metric": metric, "metrics": metrics, "must_refuse": must_refuse}
    return {finding.key: finding.problem for finding in quality_findings({"quality": quality})}


def test_every_task_has_metrics_and_every_metric_a_task() -> None:
    assert set(QUALITY_METRICS) >= set(TASKS)
    known = {metric for metrics in QUALITY_METRICS.values() for metric in metrics}
    assert set(WEAK) <= known
    assert set(JUDGED) <= known
    assert KINDS


@pytest.mark.parametrize("metric", sorted(BY_NAME))
def test_deployment_metrics_are_never_quality(metric: str) -> None:
    for task in TASKS:
        said = problems(task, metric)["quality.metric"]
        assert "deployment metrics are never quality" in said, said
        assert "`slo`" in said


@pytest.mark.parametrize(
    ("task", "metric", "says"),
    [
        ("classification", "bleu", "does not fit task `classification`; expected one of accuracy"),
        ("translation", "accuracy", "does not fit task `translation`"),
        ("qa", "rubric_score", "does not fit task `qa`"),
        ("rag", "context_recall", "the same for every variant, so it decides nothing"),
        ("extraction", "schema_validity", "needs `quality.task.json_schema`"),
        ("summarisation", "coverage", "needs `quality.task.key_points`"),
        ("qa", "refused_when_due", "needs `quality.must_refuse`"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(task: str, metric: str, says: str) -> None:
    assert says in problems(task, metric)["quality.metric"]


def test_a_default_that_cannot_be_measured_names_the_others() -> None:
    assert "add it, or choose another metric: faithfulness, rouge1" in problems("summarisation")["quality.metric"]
    assert problems("summarisation", key_points="points") == {}
    assert problems("summarisation", "length_ok", min_words=3) == {}


def test_several_metrics() -> None:
    assert problems("qa", metrics=["exact_match", {"metric": "token_f1"}]) == {}
    found = problems("qa", metrics=["exact_match", "bleu", "exact_match", "refused_when_due"])
    assert set(found) == {"quality.metrics[1]", "quality.metrics[2]", "quality.metrics[3]"}
    assert "twice" in found["quality.metrics[2]"]
    assert "one of the two" in problems("qa", "exact_match", metrics=["token_f1"])["quality.metric"]
    assert problems("qa", metrics=["exact_match", "refused_when_due"], must_refuse="unsafe") == {}


def test_weak_metrics_alone_are_warned_about() -> None:
    def warned(task: str, **keys: Any) -> list[str]:
        return quality_warnings({"task": {"task": task}, **keys})

    assert "bleu counts words in common" in warned("translation", metric="bleu")[0]
    assert "Decide by coverage or faithfulness" in warned("summarisation", metric="rouge1")[0]
    assert "rouge1" in warned("summarisation", metrics=[{"metric": "rouge1"}, {"metric": "rouge2"}])[0]
    assert warned("summarisation", metrics=["rouge1", "coverage"]) == []
    assert all(warned(task) == [] for task in TASKS)
