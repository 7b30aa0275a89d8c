"""From a YAML file to a frozen Scenario, or to one ScenarioError with everything that is wrong in it."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perfbench.errors import Finding, ScenarioError
from perfbench.scenario.combinations import combination_findings
from perfbench.scenario.model import Scenario
from perfbench.scenario.quality import TASKS
from perfbench.scenario.reference import models_in
from perfbench.scenario.strict import IN_WORDS


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one; here it is an error."""


def _construct_unique(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        key = str(loader.construct_object(key_node, deep=True))
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key `{key}` stands there twice; keep one", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique)


def load_scenario(path: str | Path) -> Scenario:
    """Read, check and freeze a scenario file; its relative paths become absolute.

    Raises ScenarioError with every finding at once: a file that cannot be read or parsed, unknown keys (with a suggestion),
    wrong types, impossible combinations, data files that are missing, empty, not UTF-8 or no JSONL.
    """
    file = str(path)
    raw = parse_mapping(file, what="`name`, `models`, `load`, ...", written_by="`perfbench init` writes one")
    findings: list[Finding] = []
    scenario: Scenario | None = None
    try:
        scenario = Scenario.model_validate_json(json.dumps(raw, default=str), context={"folder": str(Path(file).absolute().parent)})
    except ValidationError as error:
        findings += findings_of(error, raw, Scenario)
    together = combination_findings(raw)
    told = {finding.key for finding in findings}
    findings += [finding for finding in together if finding.key not in told]
    if findings or scenario is None:
        raise ScenarioError(file, findings)
    return scenario


def json_schema() -> dict[str, Any]:
    """JSON Schema of a scenario, for editors (`# yaml-language-server: $schema=...`)."""
    schema = Scenario.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "perfbench scenario"}


def parse_mapping(file: str, *, what: str, written_by: str) -> dict[str, Any]:
    """A YAML file that holds one mapping, each key once. `what` names its keys and `written_by` says where one comes from, for the ScenarioError."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError(file, [Finding("", f"the file does not exist; {written_by}")]) from None
    except UnicodeDecodeError as error:
        raise ScenarioError(file, [Finding("", f"the file is not UTF-8 (byte {error.start}); save it as UTF-8")]) from None
    except OSError as error:
        raise ScenarioError(file, [Finding("", f"the file cannot be read: {error.strerror}")]) from None
    try:
        raw = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2026-99-01 raises a plain ValueError
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ScenarioError(file, [Finding(where, f"not YAML: {problem}")]) from None
    if not isinstance(raw, dict):
        raise ScenarioError(file, [Finding("", f"expected a mapping with {what}; {written_by}")])
    return raw


def findings_of(error: ValidationError, raw: dict[str, Any], root: type[BaseModel]) -> list[Finding]:
    """Every finding of a validation, by its key in the file; `root` is the model of the whole file."""
    # A list whose items are all wrong is also reported as too short: the items' own findings say it better.
    details = [detail for detail in error.errors() if detail["loc"]]
    return [_finding(detail, raw, root) for detail in details if not (detail["type"] == "too_short" and _has_findings_inside(detail, details))]


def _has_findings_inside(outer: ErrorDetails, details: list[ErrorDetails]) -> bool:
    depth = len(outer["loc"])
    return any(len(detail["loc"]) > depth and detail["loc"][:depth] == outer["loc"] for detail in details)


def _finding(detail: ErrorDetails, raw: dict[str, Any], root: type[BaseModel]) -> Finding:
    location = _without_tags(detail["loc"], raw)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    kind, message = detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        siblings = _fields_at(location[:-1], raw, root)
        close = difflib.get_close_matches(str(location[-1]), siblings, n=1, cutoff=0.5)
        known = f"did you mean `{close[0]}`?" if close else f"expected one of {', '.join(siblings)}"
        return Finding(key, f"unknown key; {known}")
    if kind == "missing":
        return Finding(key, "missing; add it")
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        choices = [choice.strip(" '\"") for choice in expected.replace(" or ", ", ").split(",")]
        close = difflib.get_close_matches(str(detail["input"]), choices, n=1, cutoff=0.5)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        return Finding(key.removesuffix(".[key]"), f"`{detail['input']}` is not known; expected one of {', '.join(choices)}{hint}")
    if kind == "value_error":
        return Finding(key, message.removeprefix("Value error, "))
    if kind == "too_short":
        least = detail.get("ctx", {}).get("min_length", 1)
        return Finding(key, f"expected at least {least} {'entry' if least == 1 else 'entries'}, got {len(detail['input']) or 'none'}")
    given = detail["input"]
    if kind == "union_tag_invalid":
        tag = str(detail.get("ctx", {}).get("tag"))
        close = difflib.get_close_matches(tag, TASKS, n=1, cutoff=0.5)
        return Finding(f"{key}.task", f"`{tag}` is not known; expected one of {', '.join(TASKS)}{f'; did you mean `{close[0]}`?' if close else ''}")
    if kind == "union_tag_not_found" and isinstance(given, dict):
        return Finding(f"{key}.task", f"missing; add one of {', '.join(TASKS)}")
    if kind in ("dict_type", "model_type", "model_attributes_type", "union_tag_not_found"):
        return Finding(key, f"expected a block of keys, got {json.dumps(given, default=str)}")
    if kind == "string_pattern_mismatch" and (words := IN_WORDS.get(str(detail.get("ctx", {}).get("pattern")))) is not None:
        return Finding(key, f"expected {words}, got {json.dumps(given, default=str)}")
    shown = "" if isinstance(given, (dict, list)) else f", got {json.dumps(given, default=str)}"
    return Finding(key, f"{message[0].lower()}{message[1:]}{shown}")


def _without_tags(location: tuple[int | str, ...], raw: Any) -> list[int | str]:
    """pydantic puts the tag of a discriminated union into the path (`quality.task.extraction.expected`); the file has none."""
    kept: list[int | str] = []
    here = raw
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, dict) and part not in here and part in TASKS and "task" in here:
            continue
        if isinstance(here, dict) and part not in here and not last:
            here = None
        elif isinstance(here, dict):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        kept.append(part)
    return kept


def _fields_at(location: list[int | str], raw: Any, root: type[BaseModel]) -> list[str]:
    """Names of the keys that the model at `location` knows."""
    model: Any = root
    here: Any = raw
    for part in location:
        if isinstance(part, int):
            here = here[part] if isinstance(here, (list, tuple)) else here  # one block may stand for a list of it
            continue
        here = here.get(part) if isinstance(here, dict) else None
        model = _submodel(model, str(part), here)
        if model is None:
            return []
    return list(model.model_fields)


def _submodel(model: type[BaseModel], field: str, here: Any) -> Any:
    if field not in model.model_fields:
        return model  # a free key, as in `endpoints.NAME` or `slo.METRIC`
    found = models_in(model.model_fields[field].annotation)
    task = here.get("task") if isinstance(here, dict) else None
    tagged = [item for item in found if "task" in item.model_fields and task in get_args(item.model_fields["task"].annotation)]
    candidates = tagged or found
    return candidates[0] if candidates else None
