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
from perfbench.quality.tasks import check_quality
from perfbench.scenario.data_files import check_rows, iter_rows
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
    held_out = _file("the held-out set", answers.held_out)
    train = None if answers.train is None else _file("the training data", answers.train)
    columns = check_rows(held_out)
    task: dict[str, str] = {"task": answers.task, **_task_columns(answers, columns, held_out)}
    block: dict[str, object] = {"data": held_out, "task": task}
    if answers.metric is not None:
        block["metric"] = answers.metric
    block["margin"] = PURPOSES[answers.purpose]
    refuse = next((name for name in _REFUSE if name in columns), None)
    if refuse is not None:
        block["must_refuse"] = refuse
    if train is not None:
        block["train_data"] = train
    findings = list(quality_findings({"quality": block}))
    if findings:
        raise ScenarioError("the quality block", findings)
    _try(block)
    shown = dict(block)
    for key in ("data", "train_data"):
        if key in block:
            shown[key] = os.path.relpath(str(block[key]), folder)
    return _text(answers, shown, columns, sum(1 for _ in iter_rows(held_out)))


def _file(what: str, path: str) -> str:
    absolute = str(Path(path).expanduser().absolute())
    try:
        check_rows(absolute)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None
    return absolute


def _task_columns(answers: Answers, columns: frozenset[str], path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    lacking: list[Finding] = []
    for key, usual in _COLUMNS.get(answers.task, {}).items():
        name = answers.columns.get(key) or next((one for one in usual if one in columns), None)
        if name is not None:
            found[key] = name
        elif key not in _OPTIONAL:
            lacking.append(Finding(f"--column {key}=NAME", f"which column of {path} holds it? Every row has {', '.join(sorted(columns)) or 'none'}"))
    if lacking:
        raise ScenarioError("the quality block", lacking)
    return found


def _try(block: dict[str, object]) -> None:
    """The block through all checks that `run` makes of it."""
    try:
        check_quality(Quality.model_validate_json(json.dumps(block)), "the quality block")
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"the quality block: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def _text(answers: Answers, block: Mapping[str, object], columns: frozenset[str], rows: int) -> str:
    margin = PURPOSES[answers.purpose]
    needed = round(6.18 * 0.1 / margin**2)
    user = answers.columns.get("prompt") or next((name for name in _QUESTION if name in columns), None)
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
