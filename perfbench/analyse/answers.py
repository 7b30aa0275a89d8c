"""What the spot-check of a run comes to: every variant's records with what judges and people said, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from perfbench.analyse.experiment import Experiment
from perfbench.records import ModelScored, QualityRecord, QualitySummary, UnderLoad
from perfbench.results import RunFolder


def answers_of(folder: RunFolder, experiment: Experiment) -> dict[str, list[QualityRecord]]:
    """Every variant's records; people's labels are laid over them. A variant that was not checked has none."""
    found = {variant: folder.quality(variant) for variant in experiment.variants}
    labels = folder.human_labels()
    if not labels or experiment.quality is None:
        return found
    from perfbench.quality.judge_apply import with_human

    return {variant: with_human(records, labels, experiment.quality) for variant, records in found.items()}


def decided(folder: RunFolder, answers: Mapping[str, Sequence[QualityRecord]], variant: str, experiment: Experiment) -> QualitySummary | None:
    """The spot-check of one variant; None where there is none, or it has not finished."""
    quality, records = experiment.quality, answers[variant]
    if quality is None or not records:
        return None
    from perfbench.quality.blind import human_summary
    from perfbench.quality.decide import decide
    from perfbench.quality.judge_apply import summary_of

    judge = None if quality.judge is None else summary_of(quality.judge, folder.judged(variant), folder.human_labels(), quality)
    models = {metric: msgspec.convert(how, ModelScored) for metric, how in folder.finished("model_scored").items()}
    decision = decide(answers.get("base") or None, records, quality, judge, models)
    # Held against the verdicts as they were before people's labels were laid over them.
    return msgspec.structs.replace(decision, human=human_summary(folder.quality(variant), folder.human_labels()))


def busy_and_idle(folder: RunFolder, experiment: Experiment) -> list[UnderLoad]:
    """Every variant's answers in every load stage, held against its idle ones; empty where the scenario does not ask for it."""
    if experiment.quality is None or experiment.quality.under_load is None:
        return []
    from perfbench.quality.under_load import under_load

    return [one for variant in experiment.variants for one in under_load(folder.under_load(variant), experiment.quality)]
