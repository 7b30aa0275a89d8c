"""What keys of a scenario must be together. Pure, over plain data, so that it also runs on a file that has other errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfbench.errors import Finding


def combination_findings(scenario: Mapping[str, Any]) -> list[Finding]:
    """Findings over a scenario as plain data (a parsed file or a dumped model). Values of a wrong type are left to the models."""
    return [*_variants(scenario), *_stages(scenario), *_quality(scenario)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _variants(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    variants = [name for name in _list(scenario.get("variants")) if isinstance(name, str)]
    endpoints = _mapping(scenario.get("endpoints"))
    models = _mapping(scenario.get("models"))
    has = {name: models.get(name) is not None for name in ("base", "adapter", "merged")}
    if not variants and not endpoints:
        yield Finding("variants", "nothing to measure; list variants to start (base, base+lora, adapter, merged) or give `endpoints`")
    for name in sorted({name for name in variants if variants.count(name) > 1}):
        yield Finding("variants", f"`{name}` stands there twice; name each once")
    for name in sorted(set(endpoints) & {"base", "base+lora", "adapter", "merged"} & set(variants)):
        yield Finding(f"endpoints.{name}", "a variant that we start has the same name; rename the endpoint")
    if has["adapter"] and not has["base"]:
        yield Finding("models.adapter", "an adapter cannot be served or merged without its base; add `models.base`")
    elif not has["base"] and {"base", "base+lora", "adapter"} & set(variants):
        yield Finding("models.base", f"variant `{variants[0]}` needs it; add the base model's folder or hub id")
    if not has["adapter"] and {"base+lora", "adapter"} & set(variants):
        yield Finding("models.adapter", "variants `base+lora` and `adapter` need it; add the adapter's folder or hub id")
    if "merged" in variants and not has["merged"] and not (has["base"] and has["adapter"]):
        yield Finding("models.merged", "variant `merged` needs it, or `models.base` and `models.adapter` to merge")


def _stages(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, value in enumerate(_list(_mapping(scenario.get("load")).get("stages"))):
        stage = _mapping(value)
        key = f"load.stages[{index}]"
        name, arrival = stage.get("name"), stage.get("arrival")
        if isinstance(name, str) and name in seen:
            yield Finding(f"{key}.name", f"another stage is named `{name}`; give each its own name")
        seen.add(str(name))
        if arrival == "closed":
            if stage.get("concurrency") is None:
                yield Finding(f"{key}.concurrency", "arrival `closed` needs it: how many requests to keep in flight")
            if stage.get("rate_per_s") is not None:
                yield Finding(f"{key}.rate_per_s", "arrival `closed` has no rate, it sends when a response has ended; use `poisson` or `constant`")
        elif arrival in ("constant", "poisson"):
            if stage.get("rate_per_s") is None:
                yield Finding(f"{key}.rate_per_s", f"arrival `{arrival}` needs it: arrivals per second")
            if stage.get("concurrency") is not None:
                yield Finding(f"{key}.concurrency", f"arrival `{arrival}` never waits for a response; use `max_in_flight` for a limit")


QUALITY_METRICS = {
    "classification": ("accuracy", "macro_f1", "micro_f1"),
    "extraction": ("exact_match", "json_validity", "schema_validity", "field_accuracy"),
}
"""Metrics that may decide, by task; the first is the default."""


def _quality(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    quality = _mapping(scenario.get("quality"))
    task = _mapping(quality.get("task"))
    kind, metric = task.get("task"), quality.get("metric")
    known = QUALITY_METRICS.get(kind) if isinstance(kind, str) else None
    if known and isinstance(metric, str) and metric not in known:
        yield Finding("quality.metric", f"`{metric}` does not fit task `{kind}`; expected one of {', '.join(known)}")
    if metric == "schema_validity" and task.get("json_schema") is None:
        yield Finding("quality.metric", "`schema_validity` needs `quality.task.json_schema`")
