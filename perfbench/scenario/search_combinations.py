"""What `load.search` must be together with: an SLO to meet, answers of some length, prompts of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfbench.errors import Finding


def search_findings(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings over a scenario as plain data; values of a wrong type are left to the models."""
    load = scenario.get("load")
    if not isinstance(load, Mapping):
        return
    searches, stages = _blocks(load.get("search")), [stage for stage in load.get("stages") or () if isinstance(stage, Mapping)]
    if not stages and not searches:
        yield Finding("load.stages", "nothing to drive; give at least one stage, or a `search` with an `output`")
    if searches and not scenario.get("slo"):
        yield Finding("load.search", "there is no SLO to meet; add `slo`, for example `slo: {ttft_s: {p95: 0.5}}`")
    for index, search in enumerate(searches):
        yield from _one(f"load.search[{index}]", search, stages[0] if stages else None)
    for index, stage in enumerate(stages):
        if searches and str(stage.get("name", "")).startswith("search-"):
            yield Finding(f"load.stages[{index}].name", "names that begin with `search-` belong to the probes of a search; give it another one")
    finds = [search.get("find") for search in searches]
    for find in sorted({str(find) for find in finds if finds.count(find) > 1}):
        yield Finding("load.search", f"`{find}` is looked for twice; keep one")


def _blocks(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item if isinstance(item, Mapping) else {"find": item} for item in items if isinstance(item, (Mapping, str))]


def _one(key: str, search: Mapping[str, Any], first_stage: Mapping[str, Any] | None) -> Iterator[Finding]:
    if search.get("output") is None and first_stage is None:
        yield Finding(f"{key}.output", "there is no stage to take it from; say how long answers are, for example `output: {max_tokens: 128}`")
    output = search.get("output") or (first_stage or {}).get("output")
    if isinstance(output, Mapping) and output.get("trace") is not None:
        yield Finding(f"{key}.output", "a search replays no trace; give `fixed`, `max_tokens` or `distribution`")
    if search.get("find") == "max_concurrency":
        for name in ("arrival", "burstiness"):
            if search.get(name) not in (None, "poisson"):
                yield Finding(f"{key}.{name}", "`max_concurrency` is a closed loop and has no use for it; remove it")
    elif (search.get("burstiness") is not None) != (search.get("arrival") == "gamma"):
        yield Finding(f"{key}.burstiness", "belongs to `arrival: gamma`, which needs it")
    streams, most = search.get("streams"), search.get("max_in_flight")
    if isinstance(streams, int) and isinstance(most, int) and streams > most:
        yield Finding(f"{key}.streams", f"{streams} is more than `max_in_flight`, {most}; lower it")
