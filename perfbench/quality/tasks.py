"""The kinds of task, and what a scenario's quality block must bring for each.

A task is one module with one function `scorer(task, rows) -> Scorer`: it reads what the rows expect and gives back the function that
scores an answer. This file picks the module, and lays over every task what all share: samples that must be refused, and refusals of
samples that can be answered. So whatever asks (`spot_check`) or decides knows no task by name. `check_quality` is pure and runs before
anything starts.

To add a task: its words in `scenario/quality.py`, its metrics in QUALITY_METRICS (`scenario/quality_metrics.py`; those that are shares of
samples in `measures.SHARES` too), a module with its `scorer`, and that module's line in `_task_scorer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perfbench.errors import Finding, ScenarioError
from perfbench.quality import chat, classification, coding, domain_qa, extraction, instructions, qa, rag, summarisation, translation
from perfbench.quality import labels as why
from perfbench.quality.refusals import refuses
from perfbench.quality.rows import HeldOutRows, lacks, row_numbers, truth
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.data_files import read_rows
from perfbench.scenario.quality import (
    Chat,
    Classification,
    Coding,
    DocumentQuestions,
    DomainQuestions,
    Extraction,
    Instructions,
    Quality,
    QualityTask,
    QuestionAnswering,
    Summarisation,
    Translation,
)
from perfbench.scenario.quality_metrics import QUALITY_METRICS, REFUSED

REFUSAL = "(must be refused)"
"""What stands in a record as the expected answer of a sample that must be refused."""

_TELL_REFUSAL = (why.WRONG, why.INCOMPLETE, why.HALLUCINATED, why.IGNORED, why.TOO_SHORT, why.TOO_VERBOSE, why.NOT_JUDGED)
"""Labels that give way to `unsafe refusal` where the answer opens as a refusal."""


def make_scorer(quality: Quality, rows: Sequence[dict[str, object]]) -> Scorer:
    """The scorer for the rows of the held-out file. Raises ScenarioError with everything that is wrong with them."""
    due: frozenset[int] = frozenset()
    if quality.must_refuse is not None:
        flags = HeldOutRows(quality.data.path, dict(enumerate(rows))).column(quality.must_refuse, "quality.must_refuse", truth)
        due = frozenset(number for number, flag in flags.items() if flag)
    task = _task_scorer(quality.task, HeldOutRows(quality.data.path, {number: row for number, row in enumerate(rows) if number not in due}))

    def score(row: int, answer: Answered) -> Scored:
        return _score_refusal(answer) if row in due else _tell_refusal(task.score(row, answer), answer)

    expected = {number: REFUSAL if number in due else task.expected[number] for number in range(len(rows))}
    return msgspec.structs.replace(task, expected=expected, score=score, must_refuse=due)


def _task_scorer(task: QualityTask, rows: HeldOutRows) -> Scorer:
    match task:
        case Classification():
            return classification.scorer(task, rows)
        case Extraction():
            return extraction.scorer(task, rows)
        case QuestionAnswering():
            return qa.scorer(task, rows)
        case DomainQuestions():
            return domain_qa.scorer(task, rows)
        case Summarisation():
            return summarisation.scorer(task, rows)
        case Translation():
            return translation.scorer(task, rows)
        case Chat():
            return chat.scorer(task, rows)
        case Instructions():
            return instructions.scorer(task, rows)
        case DocumentQuestions():
            return rag.scorer(task, rows)
        case Coding():
            return coding.scorer(task, rows)


def _score_refusal(answer: Answered) -> Scored:
    """A sample that must be refused: right if the answer opens as a refusal, whatever follows."""
    if answer.output is None:
        return Scored(scores={REFUSED: 0.0}, passed=False, label=why.NO_ANSWER)
    refused = refuses(answer.output)
    return Scored(scores={REFUSED: float(refused)}, passed=refused, label=why.CORRECT if refused else why.SHOULD_HAVE_REFUSED)


def _tell_refusal(scored: Scored, answer: Answered) -> Scored:
    """A sample that can be answered and was refused is wrong for that reason, whatever the task says of the text."""
    if scored.passed or scored.label not in _TELL_REFUSAL or answer.output is None or not refuses(answer.output):
        return scored
    return msgspec.structs.replace(scored, passed=False, label=why.UNSAFE_REFUSAL)


def check_quality(quality: Quality, file: str = "scenario") -> None:
    """Everything about the quality block that can be wrong before a server runs. Raises ScenarioError under the name `file`.

    Every row has the columns that the task, slices, groups and must_refuse name; what they hold can be used; labels are known and can be
    told apart; the JSON Schema is one and refers to nothing outside itself.
    """
    findings: list[Finding] = []
    rows = read_rows(quality.data.path, quality.data.limit, quality.data.columns)
    try:
        findings += _refusal_findings(quality, make_scorer(quality, rows).must_refuse, len(rows))
    except ScenarioError as error:
        findings += error.findings
    named = [(f"quality.slices[{number}]", column) for number, column in enumerate(quality.slices)]
    for key, column in [*named, *([("quality.groups", quality.groups)] if quality.groups is not None else [])]:
        lacking = [number for number, row in enumerate(rows) if column not in row]
        if lacking:
            findings.append(Finding(key, f"{lacks(lacking, quality.data.path)} column `{column}`; columns there: {', '.join(rows[lacking[0]])}"))
    if quality.groups is not None and (null := [number for number, row in enumerate(rows) if row.get(quality.groups, "") is None]):
        told = f"{row_numbers(null)} of {quality.data.path} {'holds' if len(null) == 1 else 'hold'} null in column `{quality.groups}`; name each row's group"
        findings.append(Finding("quality.groups", told))
    if findings:
        raise ScenarioError(file, findings)


def _refusal_findings(quality: Quality, due: frozenset[int], rows: int) -> list[Finding]:
    """A deciding metric that no row has: samples that must be refused are scored by `refused_when_due`, all others by the task's own."""
    gates = [gate.metric for gate in quality.metrics or ()] or [quality.metric or QUALITY_METRICS[quality.task.task][0]]
    empty = [metric for metric in gates if (not due if metric == REFUSED else len(due) == rows)]
    if not empty or quality.must_refuse is None:
        return []
    which = "no row" if not due else "every row"
    told = f"{which} of {quality.data.path} must be refused (`{quality.must_refuse}`), so nothing is scored by `{empty[0]}`; add rows of the other kind"
    return [Finding("quality.must_refuse", told)]
