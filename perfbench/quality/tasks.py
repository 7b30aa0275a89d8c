"""The kinds of task, and what a scenario's quality block must bring for each.

A task is one module (classification, extraction) that reads an answer and scores it. This file picks the module, so that whatever
asks (`spot_check`) or decides knows no task by name. `check_quality` is pure and runs before anything starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perfbench.errors import Finding, ScenarioError
from perfbench.quality import classification, extraction
from perfbench.quality.labels import Scored
from perfbench.quality.schema import Schema, read_schema
from perfbench.scenario.data_files import read_rows
from perfbench.scenario.quality import Classification, Extraction, Quality

_SHOWN = 5
"""Rows named in full; a column that is missing everywhere should not fill the screen."""


class Scorer(msgspec.Struct, frozen=True):
    """A task, ready to score: expected values as text in the rows' order, and the function that scores one answer."""

    expected: list[str]
    score: Callable[[int, str | None, str | None], Scored]
    """(row, output or None, finish_reason) -> Scored."""


def make_scorer(quality: Quality, rows: Sequence[dict[str, object]]) -> Scorer:
    """The scorer for the rows of the held-out file. Raises ScenarioError with everything that is wrong with them."""
    task = quality.task
    return _classification(task, quality, rows) if isinstance(task, Classification) else _extraction(task, quality, rows)


def check_quality(quality: Quality, file: str = "scenario") -> None:
    """Everything about the quality block that can be wrong before a server runs. Raises ScenarioError under the name `file`.

    Every row has the expected column; labels are known and can be told apart; the JSON Schema is one and refers to nothing outside
    itself; expected objects meet it; `train_column` is in the training data.
    """
    findings: list[Finding] = []
    try:
        make_scorer(quality, read_rows(quality.data.path, quality.data.limit, quality.data.columns))
    except ScenarioError as error:
        findings += error.findings
    if quality.train_column is not None and quality.train_data is None:
        findings.append(Finding("quality.train_column", "there is no `quality.train_data` that it could be a column of; add it"))
    if quality.train_data is not None and quality.train_column is not None:
        rows = read_rows(quality.train_data.path, quality.train_data.limit, quality.train_data.columns)
        lacking = [number for number, row in enumerate(rows) if quality.train_column not in row]
        if lacking:
            findings.append(Finding("quality.train_column", f"{_rows(lacking)} of {quality.train_data.path} lack it; they have {', '.join(rows[lacking[0]])}"))
    if findings:
        raise ScenarioError(file, findings)


def _classification(task: Classification, quality: Quality, rows: Sequence[dict[str, object]]) -> Scorer:
    expected = _expected_values(quality, rows, task.expected, classification.expected_label)
    known = classification.known_labels(task.labels, expected)
    where = "quality.task.labels" if task.labels is not None else f"{quality.data.path}, column `{task.expected}`"
    findings = [Finding(where, problem) for problem in classification.label_problems(known)]
    unknown = sorted({label for label in expected if label not in known})
    if unknown:
        shown = ", ".join(f"`{label}`" for label in unknown[:_SHOWN])
        findings.append(Finding("quality.task.labels", f"{shown} expected in the data and not listed; add {len(unknown)} labels"))
    if findings:
        raise ScenarioError("scenario", findings)

    def score(row: int, output: str | None, finish_reason: str | None) -> Scored:
        return classification.score(output, expected[row], known, finish_reason=finish_reason)

    return Scorer(expected, score)


def _extraction(task: Extraction, quality: Quality, rows: Sequence[dict[str, object]]) -> Scorer:
    objects = _expected_values(quality, rows, task.expected, extraction.expected_object)
    schema = _schema(task)
    if schema is not None:
        problems = [(number, problem) for number, value in enumerate(objects) if (problem := schema.problem(value)) is not None]
        if problems:
            first = f"row {problems[0][0]}: {problems[0][1]}"
            text = f"{len(problems)} expected objects do not meet it, {first}; correct the data or the schema"
            raise ScenarioError("scenario", [Finding("quality.task.json_schema", text)])

    def score(row: int, output: str | None, finish_reason: str | None) -> Scored:
        return extraction.score(output, objects[row], schema, finish_reason=finish_reason)

    return Scorer([msgspec.json.encode(value, order="sorted").decode() for value in objects], score)


def _schema(task: Extraction) -> Schema | None:
    try:
        return None if task.json_schema is None else read_schema(task.json_schema)
    except ValueError as error:
        raise ScenarioError("scenario", [Finding("quality.task.json_schema", str(error))]) from None


def _expected_values(quality: Quality, rows: Sequence[dict[str, object]], column: str, read: Callable[[object], Any]) -> list[Any]:
    """The expected column of every row, read; ScenarioError naming the rows that lack it or hold something else."""
    values: list[Any] = []
    lacking: list[int] = []
    findings: list[Finding] = []
    for number, row in enumerate(rows):
        if column not in row:
            lacking.append(number)
            continue
        try:
            values.append(read(row[column]))
        except ValueError as error:
            findings.append(Finding(f"{quality.data.path}, row {number}, column `{column}`", str(error)))
    if lacking:
        columns = ", ".join(rows[lacking[0]]) or "no columns"
        findings.insert(0, Finding("quality.task.expected", f"{_rows(lacking)} of {quality.data.path} lack column `{column}`; they have {columns}"))
    if findings:
        more = [Finding("", f"and {len(findings) - _SHOWN} rows more")] if len(findings) > _SHOWN else []
        raise ScenarioError("scenario", [*findings[:_SHOWN], *more])
    return values


def _rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    return f"row {shown}" if len(numbers) == 1 else f"{len(numbers)} rows ({shown}{', ...' if len(numbers) > _SHOWN else ''})"
