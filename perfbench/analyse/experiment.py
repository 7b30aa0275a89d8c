"""What the manifest says a run was to do, in the scenario's own types.

The manifest holds the scenario as resolved. It cannot be validated as a whole again: a finished run is analysed on other machines, and there its
data files need not exist. So what names no file is validated; a trace and `quality`, which do, are put together as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from perfbench.records import Manifest
from perfbench.scenario.model import Cost, SloLimit, Stage
from perfbench.scenario.quality import Classification, Extraction, Quality
from perfbench.scenario.references import Data
from perfbench.scenario.trace import Trace

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Experiment:
    """The parts of a scenario that decide how its records are read."""

    variants: tuple[str, ...]
    """In the order of the scenario: those we started, then endpoints."""
    endpoints: frozenset[str]
    stages: dict[str, Stage]
    slo: dict[str, SloLimit]
    cost: Cost | None
    quality: Quality | None
    shares_prefix: bool
    """Requests begin alike on purpose (system prompt, shared prefix, conversation), so that hits in the prefix cache are asked for."""
    serve_args: dict[str, Any]


def experiment_of(manifest: Manifest) -> Experiment:
    """Read the scenario that a manifest holds. Raises pydantic.ValidationError for a manifest that was changed by hand."""
    scenario = manifest.scenario
    stages = [_stage(stage) for stage in scenario["load"]["stages"]]
    quality, cost = scenario.get("quality"), scenario.get("cost")
    endpoints = scenario.get("endpoints") or {}
    return Experiment(
        variants=(*(scenario.get("variants") or ()), *endpoints),
        endpoints=frozenset(endpoints),
        stages={stage.name: stage for stage in stages},
        slo={metric: _validated(SloLimit, limit) for metric, limit in (scenario.get("slo") or {}).items()},
        cost=_validated(Cost, cost) if cost else None,
        quality=_quality(quality) if quality else None,
        shares_prefix=bool((scenario.get("prompt") or {}).get("system")) or _load_shares(scenario["load"]),
        serve_args=(scenario.get("serve") or {}).get("args") or {},
    )


def _load_shares(load: dict[str, Any]) -> bool:
    """A shared prefix, or turns that carry those before them, in any source of prompts."""
    sources = load.get("mixture") or [load]
    return any(source.get("conversation") or (source.get("synthetic") or {}).get("shared_prefix") for source in sources)


def _validated(kind: type[Model], value: dict[str, Any]) -> Model:
    return kind.model_validate_json(msgspec.json.encode(value))


def _stage(value: dict[str, Any]) -> Stage:
    trace = value.get("trace")
    stage = _validated(Stage, {**value, "trace": None})
    return stage.model_copy(update={"trace": Trace.model_construct(**trace)}) if trace else stage


def _quality(value: dict[str, Any]) -> Quality:
    task = value["task"]
    kind = Classification if task["task"] == "classification" else Extraction
    labels = {"labels": tuple(task["labels"])} if task.get("labels") is not None else {}
    train = value.get("train_data")
    parts = {
        "data": Data.model_construct(**value["data"]),
        "task": kind.model_construct(**{**task, **labels}),
        "train_data": Data.model_construct(**train) if train else None,
    }
    return Quality.model_construct(**{**value, **parts})
