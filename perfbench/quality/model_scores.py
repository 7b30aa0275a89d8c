"""Scores that local models give, laid over records after all load has ended: BERTScore of summaries and translations, COMET of translations.

A model that cannot be loaded leaves its metric unrun, with the reason, and the run goes on: everything else has been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from perfbench.errors import Finding, ModelError, ScenarioError
from perfbench.quality import bertscore, comet
from perfbench.quality.own_process import OwnProcessError
from perfbench.quality.rows import Row
from perfbench.quality.translation import references_of
from perfbench.records import ModelScored, QualityRecord
from perfbench.scenario.quality import QualityTask, Summarisation, Translation

Records = Mapping[str, Sequence[QualityRecord]]


def check_models(task: QualityTask) -> None:
    """Before anything starts. Raises ScenarioError for what is wrong with the models that score, MissingPartError where what runs them is not installed."""
    findings: list[Finding] = []
    if isinstance(task, Summarisation | Translation) and task.bertscore is not None:
        findings += bertscore.findings(task.bertscore, "quality.task.bertscore")
    if isinstance(task, Translation) and task.comet is not None:
        findings += comet.findings(task.comet, "quality.task.comet")
    if findings:
        raise ScenarioError("scenario", findings)


def has_models(task: QualityTask) -> bool:
    """Whether a model scores this task's answers."""
    return bool(_metrics(task))


def with_model_scores(task: QualityTask, records: Records, rows: Mapping[str, Row]) -> tuple[dict[str, list[QualityRecord]], dict[str, ModelScored]]:
    """The records with the models' scores, and metric -> how it was computed, or why it was not. Applying it twice changes nothing more.

    `rows` has the row of every sample.
    """
    every = [record for part in records.values() for record in part]
    asked = [number for number, record in enumerate(every) if not record.must_refuse]
    how: dict[str, ModelScored] = {}
    for metric in _metrics(task) if asked else ():
        how[metric], values = _scored(metric, task, [every[number] for number in asked], rows)
        for number, value in zip(asked, values, strict=False):
            every[number] = msgspec.structs.replace(every[number], scores={**every[number].scores, metric: value})
    left = iter(every)
    return {name: [next(left) for _ in part] for name, part in records.items()}, how


def _metrics(task: QualityTask) -> list[str]:
    return [metric for metric in (bertscore.METRIC, comet.METRIC) if getattr(task, metric, None) is not None]


def _scored(metric: str, task: QualityTask, records: Sequence[QualityRecord], rows: Mapping[str, Row]) -> tuple[ModelScored, list[float]]:
    """How a metric was computed, and its values; none where it was not."""
    pairs = [bertscore.Pair(record.output or "", references_of(record.expected)) for record in records]
    try:
        if isinstance(task, Translation) and task.comet is not None and metric == comet.METRIC:
            values, told = comet.score(task.comet, pairs, [str(rows[record.sample_id][task.source or ""]) for record in records])
        else:
            assert isinstance(task, Summarisation | Translation)
            assert task.bertscore is not None
            samples = {record.sample_id: pair.references for record, pair in zip(records, pairs, strict=True)}
            values, told = bertscore.score(task.bertscore, pairs, [text for references in samples.values() for text in references])
    except OwnProcessError as error:
        return ModelScored(problem=f"the process that computes it {error}"), []
    except (ModelError, ValueError) as error:
        return ModelScored(problem=str(error)), []
    return ModelScored(signature=told), values
