"""Everything that can be found wrong before anything starts: models, prompts, held-out rows, server arguments, schedules.

`prepare` turns a Scenario into a Prepared: all that the main path needs, resolved and checked. The only work it does is to merge
an adapter (cached); it starts no server and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perfbench.errors import Finding, ScenarioError
from perfbench.manifest import content_hashes
from perfbench.prompts import RenderedPrompt, render_data
from perfbench.quality.tasks import check_quality
from perfbench.records import ModelInfo, TrialPlan
from perfbench.scenario import Scenario
from perfbench.serve.command import serve_findings
from perfbench.trials import plan_trials
from perfbench.variants import ResolvedModels, ServerPlan, plan_servers


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything resolved. `quality_prompts` and `quality_rows` are empty where there is no quality block."""

    scenario: Scenario
    models: ResolvedModels
    model_infos: dict[str, ModelInfo]
    servers: tuple[ServerPlan, ...]
    trials: tuple[TrialPlan, ...]
    load_prompts: tuple[RenderedPrompt, ...]
    quality_prompts: tuple[RenderedPrompt, ...]
    quality_rows: tuple[dict[str, object], ...]
    hashes: dict[str, str]


def prepare(scenario: Scenario, *, say: Callable[[str], None]) -> Prepared:
    """Resolve and check all parts; `say` is told what takes long. Raises InputError with everything it can name at once."""
    load_prompts, _ = render_data(scenario.load.data, scenario.prompt, key="load.data")
    quality_prompts: list[RenderedPrompt] = []
    quality_rows: list[dict[str, object]] = []
    findings: list[Finding] = list(serve_findings(scenario.serve))
    if scenario.quality is not None:
        quality_prompts, quality_rows = render_data(scenario.quality.data, scenario.prompt, key="quality.data")
        findings += check_quality(scenario.quality, quality_rows)
    if findings:
        raise ScenarioError(scenario.name, findings)
    models, infos = _resolve(scenario, say)
    return Prepared(
        scenario=scenario,
        models=models,
        model_infos=infos,
        servers=tuple(plan_servers(scenario, models)),
        trials=tuple(plan_trials(scenario)),
        load_prompts=tuple(load_prompts),
        quality_prompts=tuple(quality_prompts),
        quality_rows=tuple(quality_rows),
        hashes=content_hashes(scenario, load_prompts, quality_prompts, quality_rows),
    )


def _resolve(scenario: Scenario, say: Callable[[str], None]) -> tuple[ResolvedModels, dict[str, ModelInfo]]:
    from perfbench.models.inspect import check_adapter_fits, inspect_model
    from perfbench.models.merge import merge_adapter
    from perfbench.models.resolve import resolve_model

    refs = scenario.models
    found: dict[str, Path] = {}
    infos: dict[str, ModelInfo] = {}
    if not scenario.variants:
        return ResolvedModels(base=None, adapter=None, merged=None, lora_rank=None), infos
    for name, ref in (("base", refs.base), ("adapter", refs.adapter), ("merged", refs.merged)):
        if ref is not None:
            say(f"models: {name}")
            found[name] = resolve_model(ref)
            infos[name] = inspect_model(found[name], revision=ref.revision)
    if "base" in found and "adapter" in found:
        check_adapter_fits(infos["base"], infos["adapter"])
        if "merged" in scenario.variants and "merged" not in found:
            say(f"models: merging the adapter in {refs.merge_dtype}")
            found["merged"] = merge_adapter(found["base"], found["adapter"], refs.merge_dtype, trust_remote_code=refs.trust_remote_code)
            infos["merged"] = inspect_model(found["merged"])
    rank = infos["adapter"].lora_rank if "adapter" in infos else None
    return ResolvedModels(base=found.get("base"), adapter=found.get("adapter"), merged=found.get("merged"), lora_rank=rank), infos
