"""From a judge's verdicts, and people's, to scores, labels and a summary. Pure.

| verdict | score | label of the sample |
|---|---|---|
| rubric | `rubric_score` | passes at the task's `pass_at`; else the judge's `problem` (`wrong answer` where it names none) |
| pairwise, both orders | `win_rate`: 1 where both say the variant, 0 where both say base, else 0.5 | unchanged |
| correctness | `answer_correctness` | a passed sample whose reasons are unsound: `correct answer but bad explanation` |
| faithfulness | `faithfulness` | a passed sample with an unsupported claim: `hallucinated detail` |
| a person's | `human_score` | chat: decides instead of the rubric |

An unread verdict leaves no score; an answer that is missing or empty is wrong without a verdict. Agreement: Cohen's kappa (Cohen 1960) of judge and person
over the answers that both have judged; passing or not for scores, so that five steps and two can be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perfbench.quality import labels as why
from perfbench.records import HumanLabel, JudgeRecord, JudgeSummary, QualityRecord
from perfbench.scenario.quality import Chat, Judge, Quality

_SCORES = {"rubric": "rubric_score", "correctness": "answer_correctness", "faithfulness": "faithfulness"}
_PASSES_AT = 0.5
"""A person's and a judge's score both count as a yes from here on, where a task names no `pass_at`."""


def with_verdicts(records: Sequence[QualityRecord], verdicts: Sequence[JudgeRecord], quality: Quality) -> list[QualityRecord]:
    """The records with what the judge says of them. Applying the same verdicts twice changes nothing more."""
    by_sample: dict[str, list[JudgeRecord]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.verdict is not None:
            by_sample[verdict.sample_id].append(verdict)
    return [_judged(record, by_sample[record.sample_id], quality) if record.sample_id in by_sample else record for record in records]


def _judged(record: QualityRecord, verdicts: Sequence[JudgeRecord], quality: Quality) -> QualityRecord:
    scores, details = dict(record.scores), dict(record.details)
    changes: dict[str, Any] = {}
    for verdict in verdicts:
        if verdict.kind == "pairwise":
            continue
        if verdict.score is not None:
            scores[_SCORES[verdict.kind]] = verdict.score
        details[f"judge, {verdict.kind}"] = f"{verdict.verdict}. {verdict.reason}".strip()
        if verdict.kind == "rubric" and isinstance(quality.task, Chat) and verdict.score is not None and (record.output or "").strip():
            changes = _passing(verdict.score, quality.task.pass_at, verdict.problem)
        elif verdict.problem in (why.BAD_EXPLANATION, why.HALLUCINATED) and record.passed:
            changes = {"passed": False, "label": verdict.problem}
    pair = [verdict for verdict in verdicts if verdict.kind == "pairwise"]
    if len(pair) == 2:
        told = [verdict.score for verdict in pair]
        scores["win_rate"] = float(told[0] or 0.0) if told[0] == told[1] else 0.5
        details["judge, pairwise"] = "; ".join(f"{verdict.first} first: {verdict.verdict}. {verdict.reason}".strip() for verdict in pair)
    return msgspec.structs.replace(record, scores=scores, details=details, **changes)


def _passing(score: float, pass_at: float, problem: str) -> dict[str, Any]:
    if score >= pass_at:
        return {"passed": True, "label": why.CORRECT}
    return {"passed": False, "label": problem or why.WRONG}


def with_human(records: Sequence[QualityRecord], given: Sequence[HumanLabel], quality: Quality) -> list[QualityRecord]:
    """The records with `human_score`: the mean over people. In chat it decides whether a sample passes, whatever the judge says."""
    by_answer = _by_answer(given)
    found = []
    for record in records:
        scores = by_answer.get((record.sample_id, record.variant))
        if not scores or record.must_refuse:
            found.append(record)
            continue
        mean = sum(scores) / len(scores)
        changes = _passing(mean, quality.task.pass_at, record.label if record.passed is False else "") if isinstance(quality.task, Chat) else {}
        found.append(msgspec.structs.replace(record, scores={**record.scores, "human_score": mean}, **changes))
    return found


def _by_answer(given: Sequence[HumanLabel]) -> dict[tuple[str, str], list[float]]:
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for label in given:
        scores[(label.sample_id, label.variant)].append(label.score)
    return dict(scores)


def summary_of(judge: Judge, verdicts: Sequence[JudgeRecord], given: Sequence[HumanLabel], quality: Quality) -> JudgeSummary | None:
    """What judging one variant took and how far it can be trusted; None without verdicts."""
    if not verdicts:
        return None
    prompt, output = (_total([getattr(verdict, name) for verdict in verdicts]) for name in ("prompt_tokens", "output_tokens"))
    kappa, n = agreement(verdicts, given, quality)
    return JudgeSummary(
        model=judge.model,
        verdicts=sum(verdict.verdict is not None for verdict in verdicts),
        unread=sum(verdict.verdict is None for verdict in verdicts),
        retries=sum(verdict.retries for verdict in verdicts),
        prompt_tokens=prompt,
        output_tokens=output,
        usd=_usd(judge, prompt, output),
        inconsistent=_inconsistent(verdicts),
        kappa=kappa,
        kappa_n=n,
    )


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _usd(judge: Judge, prompt: int | None, output: int | None) -> float | None:
    prices = judge.usd_per_million_prompt_tokens, judge.usd_per_million_output_tokens
    if prompt is None or output is None or prices[0] is None or prices[1] is None:
        return None
    return (prompt * prices[0] + output * prices[1]) / 1e6


def _inconsistent(verdicts: Sequence[JudgeRecord]) -> float | None:
    """Share of the pairs read in both orders whose verdict changed with the order."""
    pairs: Mapping[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.kind == "pairwise" and verdict.score is not None:
            pairs[verdict.sample_id].append(verdict.score)
    whole = [scores for scores in pairs.values() if len(scores) == 2]
    return sum(scores[0] != scores[1] for scores in whole) / len(whole) if whole else None


def agreement(verdicts: Sequence[JudgeRecord], given: Sequence[HumanLabel], quality: Quality) -> tuple[float | None, int]:
    """Cohen's kappa of judge and person, and over how many answers; None where both always say the same, or nothing is shared.

    Rubric verdicts are held against people's scores; of tasks without a rubric, correctness verdicts are.
    """
    by_answer = _by_answer(given)
    pass_at = quality.task.pass_at if isinstance(quality.task, Chat) else _PASSES_AT
    kind = "rubric" if isinstance(quality.task, Chat) else "correctness"
    pairs = [
        (verdict.score >= pass_at, sum(scores) / len(scores) >= pass_at)
        for verdict in verdicts
        if verdict.kind == kind and verdict.score is not None and (scores := by_answer.get((verdict.sample_id, verdict.variant)))
    ]
    judge, people = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(set(judge)) < 2 and len(set(people)) < 2:
        return None, len(pairs)
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(judge, people)), len(pairs)
