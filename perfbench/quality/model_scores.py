"""Scores that a local model gives, laid over records after all load has ended, whatever the task: BERTScore.

A model that cannot be loaded leaves its metric unrun, with the reason, and the run goes on: everything else has been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from perfbench.errors import ModelError, ScenarioError
from perfbench.quality import bertscore
from perfbench.quality.own_process import OwnProcessError
from perfbench.quality.translation import references_of
from perfbench.records import ModelScored, QualityRecord
from perfbench.scenario.quality import BertScore, QualityTask, Summarisation, Translation

Records = Mapping[str, Sequence[QualityRecord]]


def check_models(task: QualityTask) -> None:
    """Before anything starts. Raises ScenarioError for what is wrong with the models that score, MissingPartError where what runs them is not installed."""
    encoder = _encoder(task)
    findings = [] if encoder is None else list(bertscore.findings(encoder, "quality.task.bertscore"))
    if findings:
        raise ScenarioError("scenario", findings)


def has_models(task: QualityTask) -> bool:
    """Whether a model scores this task's answers."""
    return _encoder(task) is not None


def with_model_scores(task: QualityTask, records: Records) -> tuple[dict[str, list[QualityRecord]], dict[str, ModelScored]]:
    """The records with the models' scores, and metric -> how it was computed, or why it was not. Applying it twice changes nothing more."""
    every = [record for part in records.values() for record in part]
    how: dict[str, ModelScored] = {}
    encoder = _encoder(task)
    if encoder is not None and every:
        every, how[bertscore.METRIC] = _with_bertscore(encoder, every)
    left = iter(every)
    return {name: [next(left) for _ in part] for name, part in records.items()}, how


def _with_bertscore(encoder: BertScore, records: Sequence[QualityRecord]) -> tuple[list[QualityRecord], ModelScored]:
    asked = [number for number, record in enumerate(records) if not record.must_refuse]
    pairs = [bertscore.Pair(records[number].output or "", references_of(records[number].expected)) for number in asked]
    samples = {records[number].sample_id: pair.references for number, pair in zip(asked, pairs, strict=True)}
    try:
        values, told = bertscore.score(encoder, pairs, [text for references in samples.values() for text in references])
    except OwnProcessError as error:
        return list(records), ModelScored(problem=f"the process that computes it {error}")
    except (ModelError, ValueError) as error:
        return list(records), ModelScored(problem=str(error))
    found = list(records)
    for number, value in zip(asked, values, strict=True):
        found[number] = msgspec.structs.replace(records[number], scores={**records[number].scores, bertscore.METRIC: value})
    return found, ModelScored(signature=told)


def _encoder(task: QualityTask) -> BertScore | None:
    return task.bertscore if isinstance(task, Summarisation | Translation) else None
