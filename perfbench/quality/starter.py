"""`perfbench quality init`: eight answers become the scenario's blocks that serve and check a fine-tune, already checked against its held-out file.

The columns that a task needs are told by their usual names; one that has none of them is named by the caller. Pure but for reading the held-out file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from perfbench.errors import Finding, InputError, ScenarioError
from perfbench.quality.contamination import check_training
from perfbench.quality.tasks import check_quality
from perfbench.scenario.data_files import check_rows, iter_rows
from perfbench.scenario.model import Prompt
from perfbench.scenario.quality import TASKS, Quality
from perfbench.scenario.quality_metrics import JUDGED, QUALITY_METRICS, quality_findings, quality_warnings

Tuning = Literal["lora", "qlora", "merged", "full"]
TUNINGS: dict[str, str] = {
    "lora": "a LoRA adapter", "qlora": "a LoRA adapter trained on a quantised base", "merged": "an adapter that is merged already", "full": "all weights",
}  # fmt: skip
PURPOSES: dict[str, float] = {"publish": 0.02, "check": 0.05}
"""What the result is for -> the margin: figures that others read need a narrower one, and so more samples."""

_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "classification": {"expected": ("label", "class", "category", "intent", "expected", "answer")},
    "extraction": {"expected": ("expected", "json", "output", "answer", "label")},
    "qa": {"expected": ("answers", "answer", "expected", "output")},
    "domain_qa": {"expected": ("answer", "reference", "expected"), "facts": ("facts", "key_facts", "points")},
    "summarisation": {"expected": ("summary", "reference", "expected", "highlights"), "key_points": ("points", "key_points", "facts")},
    "translation": {"expected": ("translation", "target", "reference", "expected")},
    "chat": {},
    "instructions": {"constraints": ("constraints", "instructions")},
    "rag": {
        "expected": ("answer", "answers", "expected"), "contexts": ("contexts", "passages", "documents"),
        "relevant_ids": ("relevant_ids", "relevant", "gold_ids"),
    },
    "coding": {"hidden_tests": ("hidden_tests", "tests", "test")},
}  # fmt: skip
"""Task -> key -> usual names of its column, the likeliest first."""
_QUESTION = ("prompt", "question", "text", "input", "instruction", "message", "command", "query", "article", "source", "english")
_REFUSE = ("must_refuse", "unsafe", "refuse")
_OPTIONAL = ("key_points",)


@dataclass(frozen=True)
class Answers:
    """The eight answers, and columns that their usual names do not tell."""

    base: str
    tuning: str
    task: str
    held_out: str
    train: str | None
    goal: str
    purpose: str
    metric: str | None
    columns: Mapping[str, str] = field(default_factory=dict)


def starter(answers: Answers, folder: Path) -> str:
    """The YAML text, its paths relative to `folder`. Raises InputError for an answer that cannot be, ScenarioError for rows that do not fit the task."""
    for name, given, known in (("tuning", answers.tuning, TUNINGS), ("task", answers.task, TASKS), ("publish or check", answers.purpose, PURPOSES)):
        if given not in known:
            raise InputError(f"{name}: `{given}` is not known; expected one of {', '.join(known)}")
    keys = ("prompt", *_COLUMNS[answers.task], "train_column")
    strange = next((key for key in answers.columns if key not in keys), None)
    if strange is not None:
        raise InputError(f"--column {strange}=NAME: task `{answers.task}` needs no such column; expected one of {', '.join(keys)}")
    held_out = held_out_file(answers.held_out)
    train = training_file(answers.train)
    columns = check_rows(held_out)
    task: dict[str, str] = {"task": answers.task, **_task_columns(answers, columns, held_out)}
    block: dict[str, object] = {"data": held_out, "task": task}
    if answers.metric is not None:
        block["metric"] = answers.metric
    block["margin"] = PURPOSES[answers.purpose]
    refuse = next((name for name in _REFUSE if name in columns), None)
    if refuse is not None:
        block["must_refuse"] = refuse
    question = _question(answers, columns)
    if train is not None:
        block["train_data"] = train
        block |= _train_column(answers, check_rows(train), question)
    findings = list(quality_findings({"quality": block}))
    if findings:
        raise ScenarioError("the quality block", findings)
    _try(block, question)
    shown = dict(block)
    for key in ("data", "train_data"):
        if key in block:
            shown[key] = os.path.relpath(str(block[key]), folder)
    return _text(answers, shown, columns, sum(1 for _ in iter_rows(held_out)))


def held_out_file(path: str) -> str:
    """Its absolute path. Raises InputError for a file that cannot be read whole."""
    return _file("the held-out set", path)


def training_file(path: str | None) -> str | None:
    """Its absolute path; None for none. Raises InputError for a file that cannot be read whole."""
    return None if path is None or path == "none" else _file("the training data", path)


def _file(what: str, path: str) -> str:
    absolute = str(Path(path).expanduser().absolute())
    try:
        check_rows(absolute)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None
    return absolute


def untold_columns(task: str, named: Mapping[str, str], path: str) -> list[tuple[str, tuple[str, ...]]]:
    """Keys of the task whose column is neither named nor told by a usual name, each with the columns that every row has."""
    columns = check_rows(held_out_file(path))
    found = _told_columns(task, named, columns)
    return [(key, tuple(sorted(columns))) for key in _COLUMNS.get(task, {}) if key not in found and key not in _OPTIONAL]


def _told_columns(task: str, named: Mapping[str, str], columns: frozenset[str]) -> dict[str, str]:
    told = {key: named.get(key) or next((one for one in usual if one in columns), None) for key, usual in _COLUMNS.get(task, {}).items()}
    return {key: name for key, name in told.items() if name is not None}


def _task_columns(answers: Answers, columns: frozenset[str], path: str) -> dict[str, str]:
    lacking = [
        Finding(f"--column {key}=NAME", f"which column of {path} holds it? Every row has {', '.join(there) or 'none'}")
        for key, there in untold_columns(answers.task, answers.columns, path)
    ]
    if lacking:
        raise ScenarioError("the quality block", lacking)
    return _told_columns(answers.task, answers.columns, columns)


def _question(answers: Answers, columns: frozenset[str]) -> str | None:
    """The column that the prompt is made of."""
    return answers.columns.get("prompt") or next((name for name in _QUESTION if name in columns), None)


def _train_column(answers: Answers, columns: frozenset[str], question: str | None) -> dict[str, str]:
    """Training files seldom have the held-out file's columns: the one that holds the question there, where it has another name."""
    usual = next((name for name in ("messages", *_QUESTION) if name in columns), None)
    name = answers.columns.get("train_column") or (None if question in columns else usual)
    return {} if name is None else {"train_column": name}


def _try(block: dict[str, object], question: str | None) -> None:
    """The block through all checks that `run` makes of it."""
    try:
        quality = Quality.model_validate_json(json.dumps(block))
        check_quality(quality, "the quality block")
        if question is not None:
            check_training(quality, Prompt(user="{{ " + question + " }}"))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"the quality block: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def _text(answers: Answers, block: Mapping[str, object], columns: frozenset[str], rows: int) -> str:
    margin = PURPOSES[answers.purpose]
    needed = round(6.18 * 0.1 / margin**2)
    user = _question(answers, columns)
    variants, models = _served(answers)
    lines = [
        f"# Goal: {' '.join(answers.goal.split())}",
        f"# Made by {TUNINGS[answers.tuning]}; the result is to {answers.purpose}. `perfbench run FILE --dry-run` checks this file.",
        f"name: {Path(answers.held_out).stem}-{answers.task.replace('_', '-')}"[:64],
        "",
        _yaml({"models": models}),
        f"variants: [{', '.join(variants)}]",
        "",
        _yaml({"prompt": {"user": "{{ " + (user or "CHANGE_ME") + " }}"}}),
        "# Drives the same questions; `perfbench init` shows more stages, SLOs and cost.",
        "load:",
        f"  data: {json.dumps(block['data'])}",
        "  stages:",
        "    - {name: one-stream, arrival: closed, concurrency: 1, duration_s: 60, output: {max_tokens: 256}}",
        "",
        f"# {rows:,} held-out rows; about {needed:,} decide a margin of {margin:g} if a tenth of the answers differ between the variants.",
    ]
    lines += [f"# Warning: {warning}." for warning in quality_warnings(block)]
    if answers.train is None:
        lines.append("# No training data is given, so whether the held-out rows were trained on stays unknown; name it as `train_data`.")
    lines.append(_yaml({"quality": dict(block)}))
    deciding = answers.metric or QUALITY_METRICS[answers.task][0]
    if deciding in JUDGED:
        lines += [
            "  # This metric needs a judge, any server that speaks the OpenAI API; without one it is not run:",
            '  # judge: {url: "http://127.0.0.1:8009", model: judge}',
        ]
    return "\n".join(lines) + "\n"


def _served(answers: Answers) -> tuple[list[str], dict[str, str]]:
    if answers.tuning in ("lora", "qlora"):
        return ["base", "adapter", "merged"], {"base": answers.base, "adapter": "./my-adapter"}
    return ["base", "merged"], {"base": answers.base, "merged": "./my-model"}


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip()
