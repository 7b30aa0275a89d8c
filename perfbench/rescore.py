"""Score a finished run's answers again: another metric or margin, a corrected reference, a judge that was not there. Nothing is served.

What was asked and answered stays, and so do the settings that asking went by; the rest of the quality block may change. The scores before it are kept in a
folder of their own, the manifest says what changed, and every report is made again. What a judge has said of the same words stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import perfbench
from perfbench.conclude import conclude
from perfbench.errors import InputError, RunFolderError, ScenarioError
from perfbench.prepare import of_load
from perfbench.quality.contamination import Contamination, check_contamination
from perfbench.quality.fairness import not_comparable
from perfbench.quality.judge import ask_what_is_new, check_judge, questions, same_judge
from perfbench.quality.judge_apply import with_verdicts
from perfbench.quality.model_scores import check_models, has_models, with_model_scores
from perfbench.quality.spot_check import HeldOut, prepare, score_again
from perfbench.records import JudgeRecord, QualityRecord, Rescored
from perfbench.report.progress import RunProgress
from perfbench.results import RunFolder
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.quality import Quality

Records = dict[str, list[QualityRecord]]
_ASKED_BY = ("max_tokens", "concurrency", "under_load", "reference_prompts", "fidelity_prompts")
"""Keys of the quality block that say how the run asked: they stay the run's."""


def rescore(path: Path, scenario_file: Path | None, progress: RunProgress) -> tuple[RunFolder, Rescored]:
    """Score the run by `scenario_file`'s quality block (or its own, over the data file as it is now), judge what is new, and make its reports again.

    Raises InputError for a run without answers, data that asks something else, and a judge that does not answer; then nothing has changed.
    """
    folder = RunFolder.open(path)
    scenario, before = _scenario_of(folder)
    quality = before if scenario_file is None else _block_of(scenario_file, before)
    if quality.judge is not None:
        check_judge(quality.judge)
    check_models(quality.task)
    progress.phase("score the answers again")
    with ScenarioError.named(scenario_file):
        held_out = prepare(quality, scenario.prompt, scenario.decoding)
    old = {variant: folder.quality(variant) for variant in folder.checked_variants()}
    new = {variant: score_again(held_out, quality, records) for variant, records in old.items()}
    contamination = _contamination(scenario, before, quality, held_out)
    new = {variant: [_flagged(record, contamination) for record in records] for variant, records in new.items()}
    if has_models(quality.task):
        progress.phase("score the answers by local models")
    new, how = with_model_scores(quality.task, new, held_out.rows_by_id)
    busy = _under_load(folder, scenario, quality, list(new))
    verdicts = _judged(folder, before, quality, new, held_out, progress)
    changed = [key for key in Quality.model_fields if getattr(quality, key) != getattr(before, key)]
    if any(left.expected != right.expected for variant in new for left, right in zip(old[variant], new[variant], strict=True)):
        changed.append("expected answers")
    done = Rescored(
        utc=datetime.now(UTC).isoformat(timespec="seconds"), perfbench_version=perfbench.__version__, command=list(sys.argv),
        changed=changed, kept=folder.keep_scores(),
        scenario_file=None if scenario_file is None else str(scenario_file.absolute()),
    )  # fmt: skip
    for variant, records in new.items():
        folder.write_quality(variant, with_verdicts(records, verdicts.get(variant, ()), quality))
        folder.write_judged(variant, verdicts.get(variant, ()))
    for variant, records in busy.items():
        folder.write_under_load(variant, records)
    manifest = folder.manifest()
    stored = {**manifest.scenario, "quality": quality.model_dump(mode="json")}
    folder.write_manifest(msgspec.structs.replace(manifest, scenario=stored, rescored=[*manifest.rescored, done]))
    if contamination is not None:
        folder.append_journal("contamination", data=contamination)
    for metric, told in how.items():
        folder.append_journal("model_scored", metric, told)
    folder.append_journal("rescored", data=done)
    conclude(folder)
    return folder, done


def _scenario_of(folder: RunFolder) -> tuple[Scenario, Quality]:
    if not folder.finished("finished"):
        raise RunFolderError(f"{folder.path} has not finished, and is scored when it does", hint="perfbench run --resume finishes it")
    if not folder.checked_variants():
        raise InputError(f"{folder.path} has no answers to score: its scenario has no `quality` block")
    scenario = Scenario.model_validate_json(msgspec.json.encode(folder.manifest().scenario))
    assert scenario.quality is not None
    return scenario, scenario.quality


def _block_of(scenario_file: Path, before: Quality) -> Quality:
    given = load_scenario(scenario_file).quality
    if given is None:
        raise InputError(f"{scenario_file} has no `quality` block to score by")
    return given.model_copy(update={key: getattr(before, key) for key in _ASKED_BY})


def _contamination(scenario: Scenario, before: Quality, quality: Quality, held_out: HeldOut) -> Contamination | None:
    """Of training data that was not known before; None where there is none, so that the run's flags stand."""
    if (quality.train_data, quality.train_column) == (before.train_data, before.train_column):
        return None
    return check_contamination(quality, scenario.prompt, [prompt.prompt_id for prompt in held_out.prompts], held_out.rows)


def _flagged(record: QualityRecord, found: Contamination | None) -> QualityRecord:
    return record if found is None else msgspec.structs.replace(record, contaminated=record.sample_id in found.flagged_ids)


def _under_load(folder: RunFolder, scenario: Scenario, quality: Quality, variants: Sequence[str]) -> Records:
    """Busy and idle answers of every variant that has them."""
    found = {variant: records for variant in variants if (records := folder.under_load(variant))}
    if not found or scenario.load.data is None:
        return {}
    block = of_load(quality, scenario.load.data)
    rows = prepare(block, scenario.prompt, scenario.decoding)
    rows = HeldOut(rows.prompts, rows.rows, msgspec.structs.replace(rows.scorer, attempts=1), rows.hashes, rows.seed)
    again = {
        variant: [msgspec.structs.replace(one, slices=record.slices) for record, one in zip(records, score_again(rows, block, records), strict=True)]
        for variant, records in found.items()
    }
    return with_model_scores(quality.task, again, rows.rows_by_id)[0]


def _judged(
    folder: RunFolder, before: Quality, quality: Quality, new: Records, held_out: HeldOut, progress: RunProgress
) -> Mapping[str, list[JudgeRecord]]:
    """Every variant's verdicts; none without a judge."""
    if quality.judge is None:
        return {}
    rows = held_out.rows_by_id
    base, found = new.get("base"), {}
    for variant, records in new.items():
        progress.phase(f"judge {variant}")
        fair = base if base and variant != "base" and not_comparable(base, records) is None else None
        known = folder.judged(variant) if same_judge(before.judge, quality.judge) else []
        found[variant] = ask_what_is_new(quality.judge, questions(quality, records, rows, fair), known, _count(progress))
    return found


def _count(progress: RunProgress) -> Callable[[int, int], None]:
    return lambda done, of: progress.update(completed=done, total=of)
