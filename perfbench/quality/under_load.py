"""Whether a server answers worse when it is busy: the same prompts as answered in a load stage and as answered when nothing else is asked.

After a variant's trials some of the prompts that they sent are asked again, one at a time; both answers are scored by the task, and their paired
difference is held against the scenario's margin, for each stage by itself. Only stages that ask as the spot-check does can be compared: natural
length up to the same `max_tokens`, no structured output of their own. A prompt that a stage sent more than once counts with its first answer.
Requests that failed are no wrong answers here: the load's own figures count them.

What is stored are ordinary quality records whose slice `asked` says `idle`, or the stage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import msgspec

from perfbench.quality.ask import Target
from perfbench.quality.decide import deciding_metric, samples_needed
from perfbench.quality.intervals import n_to_decide
from perfbench.quality.measures import Reading, estimates, paired_difference, reading_of
from perfbench.quality.scoring import Answered, narrowed
from perfbench.quality.spot_check import HeldOut, spot_check
from perfbench.records import Estimate, QualityRecord, UnderLoad
from perfbench.scenario.model import Decoding, Stage
from perfbench.scenario.quality import Quality

IDLE = "idle"
_ASKED = "asked"


class BusyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer out of a load stage."""

    stage: str
    prompt_id: str
    output: str
    finish_reason: str | None


def comparable_stages(stages: Sequence[Stage], quality: Quality) -> list[str]:
    """Stages whose answers can be held against idle ones; see the module's text."""
    return [stage.name for stage in stages if stage.output.max_tokens == quality.max_tokens and stage.response_format is None]


def sampled(answers: Sequence[BusyAnswer], most: int, seed: int) -> list[BusyAnswer]:
    """The first answer of each stage to at most so many prompts, the same prompts for every variant that answered the same."""
    ids = sorted({answer.prompt_id for answer in answers})
    taken = set(random.Random(seed).sample(ids, min(most, len(ids))))
    first: dict[tuple[str, str], BusyAnswer] = {}
    for answer in answers:
        if answer.prompt_id in taken:
            first.setdefault((answer.stage, answer.prompt_id), answer)
    return list(first.values())


def score_busy_and_idle(
    load_rows: HeldOut,
    quality: Quality,
    decoding: Decoding,
    answers: Sequence[BusyAnswer],
    target: Target,
    *,
    variant: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[QualityRecord]:
    """Ask the answers' prompts when nothing else is asked, and score both. Raises EndpointError when every request fails."""
    rows = _rows(load_rows, {answer.prompt_id for answer in answers})
    scorer = msgspec.structs.replace(narrowed(load_rows.scorer, rows), attempts=1)
    asked = HeldOut([load_rows.prompts[row] for row in rows], [load_rows.rows[row] for row in rows], scorer, load_rows.hashes, load_rows.seed)
    idle = spot_check(asked, quality.model_copy(update={"concurrency": 1}), decoding, target, variant=variant, on_progress=on_progress)
    by_id = {record.sample_id: (number, record) for number, record in enumerate(idle)}
    records = [msgspec.structs.replace(record, slices={_ASKED: IDLE}) for record in idle]
    for answer in answers:
        number, record = by_id[answer.prompt_id]
        scored = asked.scorer.score(number, Answered(output=answer.output, finish_reason=answer.finish_reason))
        records.append(
            msgspec.structs.replace(
                record, output=answer.output, error=None, finish_reason=answer.finish_reason, prompt_tokens=None, output_tokens=None, scores=scored.scores,
                passed=scored.passed, label=scored.label, details=scored.details, slices={_ASKED: answer.stage},
            )
        )  # fmt: skip
    return records


def _rows(load_rows: HeldOut, ids: Collection[str]) -> list[int]:
    return [row for row, prompt in enumerate(load_rows.prompts) if prompt.prompt_id in ids]


def under_load(records: Sequence[QualityRecord], quality: Quality) -> list[UnderLoad]:
    """Each stage of one variant, decided. Pure."""
    by_asked: dict[str, list[QualityRecord]] = {}
    for record in records:
        by_asked.setdefault(record.slices[_ASKED], []).append(record)
    idle = {record.sample_id: record for record in by_asked.pop(IDLE, []) if record.output is not None}
    return [_decided(stage, idle, busy, quality) for stage, busy in by_asked.items()]


def _decided(stage: str, idle: Mapping[str, QualityRecord], busy: Sequence[QualityRecord], quality: Quality) -> UnderLoad:
    metric, margin = deciding_metric(quality), quality.margin
    busy = [record for record in busy if record.sample_id in idle]
    before = [idle[record.sample_id] for record in busy]
    reading = reading_of(quality, before)
    try:
        pair = paired_difference(before, busy, metric, reading)
    except ValueError as error:
        return UnderLoad(variant="" if not busy else busy[0].variant, stage=stage, metric=metric, n=0, verdict="inconclusive", reason=str(error))
    (low, high), ci95 = pair.interval(0.90), pair.interval(0.95)
    verdict: Literal["pass", "fail", "inconclusive"] = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    needed = n_to_decide(pair.value, pair.variance, margin) if verdict == "inconclusive" else None
    told = f"{metric} of the same {pair.n} prompts differs from idle by {pair.value:+.3f} (90% interval {low:+.3f} to {high:+.3f})"
    where = {"pass": "above", "fail": "below", "inconclusive": "across"}[verdict]
    return UnderLoad(
        variant=busy[0].variant,
        stage=stage,
        metric=metric,
        n=pair.n,
        idle=_value(before, metric, reading),
        busy=_value(busy, metric, reading),
        difference=Estimate(value=pair.value, ci95_low=ci95[0], ci95_high=ci95[1]),
        changed=sum(left.output != right.output for left, right in zip(before, busy, strict=True)),
        verdict=verdict,
        reason=f"{told}, {where} the margin of {-margin:+.3f}{samples_needed(needed) if verdict == 'inconclusive' else ''}",
        n_to_decide=needed,
    )


def _value(records: Sequence[QualityRecord], metric: str, reading: Reading) -> float | None:
    found = estimates(records, reading).get(metric)
    return None if found is None else found.value
